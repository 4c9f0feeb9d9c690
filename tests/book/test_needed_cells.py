"""The cells that widgets and solutions need: by hand, and in the chapters."""

import re
from pathlib import Path

import nbformat
import pytest

from tools import needed_cells

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CHAPTERS = [path for path in sorted(NOTEBOOKS.glob("*.ipynb")) if path.name < "90"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["from helpers import widgets", "x = 1", "y = 2", "widgets.W(y)"], [0, 2, 3]),
        (["import widgets", "a = 1", "b = a", "a = 3", "widgets.W(b)"], [0, 1, 2, 4]),
        (["import widgets", "x = []", "x.append(1)", "len(x)", "widgets.W(x)"], [0, 1, 2, 4]),
        (["import widgets", "x = f()", "x.a[0] += 1", "x = g()", "widgets.W(x)"], [0, 3, 4]),
        (["import widgets", "x = f()", "x.a[0] += 1", "y = x", "widgets.W(x)"], [0, 1, 2, 4]),
        (["import widgets", "n = 1", "n += 1", "m = 2", "widgets.W(n)"], [0, 1, 2, 4]),
        (
            ["import widgets", "k = 3", "def f(x):\n    return k * x", "x = 1", "widgets.W(f)"],
            [0, 1, 2, 4],
        ),
        (["import widgets", "x = 1", "widgets.show(x)", "w = widgets.W(x)", "widgets.W"], []),
        (
            ["import widgets", "x, y = 1, 2", "[x for x in y]", "widgets.W([x for x in y])"],
            [0, 1, 3],
        ),
        (["import widgets", "for x in range(3):\n    y = x", "widgets.W(y)"], [0, 1, 2]),
        (["import widgets", "widgets.A()", "widgets.show(1)", "widgets.B()"], [0, 1, 3]),
    ],
)
def test_what_a_widget_needs_by_hand(cells, expected):
    assert needed_cells.needed(cells) == expected


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_widget_of_a_chapter_is_found_and_the_rest_is_left_out(path):
    notebook = nbformat.read(path, as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    kept = needed_cells.needed(sources)
    shown = [k for k, source in enumerate(sources) if re.search(r"^widgets\.[A-Z]", source, re.M)]
    assert set(shown) <= set(kept)
    rooms = NOTEBOOKS.parent.glob(f"course/ch{path.name[:2]}_*/widgets.py")
    assert bool(shown) == any(rooms), "the widgets of the room are shown in the chapter"
    assert len(kept) < len(sources) / 3, "the browser would run most of the chapter"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_cell_of_the_solutions_is_run_there_or_with_the_readers_notebook(path):
    def sources(notebook):
        return [cell.source for cell in notebook.cells if cell.cell_type == "code"]

    solved = nbformat.read(path.parent / "solutions" / path.name, as_version=4)
    everything = sources(solved)
    kept = sources(needed_cells.for_solutions(solved))
    readers = sources(nbformat.read(path, as_version=4))
    assert set(everything) <= {*kept, *readers}
    assert sum("checks.exercise_" in source for source in kept) == len(
        re.findall(r"checks\.exercise_", "".join(everything))
    )
    assert len(kept) < len(everything) or len(everything) <= 3
