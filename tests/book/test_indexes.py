"""The pages that point at others: glossary, table of exercises, index of misconceptions."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "notebooks" / "src"
CHAPTERS = sorted(path for path in SOURCES.glob("*.md") if path.name < "90")


def sections(path: Path) -> dict[str, str]:
    """Heading, as JupyterLab links to it → the text below, up to the next heading."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    parts = re.split(r"^#{1,4} (.+)$", prose, flags=re.M)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {heading.strip().replace(" ", "-"): text for heading, text in pairs}


def test_a_word_of_the_glossary_is_bold_where_its_link_leads():
    text = (SOURCES / "98_glossary.md").read_text()
    rows = re.findall(
        r"^\| \*\*(.+?)\*\* \| (.+?) \| \[.+?\]\((\S+?)\.ipynb#(\S+)\) \|$", text, re.M
    )
    assert len(rows) == text.count("\n| **") >= 60
    words = [word.lower() for word, *_ in rows]
    assert words == sorted(set(words))
    for word, what, stem, heading in rows:
        body = sections(SOURCES / f"{stem}.md")[heading]
        bold = " · ".join(re.findall(r"\*\*(.+?)\*\*", body, re.S)).lower().split()
        assert word.lower() in " ".join(bold), f"{word!r} is not bold in {heading}"
        assert what.endswith("."), word


def test_the_table_of_exercises_is_that_of_the_chapters():
    text = (ROOT / "TEACHING.md").read_text()
    pattern = r"^\| \[(\d\.\d)\]\(notebooks/(\S+)\.ipynb\) \| (.+) \| (★+) \| (\d+) \| (.+) \|$"
    table = re.findall(pattern, text, re.M)
    assert [row[:5] for row in table] == [
        (number, path.stem, title, stars, minutes)
        for path in CHAPTERS
        for number, stars, minutes, title in re.findall(
            r"^### Exercise (\d+\.\d+) · (★+) · (\d+) min — (.+)$", path.read_text(), re.M
        )
    ]
    assert len({row[5] for row in table}) == len(table), "two exercises test the same?"
    named = set(re.findall(r"\b\d\.\d\b", text.split("## All exercises")[0]))
    numbers = {row[0] for row in table}
    headings = " ".join(" ".join(sections(path)) for path in CHAPTERS)
    for number in named:
        assert number in numbers or f"{number}-·" in headings, number


def test_the_times_of_a_chapter_are_those_of_its_exercises():
    for path in CHAPTERS:
        text = path.read_text()
        stated = int(re.search(r"\*Time:\* \d+ minutes, exercises (\d+) more", text)[1])
        assert stated == sum(map(int, re.findall(r"^### Exercise .* · (\d+) min", text, re.M)))


def test_every_chapter_is_in_both_tables_with_its_own_question():
    tables = [(ROOT / "README.md").read_text(), (SOURCES / "00_start_here.md").read_text()]
    for path in CHAPTERS:
        title, question = re.search(r"^# (.+)\n\n\*\*(.+)\*\*$", path.read_text(), re.M).groups()
        assert title.startswith(path.name[:2])
        for table in tables:
            assert question in table, f"{path.name}: {question!r} is another in a table"


def test_every_row_of_the_index_of_misconceptions_has_an_authority_and_a_cell():
    text = (SOURCES / "99_misconceptions.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| one may hear", "|---"))]
    assert len(rows) >= 45
    for row in rows:
        claim, precisely, authority, place = row.strip("| ").split(" | ")
        assert claim.endswith((".", "?")) and precisely.endswith(".") and authority, claim
        assert re.search(r"\]\(0\d_\w+\.ipynb#\S+\)", place), claim
    chapters = set(re.findall(r"\((0\d)_\w+\.ipynb#", text))
    assert chapters >= {path.name[:2] for path in CHAPTERS}
