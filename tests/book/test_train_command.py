"""`tools/train.py`: its options reach the run, and every command line that is shown is valid."""

import csv
import importlib.util
import math
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.helpers.foreign_models import save_foreign_model

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "train.py"
SHOWN = (ROOT / "README.md", SCRIPT, *ROOT.glob("course/ch07_*/07_*.md"))


@pytest.fixture
def command(monkeypatch):
    """The script as a module, and `go(*options)` that runs it in this process."""
    monkeypatch.delenv("COURSE_MODEL", raising=False)
    spec = importlib.util.spec_from_file_location("train_command", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def go(*options: str) -> None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
        module.main()

    module.go = go
    return module


def command_lines(path: Path) -> list[list[str]]:
    """The options of each command line in a file, with continued lines joined."""
    text = re.sub(r"\\+\n", " ", path.read_text(encoding="utf-8"))
    lines = re.findall(r"tools/train\.py (--.*?)(?:  +#.*)?$", text, flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_the_command_lines_that_are_shown_are_valid(path, command):
    found = [command.options().parse_args(line) for line in command_lines(path)]
    assert len(found) >= 2
    folders = [args.folder for args in found]
    for args in found:
        assert bool(args.model) == bool(args.prompts), "a stranger needs prompts of its own"
    if path.name != "README.md":
        assert len(set(folders)) == len(folders), "other settings need another folder"


def test_a_model_of_ones_own_with_its_end_and_its_reference(command, tmp_path):
    save_foreign_model(tmp_path / "own", kind="llama", padding_side="right", eos=None)
    (tmp_path / "prompts.txt").write_text("the film\n\nthe plot\n")
    options = [
        "--model",
        str(tmp_path / "own"),
        "--prompts",
        str(tmp_path / "prompts.txt"),
        "--folder",
        str(tmp_path / "run"),
        "--reward",
        "course.worlds.rewards:length_reward",
        "--prompts-per-step",
        "2",
        "--group-size",
        "4",
        "--max-new-tokens",
        "6",
        "--lr",
        "1e-3",
    ]
    with pytest.raises(ValueError, match="names no end-of-sequence token"):
        command.go(*options, "--steps", "2")
    command.go(*options, "--steps", "3", "--eos-token", ".", "--reference")
    with (tmp_path / "run" / "records.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 1, 2]
    kl = [float(row["kl"]) for row in rows]
    assert all(map(math.isfinite, kl)) and abs(kl[0]) < 1e-5 < abs(kl[-1])


def test_without_prompts_a_stranger_is_not_asked_for_reviews(command, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.go("--model", "owner/name", "--folder", str(tmp_path))
    assert "needs --prompts" in capsys.readouterr().err


def test_the_lines_of_python_in_readme_train(capsys):
    [block] = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert "steps=30" in block
    exec(block.replace("steps=30", "steps=1, prompts_per_step=1"), {})
    assert capsys.readouterr().out.startswith("0 ")
