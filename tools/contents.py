"""The tables that follow from the chapters' texts, so that nobody copies a heading by hand.

    python tools/contents.py    writes the tables of README.md and TEACHING.md

`make notebooks` does it too, and puts the table of chapters into chapter 00, where its text says
`{{ chapters }}`. A text `course/<room>/NN_name.md` gives its title and its question in its first
two lines, its exercises in their headings, and the rest in its front matter under `course`:

    figure     of README: `file`, `cell` (a string in the cell that draws it), `alt`
    exercises  what each of them tests, in their order
    question   of an index, for the table of chapter 00
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PLACE = "{{ chapters }}"  # in a text: where the table of chapters goes
BEGIN, END = "<!-- written by make notebooks: {} -->", "<!-- until here -->"
INDEXES = "90"  # texts from this number on are indexes, not chapters


@dataclass(frozen=True)
class Exercise:
    """One exercise, as its heading says it."""

    number: str  # such as 1.1
    stars: str
    minutes: int
    title: str
    tests: str  # what it tests, in a few words


@dataclass(frozen=True)
class Text:
    """What the tables say about one text."""

    path: Path
    title: str  # without its number
    question: str
    minutes: int  # of reading, exercises not counted; 0 for an index
    figure: dict[str, str]  # file, cell, alt; empty without one
    exercises: tuple[Exercise, ...]

    @property
    def number(self) -> str:
        """Two digits."""
        return self.path.name[:2]

    @property
    def is_chapter(self) -> bool:
        """Whether it is a chapter, not an index."""
        return self.path.name < INDEXES


def texts(root: Path = ROOT, numbers: Sequence[str] = ()) -> list[Path]:
    """The texts in reading order.

    Args:
        root: of the repository.
        numbers: two digits each; only these, if some are given.
    """
    found = (root / "course").glob("*/[0-9][0-9]_*.md")
    return sorted(
        (path for path in found if not numbers or path.name[:2] in numbers),
        key=lambda path: path.name,
    )


def read(path: Path) -> Text:
    """What a text says about itself.

    Args:
        path: of the text.
    Raises:
        ValueError: its first lines or its front matter are not as the tables need them.
    """
    whole = path.read_text(encoding="utf-8")
    _, head, body = whole.split("---\n", 2)
    given: dict[str, Any] = (yaml.safe_load(head) or {}).get("course") or {}
    opening = re.search(r"^# (\d\d) · (.+)\n\n\*\*(.+)\*\*$", body, re.M)
    if opening is None or opening[1] != path.name[:2]:
        raise ValueError(
            f"{path.name} must begin with “# {path.name[:2]} · title”, an empty line, and its "
            "question in bold."
        )
    heads = re.findall(r"^### Exercise (\d+\.\d+) · (★+) · (\d+) min — (.+)$", body, re.M)
    tests = given.get("exercises", [])
    if len(heads) != len(tests):
        raise ValueError(
            f"{path.name} has {len(heads)} exercises, and its front matter says of {len(tests)} "
            "what they test."
        )
    time = re.search(r"\*Time:\* (\d+) minutes", body)
    return Text(
        path=path,
        title=opening[2],
        question=str(given.get("question", opening[3])),
        minutes=int(time[1]) if time else 0,
        figure=given.get("figure", {}),
        exercises=tuple(
            Exercise(number, stars, int(minutes), title, what)
            for (number, stars, minutes, title), what in zip(heads, tests, strict=True)
        ),
    )


def chapters_of_readme(found: Sequence[Text]) -> str:
    """README's table: chapter, question, figure."""
    rows = ["| chapter | the question it answers | |", "|---|---|---|"]
    for text in found:
        if text.is_chapter:
            picture = (
                f' <img src="figures/{text.figure["file"]}" width="260" alt="{text.figure["alt"]}">'
                if text.figure
                else ""
            )
            link = f"[{text.number} · {text.title}](notebooks/{text.path.stem}.ipynb)"
            rows.append(f"| {link} | {text.question} |{picture} |")
    return "\n".join(rows)


def chapters_of_start(found: Sequence[Text]) -> str:
    """Chapter 00's table: every other page with a link, and its question."""
    rows = ["| chapter | question |", "|---|---|"]
    for text in found:
        here = text is found[0]
        number = text.number if here else f"[{text.number}]({text.path.stem}.ipynb)"
        rows.append(f"| **{number}** {text.title} | {text.question} |")
    return "\n".join(rows)


def times_of_teaching(found: Sequence[Text]) -> str:
    """TEACHING's sentence about how long all of it takes."""
    exercises = [exercise for text in found for exercise in text.exercises]
    reading = round(sum(text.minutes for text in found) / 60)
    solving = round(sum(exercise.minutes for exercise in exercises) / 60)
    return (
        f"The chapters take about {reading} hours to read, and their {len(exercises)} exercises "
        f"about {solving} more."
    )


def exercises_of_teaching(found: Sequence[Text]) -> str:
    """TEACHING's table of all exercises."""
    rows = ["| | exercise | | min | what it tests |", "|---|---|---|---|---|"]
    rows += [
        f"| [{each.number}](notebooks/{text.path.stem}.ipynb) | {each.title} | {each.stars} "
        f"| {each.minutes} | {each.tests} |"
        for text in found
        for each in text.exercises
    ]
    return "\n".join(rows)


WRITTEN = {  # file → part → who writes it
    "README.md": {"chapters": chapters_of_readme},
    "TEACHING.md": {"times": times_of_teaching, "exercises": exercises_of_teaching},
}


def fresh(root: Path = ROOT) -> dict[Path, str]:
    """Each file with its tables as the texts want them.

    Args:
        root: of the repository.
    Raises:
        ValueError: a file has lost the marks between which a table stands.
    """
    found = [read(path) for path in texts(root)]
    pages: dict[Path, str] = {}
    for name, parts in WRITTEN.items():
        page = (root / name).read_text(encoding="utf-8")
        for part, table in parts.items():
            begin = BEGIN.format(part)
            if page.count(begin) != 1:
                raise ValueError(f"{name} needs the line {begin} once, and {END} below it.")
            before, after = page.split(begin)
            _, _, rest = after.partition(END)
            page = f"{before}{begin}\n{table(found)}\n{END}{rest}"
        pages[root / name] = page
    return pages


def fill(source: str, root: Path = ROOT) -> str:
    """A cell's text with the table of chapters in its place.

    Args:
        source: of a cell.
        root: of the repository.
    """
    if PLACE not in source:
        return source
    return source.replace(PLACE, chapters_of_start([read(path) for path in texts(root)]))


def write(root: Path = ROOT) -> None:
    """Write the tables of README and TEACHING.

    Args:
        root: of the repository.
    """
    for path, page in fresh(root).items():
        if path.read_text(encoding="utf-8") != page:
            path.write_text(page, encoding="utf-8")
            print(f"{path.relative_to(root)}  written")


if __name__ == "__main__":
    write()
