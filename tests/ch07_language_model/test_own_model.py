"""Section 7.7 on a model that is not the course's: the notebook's own cells, with COURSE_MODEL."""

import pytest

from tests.helpers.foreign_models import save_foreign_model
from tools import build_notebooks, contents


def cells_of(section: str) -> list[str]:
    """The set-up cell of chapter 07, and the code cells below a heading."""
    [source] = contents.texts(numbers=["07"])
    code, here = [], ""
    for cell in build_notebooks.skeleton(source, "reader").cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            here = line if line.startswith("## ") else here
        if cell.cell_type == "code" and (not code or here.startswith(f"## {section} ")):
            code.append(cell.source)
    return code


@pytest.mark.parametrize("kind", ["llama", "qwen"])
def test_the_section_runs_on_another_architecture_and_tokenizer(
    tmp_path, monkeypatch, capsys, kind
):
    save_foreign_model(tmp_path / "own", kind=kind, padding_side="right")
    monkeypatch.setenv("COURSE_MODEL", str(tmp_path / "own"))
    names: dict = {"__name__": "__main__"}
    for source in cells_of("7.7"):
        exec(source, names)
    own = names["yours"]
    assert own.model.config.model_type.startswith(kind) and len(own.tokenizer) > 256
    printed = capsys.readouterr().out
    assert str(tmp_path) in printed and f"{type(own.model).__name__}, step 1" in printed
