"""Records on disk: a CSV a run, and beside it a JSON that says where the numbers come from.

A run that was killed and goes on writes the file as if nothing had happened: rows that the
checkpoint had not reached are written again.
"""

import csv
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from helpers.train import Record


def provenance(**details: Any) -> dict[str, Any]:
    """Where a run is made: commit, versions, device, date; and what the caller adds.

    Args:
        details: settings that the run can be repeated with; a dataclass as its dict.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    return {
        "commit": _commit(), "date": time.strftime("%Y-%m-%d", time.gmtime()), "device": device,
        "threads": torch.get_num_threads(), "python": platform.python_version(), **versions,
        **details,
    }  # fmt: skip


def record(records: Iterable[Record], path: str | Path, **details: Any) -> Iterator[Record]:
    """Pass records on, and write each one down before it is passed.

    Args:
        records: of `train.train`.
        path: of the CSV. Rows from the first record's step on are replaced.
        details: see `provenance`; written to the same name with `.json` at the end.
    Returns:
        An iterator of the same records.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    about, started = provenance(**details), time.perf_counter()
    iterator = iter(records)
    try:
        for number, one in enumerate(iterator):
            numbers = one.numbers()
            if number == 0:
                _begin(path, list(numbers), keep_below=one.step)
            with path.open("a", newline="") as file:
                csv.writer(file).writerow(numbers.values())
            yield one
    finally:
        if hasattr(iterator, "close"):
            iterator.close()  # so that the run writes its checkpoint now
        about["seconds"] = round(time.perf_counter() - started, 1)
        _write(path.with_suffix(".json"), json.dumps(about, indent=1, default=str) + "\n")


def load(path: str | Path) -> list[dict[str, float]]:
    """Rows of a recorded run, by name.

    Args:
        path: of the CSV.
    Raises:
        ValueError: a row is not as long as the header. The message names its line.
    """
    with Path(path).open(newline="") as file:
        header, *rows = list(csv.reader(file))
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {line}: {len(row)} numbers, but the header has {len(header)}."
            )
    return [dict(zip(header, map(float, row), strict=True)) for row in rows]


def _begin(path: Path, names: list[str], *, keep_below: int) -> None:
    """A file with the header and the rows before a step; a row that was cut off is dropped."""
    kept: list[list[str]] = []
    if path.exists() and keep_below > 0:
        with path.open(newline="") as file:
            old = list(csv.reader(file))
        if old and old[0] != names:
            raise ValueError(f"{path} has other columns ({old[0]}) than this run ({names}).")
        kept = [row for row in old[1:] if len(row) == len(names) and float(row[0]) < keep_below]
    lines = [",".join(names), *(",".join(row) for row in kept)]
    _write(path, "".join(f"{line}\n" for line in lines))


def _write(path: Path, text: str) -> None:
    """Write a file under another name and rename it: nobody ever sees half of it."""
    temporary = path.with_name(f"{path.name}.part-{os.getpid()}")
    temporary.write_text(text, newline="")
    temporary.replace(path)


def _commit() -> str:
    """The commit of the course, or "unknown" where it is not a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
