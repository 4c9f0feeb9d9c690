"""Tests of the exercise checkers: wrong answers are diagnosed, right ones of any form accepted."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import answers_chapter00  # noqa: E402
import answers_chapter01  # noqa: E402
import answers_chapter03  # noqa: E402
import answers_chapter06  # noqa: E402

pytestmark = pytest.mark.mutants

CHAPTERS = [answers_chapter00, answers_chapter01, answers_chapter03, answers_chapter06]
WRONG = [case for chapter in CHAPTERS for case in chapter.WRONG]
RIGHT = [case for chapter in CHAPTERS for case in chapter.RIGHT]
STUBS = {check: stub for chapter in CHAPTERS for check, stub in chapter.STUBS.items()}


def name(check) -> str:
    return f"{check.__module__[-2:]}.{check.__name__.removeprefix('exercise_')}"


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


def test_every_exercise_has_wrong_and_right_answers():
    for chapter in CHAPTERS:
        checks = {getattr(chapter.check, n) for n in dir(chapter.check) if n.startswith("exercise")}
        assert {check for check, _, _ in chapter.WRONG} == checks
        assert {check for check, _ in chapter.RIGHT} == checks
