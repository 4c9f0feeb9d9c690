"""Records on disk: a CSV a run, and beside it a JSON that says where the numbers come from.

A run that was killed and goes on writes the file as if nothing had happened: rows that the
checkpoint had not reached are written again.
"""

import csv
import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from helpers import contract


@dataclass(frozen=True)
class Record:
    """What one step saw, before its weights were moved. Means are over all completions."""

    step: int  # ≥ 0: from 0
    reward: float  # mean of R, without the KL term
    reward_std: float  # standard deviation of R
    entropy: float  # Σ_t H(π(·|s_t)), nats a completion: exact in each state that was met
    nll: float  # −Σ_t log π(x_t|s_t), nats a completion: the same mean, from the tokens alone
    kl: float  # Σ_t KL(π(·|s_t) ‖ π_ref(·|s_t)), nats a completion; nan without a reference
    length: float  # tokens, EOS included
    finished: float  # share that ended before the limit
    silent: float  # share with advantage 0, which adds nothing to the gradient
    mismatch: float  # largest |log π scored − log π sampled| of a token, nats: rounding, or a bug
    grad_norm: float  # of the estimate, before it was clipped
    seconds: float
    tokens_per_second: float  # tokens written, over the seconds of the whole step
    prompts: list[str] = field(repr=False)  # B texts of this process
    completions: list[str] = field(repr=False)  # B texts
    rewards: list[float] = field(repr=False)  # B numbers

    @classmethod
    def columns(cls) -> list[str]:
        """Names of all that is a number: not the texts and their rewards."""
        return [each.name for each in dataclasses.fields(cls) if each.repr]

    def numbers(self) -> dict[str, float]:
        """Each of `columns` with its number."""
        return {name: getattr(self, name) for name in self.columns()}


COLUMNS = Record.columns()


def provenance(**details: Any) -> dict[str, Any]:
    """Where a run is made: commit, versions, device, date; and what the caller adds.

    Args:
        details: settings that the run can be repeated with; a dataclass as its dict.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    return {
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": device,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions,
        **details,
    }


def record(records: Iterable[Record], path: str | Path, **details: Any) -> Iterator[Record]:
    """Pass records on, and write each one down before it is passed.

    Args:
        records: of `train.train`. Several processes: only the main one should write them down.
        path: of the CSV. Rows from the first record's step on are replaced.
        details: see `provenance`; written to the same name with `.json` at the end, with the
            seconds that all steps of the CSV took.
    Returns:
        An iterator of the same records.
    Raises:
        ValueError: the file has other columns, and is left as it is.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = _read(path)[:1]
    if header not in ([], [COLUMNS]):
        raise ValueError(
            f"{path} has other columns than this run: {header[0]}, and not {COLUMNS}. Choose "
            "another name, or move that file away."
        )
    about = provenance(**details)
    _write_about(path, about)  # at once: a killed run should say where it comes from, too
    return _record(records, path, about)


def _record(records: Iterable[Record], path: Path, about: dict[str, Any]) -> Iterator[Record]:
    iterator = iter(records)
    try:
        for number, one in enumerate(iterator):
            try:
                if number == 0 or not path.exists():  # at first, or somebody took it away
                    _begin(path, keep_below=one.step)
                _append(path, one)
            except BaseException as error:
                if not isinstance(error, Exception):  # Ctrl-C: a checkpoint of this step will be
                    _begin(path, keep_below=one.step)  # written, so its row must be, and once
                    _append(path, one)
                raise
            yield one
    finally:
        if hasattr(iterator, "close"):
            iterator.close()  # so that the run writes its checkpoint now
        _write_about(path, about)


def load(path: str | Path) -> list[dict[str, float]]:
    """Rows of a recorded run, by name.

    Args:
        path: of the CSV.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row is cut off or is not of numbers. The message names its line.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no recorded run {path}.")
    header, *rows = _read(Path(path)) or [[]]
    found = []
    for line, row in enumerate(rows, start=2):
        try:
            found.append(dict(zip(header, map(float, row), strict=True)))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {line}: {row!r:.60} is not one number for each of the "
                f"{len(header)} columns ({error})."
            ) from error
    return found


def save(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[float]],
    about: dict[str, Any],
    *,
    digits: int = 8,
) -> None:
    """Write a table of numbers, and beside it where they come from.

    Args:
        path: of the CSV; the JSON has its name.
        columns: names.
        rows: one number a column.
        about: of `provenance`.
        digits: ≥ 1, that count.
    """
    lines = [",".join(f"{number:.{digits}g}" for number in row) for row in rows]
    _write(path, "\n".join([",".join(columns), *lines]) + "\n")
    text = json.dumps(about, indent=1, ensure_ascii=False)
    _write(path.with_suffix(".json"), text + "\n")


def _read(path: Path) -> list[list[str]]:
    """All lines; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def _begin(path: Path, *, keep_below: int) -> None:
    """A file with the header and the rows before a step; a row that was cut off is dropped."""
    kept = [row for row in _read(path)[1:] if len(row) == len(COLUMNS) and int(row[0]) < keep_below]
    _write(path, "".join(",".join(row) + "\n" for row in (COLUMNS, *kept)))


def _append(path: Path, one: Record) -> None:
    numbers = one.numbers()
    line = ",".join(repr(numbers[name]) for name in COLUMNS) + "\n"
    with path.open("a", newline="", encoding="utf-8") as file:
        file.write(line)  # one write: a killed run leaves all of a row or nothing


def _write_about(path: Path, about: dict[str, Any]) -> None:
    rows = [row for row in _read(path)[1:] if len(row) == len(COLUMNS)]
    seconds = sum(float(row[COLUMNS.index("seconds")]) for row in rows)  # of all restarts
    text = json.dumps(about | {"seconds": round(seconds, 1)}, indent=1, default=str)
    _write(path.with_suffix(".json"), text + "\n")


def _write(path: Path, text: str) -> None:
    """Write a file under another name and rename it: nobody ever sees half of it."""
    temporary = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        temporary.write_text(text, newline="", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _commit() -> str:
    """The commit of the course, "-dirty" if files were changed since; "unknown" without git."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


contract.hold(globals())
