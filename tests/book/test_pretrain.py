"""`make pretrain`, shortened: it learns, and the same seed gives the same file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "pretrain.py"


@pytest.fixture
def pretrain(monkeypatch):
    """The script inside this process, which has imported all it needs and used chance before."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import pretrain

    def run(*options: str) -> None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
        pretrain.main()

    yield run
    torch.use_deterministic_algorithms(False)


def test_it_learns_and_is_reproducible(pretrain, tmp_path):
    options = ("--steps", "60", "--samples", "400", "--out")
    command = [sys.executable, str(SCRIPT), *options, str(tmp_path / "a")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)
    card = json.loads((tmp_path / "a" / "card.json").read_text())
    pretrain(*options, str(tmp_path / "b"))
    assert json.loads((tmp_path / "b" / "card.json").read_text()) == card
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    # An untrained model pays log 61 = 4.1 nats a word, some 28 nats a review above the entropy.
    assert 0.2 < card["kl_grammar_to_model_nats_per_review"] < 15
    shipped = json.loads((ROOT / "helpers/pretrained/reviews/card.json").read_text())
    assert card["parameters"] == shipped["parameters"] and card["seed"] == shipped["seed"]
    names = {file.name for file in (tmp_path / "a").iterdir()}
    assert names == {file.name for file in (ROOT / "helpers/pretrained/reviews").iterdir()}
