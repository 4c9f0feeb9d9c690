"""The pages that point at others: glossary, table of exercises, index of misconceptions."""

import re
from pathlib import Path

import pytest

from tools import contents

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {path.stem: path for path in contents.texts()}
CHAPTERS = [path for path in TEXTS.values() if path.name < contents.INDEXES]


def sections(path: Path) -> dict[str, str]:
    """Heading, as JupyterLab links to it → the text below, up to the next heading."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    parts = re.split(r"^#{1,4} (.+)$", prose, flags=re.M)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {heading.strip().replace(" ", "-"): text for heading, text in pairs}


def test_a_word_of_the_glossary_is_bold_where_its_link_leads():
    text = TEXTS["98_glossary"].read_text()
    rows = re.findall(
        r"^\| \*\*(.+?)\*\* \| (.+?) \| \[.+?\]\((\S+?)\.ipynb#(\S+)\) \|$", text, re.M
    )
    assert len(rows) == text.count("\n| **") >= 60
    words = [word.lower() for word, *_ in rows]
    assert words == sorted(set(words))
    for word, what, stem, heading in rows:
        body = sections(TEXTS[stem])[heading]
        bold = " · ".join(re.findall(r"\*\*(.+?)\*\*", body, re.S)).lower().split()
        assert word.lower() in " ".join(bold), f"{word!r} is not bold in {heading}"
        assert what.endswith("."), word


@pytest.mark.parametrize("name", contents.WRITTEN)
def test_the_tables_are_what_the_texts_say(name):
    path = ROOT / name
    assert path.read_text() == contents.fresh()[path], "run `make notebooks`"


def test_no_two_exercises_test_the_same():
    tests = [each.tests for path in CHAPTERS for each in contents.read(path).exercises]
    assert len(set(tests)) == len(tests) > 50


def test_the_plan_of_four_classes_names_sections_and_exercises_that_there_are():
    plan = (ROOT / "TEACHING.md").read_text().split("## All exercises")[0]
    named = set(re.findall(r"\b\d{1,2}\.\d\b", plan))
    exercises = {each.number for path in CHAPTERS for each in contents.read(path).exercises}
    headings = " ".join(" ".join(sections(path)) for path in CHAPTERS)
    assert len(named) > 50
    for number in named:
        assert number in exercises or f"{number}-·" in headings, number


def test_the_times_of_a_chapter_are_those_of_its_exercises():
    for path in CHAPTERS:
        text = path.read_text()
        stated = int(re.search(r"\*Time:\* \d+ minutes, exercises (\d+) more", text)[1])
        assert stated == sum(map(int, re.findall(r"^### Exercise .* · (\d+) min", text, re.M)))


def test_every_page_is_in_the_table_of_chapter_00():
    table = contents.fill(contents.PLACE)
    assert contents.PLACE in TEXTS["00_start_here"].read_text()
    for path in TEXTS.values():
        text = contents.read(path)
        assert text.title in table and text.question in table, path.name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# 8 · Eight\n\n**Why?**\n", "must begin with"),
        ("# 08 · Eight\n\nWhy?\n", "its question in bold"),
        ("# 08 · Eight\n\n**Why?**\n\n### Exercise 8.1 · ★ · 5 min — one\n", "1 exercises"),
    ],
)
def test_a_text_that_the_tables_cannot_read_is_refused_in_words(tmp_path, text, words):
    path = tmp_path / "08_eight.md"
    path.write_text(f"---\nkernelspec: {{}}\n---\n\n{text}")
    with pytest.raises(ValueError, match=words):
        contents.read(path)


def test_every_row_of_the_index_of_misconceptions_has_an_authority_and_a_cell():
    text = TEXTS["99_misconceptions"].read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| one may hear", "|---"))]
    assert len(rows) >= 45
    for row in rows:
        claim, precisely, authority, place = row.strip("| ").split(" | ")
        assert claim.endswith((".", "?")) and precisely.endswith(".") and authority, claim
        assert re.search(r"\]\(\d\d_\w+\.ipynb#\S+\)", place), claim
    cited = set(re.findall(r"\((\d\d)_\w+\.ipynb#", text))
    assert {f"{k:02}" for k in range(8)} <= cited <= {path.name[:2] for path in CHAPTERS}
