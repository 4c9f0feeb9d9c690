"""Chapter 07's recorded runs: where they are, and how they are read."""

import json
import re
from pathlib import Path

from helpers import runlog

BUGS = ("none", "EOS not scored", "temperature", "shifted", "other order")
# The rows of section 7.4's figure: whose they are is the reader's to find out.
ROWS = {letter: BUGS[k] for letter, k in zip("ABCD", (2, 4, 1, 3), strict=True)}
RUNS = Path(__file__).parent / "runs"  # written by `record.py`


def runs(path: str | Path) -> dict[str, dict[str, list[float]]]:
    """Runs of a preset that `record.py` wrote down, as `figures.laboratory` takes them.

    Args:
        path: of the CSV, with a column `seed`.
    Returns:
        "seed 0", … → column → one number a step.
    Raises:
        FileNotFoundError: there is no such file.
    """
    runs: dict[str, dict[str, list[float]]] = {}
    for row in runlog.load(path):
        run = runs.setdefault(f"seed {row['seed']:.0f}", {name: [] for name in row})
        for name, number in row.items():
            run[name].append(number)
    return runs


def bugs() -> dict[str, dict[str, list[list[float]]]]:
    """The runs of section 7.4, as `record.py` wrote them down.

    Returns:
        a name of `BUGS` → column, such as "objective" → one list a seed, of one number a step.
    """
    found: dict[str, dict[str, list[list[float]]]] = {bug: {} for bug in BUGS}
    for row in runlog.load(RUNS / "chapter07_bugs.csv"):
        for name, number in row.items():
            seeds = found[BUGS[int(row["bug"])]].setdefault(name, [])
            if row["step"] == 0:
                seeds.append([])
            seeds[-1].append(number)
    return found


def file(preset: str, folder: Path = RUNS) -> Path:
    """Where a preset's recorded runs are, as CSV; the JSON beside it says more.

    Args:
        preset: a name of `PRESETS`.
        folder: of all recorded runs.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", preset.lower().replace("+", "plus")).strip("_")
    return folder / f"chapter07_{plain}.csv"


def texts(preset: str) -> dict[str, list[tuple[str, str, float]]]:
    """A few texts of a preset's first recorded seed, before the first step and at the end.

    Args:
        preset: a name of `PRESETS`.
    Returns:
        "before" and "after" → (prompt, completion, reward).
    Raises:
        FileNotFoundError: the preset was not recorded.
    """
    about = json.loads(file(preset).with_suffix(".json").read_text(encoding="utf-8"))
    return {when: [tuple(row) for row in rows] for when, rows in about["samples"].items()}
