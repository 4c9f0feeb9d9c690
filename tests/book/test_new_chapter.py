"""A new chapter is one room and one folder of tests: a made-up chapter 08 is built and tested."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import contents

ROOT = Path(__file__).resolve().parents[2]
ROOM, STEM = "ch08_made_up", "08_made_up"
FILES = {
    f"course/{ROOM}/{STEM}.md": """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
course:
  figure:
    file: made_up.png
    cell: 'figures.two_bars('
    alt: two bars
  exercises:
    - adding up
---

# 08 · A made-up chapter

**What does an author have to touch?**

*Time:* 10 minutes, exercises 5 more.

+++

## 8.1 · One figure

```{code-cell} ipython3
from course.ch08_made_up import checks, figures
from course.kit import style

style.use_style()
style.show(figures.two_bars([1.0, 2.0]),
           alt="The second bar is twice as high.")
```

## Exercises

### Exercise 8.1 · ★ · 5 min — a sum

```{code-cell} ipython3
:tags: [exercise]

def total(numbers):
    ...
```

```{code-cell} ipython3
:tags: [solution]

def total(numbers):
    return sum(numbers)
```

```{code-cell} ipython3
checks.exercise_1(total)
```
""",
    f"course/{ROOM}/figures.py": '''"""Figure of chapter 08, a made-up chapter."""

from collections.abc import Sequence

from matplotlib.figure import Figure


def two_bars(heights: Sequence[float]) -> Figure:
    """Two bars."""
    figure = Figure(figsize=(4, 2))
    ax = figure.subplots()
    ax.bar(range(len(heights)), heights)
    ax.set_ylabel("height")
    return figure
''',
    f"course/{ROOM}/checks.py": '''"""Checker of chapter 08, a made-up chapter."""

from collections.abc import Callable, Sequence
from typing import Any

from course.kit import checker


def exercise_1(total: Callable[[Sequence[float]], Any]) -> None:
    """The sum of some numbers."""
    answer = total([1.0, 2.0, 4.0])
    if checker.is_stub("8.1", answer):
        return
    got = checker.as_numbers(answer, shape=(), what="the sum")
    checker.diagnose(got, 7.0, {"that is the largest of them.": 4.0})
    checker.passed("8.1", "a sum.")
''',
    f"tests/{ROOM}/answers.py": '''"""Wrong and right answers of a made-up chapter 08."""

from course.ch08_made_up import checks

WRONG = [(checks.exercise_1, max, "the largest")]
RIGHT = [(checks.exercise_1, sum)]
STUBS: dict = {}
''',
    f"tests/{ROOM}/bugs.py": '''"""A seeded bug in the figure of chapter 08, a made-up chapter."""

from course.ch08_made_up import figures
from tests.mutant import Mutant

ORIGINAL = figures.two_bars


def bars_upside_down(heights):
    return ORIGINAL([-height for height in heights])


MUTANTS = [
    Mutant(
        "course.ch08_made_up.figures.two_bars",
        bars_upside_down,
        ("ch08_made_up/test_figures.py",),
    )
]
''',
    f"tests/{ROOM}/test_figures.py": '''"""The figure of chapter 08, a made-up chapter."""

from course.ch08_made_up import figures
from tests import figure_battery


def test_it_is_reproducible_and_labelled():
    figure_battery.check(lambda: {"bars": figures.two_bars([1.0, 2.0])})


def test_it_shows_the_heights():
    [ax] = figures.two_bars([1.0, 2.0]).axes
    assert [bar.get_height() for bar in ax.patches] == [1.0, 2.0]
''',
}
# All tests that look at the whole course, and of those that look at one file or chapter after
# the other the made-up ones. Chapter 00 would be executed anew, for the row in its table.
CHOSEN = "(made_up or bars_upside_down or tables_are or not [) and not anatomy"
BOOK = ("house", "indexes", "notebooks", "needed_cells", "checkers", "mutants")


def run(copy: Path, *command: str) -> str:
    """Run a Python command in the copy; what it prints."""
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def run_tests_of(copy: Path, *options: str) -> str:
    """Run some of the copy's tests."""
    return run(copy, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", *options)


def files(folder: Path) -> dict[str, bytes]:
    """Everything that belongs to the course below a folder, by its path."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    parts = {path.relative_to(folder): path for path in found}
    return {
        str(name): path.read_bytes()
        for name, path in parts.items()
        if not any(part in ("__pycache__", "build") for part in name.parts)
    }


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The course with a made-up chapter 08, built."""
    folder = tmp_path_factory.mktemp("course") / "copy"
    skip = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    for path in ROOT.iterdir():
        if path.is_dir() and not path.name.startswith((".", "build")):
            shutil.copytree(path, folder / path.name, ignore=skip)
        elif path.is_file() and path.name != ".git":
            folder.mkdir(exist_ok=True)
            shutil.copy2(path, folder / path.name)
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    run(folder, "-m", "tools.build_notebooks", "08")
    run(folder, "-m", "tools.make_figures")
    return folder


def test_nothing_else_was_touched_by_hand(copy):
    """What differs from the course are the author's files and what was built from them."""
    before, after = files(ROOT), files(copy)
    changed = {name for name in after if after[name] != before.get(name)}
    built = {
        f"notebooks/{STEM}.ipynb",
        f"notebooks/solutions/{STEM}.ipynb",
        "figures/made_up.png",
        "README.md",
        "TEACHING.md",
    }
    assert changed == set(FILES) | built


def test_the_tables_have_a_row_for_it(copy):
    readme, teaching = (copy / "README.md").read_text(), (copy / "TEACHING.md").read_text()
    row = "| [08 · A made-up chapter](notebooks/08_made_up.ipynb) | What does an author have to"
    assert f'{row} touch? | <img src="figures/made_up.png" width="260" alt="two bars"> |' in readme
    assert "| [8.1](notebooks/08_made_up.ipynb) | a sum | ★ | 5 | adding up |" in teaching
    table = contents.fill(contents.PLACE, copy)
    assert "| **[08](08_made_up.ipynb)** A made-up chapter | What does an author" in table


def test_it_is_built_checked_and_tested_like_the_others(copy):
    book = [f"tests/book/test_{name}.py" for name in BOOK]
    done = run_tests_of(copy, f"tests/{ROOM}", *book, "-k", CHOSEN)
    for name in (
        "test_it_shows_the_heights",
        f"test_functions_stay_small[course/{ROOM}/checks.py]",
        f"test_the_notebook_is_built_from_its_text[{STEM}-solutions]",
        f"test_every_widget_of_a_chapter_is_found_and_the_rest_is_left_out[{STEM}]",
        "test_the_tables_are_what_the_texts_say",
        "test_figures_are_the_notebooks_own",
        f"test_every_exercise_has_wrong_and_right_answers[{ROOM}]",
        f"test_the_unit_tests_reject[bars_upside_down-{ROOM}/test_figures.py]",
    ):
        assert name in done, name
    stage = "from tools import run_tests; print(run_tests.commands('notebooks'))"
    assert f"notebooks/{STEM}.ipynb" in run(copy, "-c", stage)


def test_a_missing_answer_is_noticed(copy):
    path = copy / "course" / ROOM / "checks.py"
    path.write_text(path.read_text().replace("exercise_1", "exercise_9"))
    with pytest.raises(AssertionError, match="exercise_1"):
        run_tests_of(copy, "tests/book/test_checkers.py", "-k", ROOM)
