"""Tests of the exercise checkers: wrong answers are diagnosed, right ones of any form accepted."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch

from course.kit import checker

pytestmark = pytest.mark.mutants

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [
    path.parent.name
    for path in sorted(ROOT.glob("course/*/[0-9][0-9]_*.md"))
    if "### Exercise" in path.read_text()
]
CHAPTERS = [import_module(f"tests.{room}.answers") for room in ROOMS]
WRONG = [case for chapter in CHAPTERS for case in chapter.WRONG]
RIGHT = [case for chapter in CHAPTERS for case in chapter.RIGHT]
STUBS = {check: stub for chapter in CHAPTERS for check, stub in chapter.STUBS.items()}


def name(check) -> str:
    [chapter] = re.findall(r"\.ch(\d+)_", check.__module__)
    return f"{chapter}.{check.__name__.removeprefix('exercise_')}"


@pytest.mark.parametrize(
    ("check", "answer", "message"),
    WRONG,
    ids=[f"{name(check)}-{message[:24]}" for check, _, message in WRONG],
)
def test_wrong_answers_are_diagnosed(check, answer, message):
    with pytest.raises(AssertionError, match=message) as caught:
        check(answer)
    assert len(str(caught.value)) > 20, "a diagnosis is more than 'wrong'"


@pytest.mark.parametrize(("check", "answer"), RIGHT, ids=[name(check) for check, _ in RIGHT])
def test_right_answers_of_any_form_are_accepted(check, answer, capsys):
    check(answer)
    assert "correct" in capsys.readouterr().out


@pytest.mark.parametrize("check", sorted({c for c, _, _ in WRONG}, key=name), ids=name)
@pytest.mark.parametrize("nothing", [None, ...], ids=["None", "dots"])
def test_stubs_are_not_attempted_yet(check, nothing, capsys):
    check(STUBS[check](nothing) if check in STUBS else lambda *arguments: nothing)
    assert "not attempted yet" in capsys.readouterr().out


@pytest.mark.parametrize(("room", "chapter"), list(zip(ROOMS, CHAPTERS, strict=True)), ids=ROOMS)
def test_every_exercise_has_wrong_and_right_answers(room, chapter):
    checks = import_module(f"course.{room}.checks")
    [text] = (ROOT / "course" / room).glob("[0-9][0-9]_*.md")
    numbers = re.findall(r"^### Exercise \d+\.(\d+)", text.read_text(), re.M)
    named = {getattr(checks, f"exercise_{number}") for number in numbers}
    assert named == {getattr(checks, n) for n in dir(checks) if n.startswith("exercise_")}
    assert {check for check, _, _ in chapter.WRONG} == named
    assert {check for check, _ in chapter.RIGHT} == named


def test_an_answer_of_nan_alone_is_no_mistake_that_gives_nan():
    nothing = torch.full((2,), torch.nan).double()
    with pytest.raises(AssertionError, match="none of the usual"):
        checker.diagnose(nothing, torch.ones(2), {"this gives nan": nothing})
    with pytest.raises(AssertionError, match="this gives nan"):
        half = torch.tensor([2.0, torch.nan]).double()
        checker.diagnose(half, torch.ones(2), {"this gives nan": half})


def test_a_number_has_its_own_tolerance_and_a_mistake_a_share_of_its_own():
    def judge(a, b):
        return checker.predicted_numbers(
            "0.0",
            {"a": a, "b": b},
            {"a": 1.0, "b": 0.1},
            {"b": {"ten times": 1.0}},
            tolerance={"a": 1e-3, "b": 1e-2},
            relative=True,
        )

    assert judge(1.0009, 0.1009)
    with pytest.raises(AssertionError, match="a: close: more digits"):
        judge(1.002, 0.1)
    with pytest.raises(AssertionError, match="b: this is not"):
        judge(1.0, 0.102)
    with pytest.raises(AssertionError, match="b: ten times"):
        judge(1.0, 1.009)
