"""Notebooks are what their text says: fresh, executed, clean, small."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

from course.ch07_language_model import film
from tools import build_notebooks, contents, make_figures

ROOT = Path(__file__).resolve().parents[2]

SOURCES = contents.texts()
CHAPTERS = [source for source in SOURCES if source.name < contents.INDEXES]
CASES = [(source, version) for source in SOURCES for version in build_notebooks.FOLDER]
IDS = [f"{source.stem}-{version}" for source, version in CASES]


def built(source: Path, version: str) -> nbformat.NotebookNode:
    return nbformat.read(build_notebooks.FOLDER[version] / f"{source.stem}.ipynb", as_version=4)


def code_cells(notebook) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize(("source", "version"), CASES, ids=IDS)
def test_the_notebook_is_built_from_its_text(source, version):
    fresh, stored = build_notebooks.skeleton(source, version), built(source, version)
    text = lambda nb: [(c.cell_type, c.id, c.source, dict(c.metadata)) for c in nb.cells]  # noqa: E731
    assert text(fresh) == text(stored), "run `make notebooks`"
    assert fresh.metadata == stored.metadata


@pytest.mark.parametrize(("source", "version"), CASES, ids=IDS)
def test_it_was_executed_from_top_to_bottom(source, version):
    cells = code_cells(built(source, version))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.parametrize(("source", "version"), CASES, ids=IDS)
def test_outputs_are_clean(source, version):
    path = build_notebooks.FOLDER[version] / f"{source.stem}.ipynb"
    assert path.stat().st_size <= 1_000_000
    notebook = built(source, version)
    assert "widgets" not in notebook.metadata
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", f"a warning was printed: {output.text[:200]}"
            data = output.get("data", {})
            assert build_notebooks.WIDGET not in data
            assert "object at 0x" not in str(data), "an address differs at every run"
            if "image/png" in data:
                assert output.metadata["image/png"]["alt"], "a figure without words"


@pytest.mark.parametrize(("source", "version"), CASES, ids=IDS)
def test_reader_sees_stubs_and_solutions_are_solved(source, version):
    outputs = "".join(
        output.get("text", "")
        for cell in code_cells(built(source, version))
        for output in cell.outputs
    )
    exercises = re.findall(r"^### Exercise (\d+\.\d+)", source.read_text(), re.M)
    for exercise in exercises:
        word = "not attempted yet" if version == "reader" else "correct"
        assert re.search(rf"Exercise {exercise}: {word}", outputs), f"{exercise}: {version}"


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda s: s.stem)
def test_the_anatomy_of_a_chapter(source):
    text = source.read_text()
    for heading in ("## Common bugs", "## Exercises", "## Summary", "## References", "## Next"):
        assert heading in text, heading
    assert "You will be able to" in text and "*Before this:*" in text and "*Time:*" in text
    assert len(re.findall(r"> \*\*Predict\.\*\*", text)) >= 2
    assert text.count("<details>") == text.count("</details>")
    headers = re.findall(r"^### Exercise .*", text, re.M)
    assert len(headers) >= 4
    for header in headers:
        pattern = r"### Exercise \d+\.\d+ · ★{1,3} · \d+ min — .+"
        assert re.fullmatch(pattern, header), header
    kinds = " ".join(headers)
    assert all(kind in kinds for kind in ("break it", "predict", "extend"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)
def test_code_in_notebooks_is_narrow_and_installs_nothing(source):
    notebook = build_notebooks.skeleton(source, "solutions")
    for cell in code_cells(notebook):
        for line in cell.source.splitlines():
            assert len(line) <= 80, line
        assert not re.search(r"pip install|sys\.path|^\s*[!%]", cell.source, re.M), cell.source


def anchors(path: Path) -> set[str]:
    """What JupyterLab makes of a notebook's headings: spaces become dashes."""
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return {h.strip().replace(" ", "-") for h in re.findall(r"^#{1,4} (.+)$", text, re.M)}


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)
def test_links_lead_somewhere(source):
    for version, folder in build_notebooks.FOLDER.items():
        for cell in build_notebooks.skeleton(source, version).cells:
            if cell.cell_type != "markdown":
                continue
            for target in re.findall(r"\]\(([^)\s]+)\)", cell.source):
                if target.startswith("http"):
                    continue
                file, _, anchor = target.partition("#")
                path = folder / file if file else folder / f"{source.stem}.ipynb"
                assert path.exists(), f"{version}: {target}"
                assert not anchor or anchor in anchors(path), f"{version}: no heading {target}"


def test_cell_ids_are_made_from_the_text_and_are_unique():
    for source in SOURCES:
        ids = [cell.id for cell in build_notebooks.skeleton(source, "reader").cells]
        assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w-]{1,64}", i) for i in ids)


def test_the_builder_refuses_a_notebook_that_raises(tmp_path, monkeypatch):
    source = tmp_path / "99_raises.md"
    header = (
        "---\nkernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n"
    )
    source.write_text(header + "```{code-cell} ipython3\nassert False\n```\n")
    monkeypatch.setitem(build_notebooks.FOLDER, "reader", tmp_path)
    with pytest.raises(CellExecutionError):
        build_notebooks.build(source, "reader")
    assert not (tmp_path / "99_raises.ipynb").exists()


def test_figures_are_the_notebooks_own():
    made = make_figures.figures()
    for file, source in made.items():
        same = (ROOT / "figures" / file).read_bytes() == make_figures.picture(*source)
        assert same, f"{file}: run `make figures`"  # pytest would take minutes to show the bytes
    filmed = {film.FILE.name}
    assert {p.name for p in (ROOT / "figures").iterdir()} == set(made) | filmed


def test_the_film_moves_and_is_small():
    with Image.open(film.FILE) as shown:
        assert shown.n_frames == 26 and shown.info["loop"] == 0
    assert film.FILE.stat().st_size < 1_000_000


def test_links_of_the_markdown_files_lead_somewhere():
    for path in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", path.read_text()):
            target, _, heading = "".join(target).partition("#")
            if target.startswith("http"):
                continue
            assert (ROOT / target).exists(), f"{path.name}: {target}"
            if heading:
                headings = re.findall(r"^#+ (.+)$", (ROOT / target).read_text(), re.M)
                anchors = [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]
                assert heading in anchors, f"{path.name}: {target}#{heading}"
