"""Tests of the tests: every seeded bug must be rejected, for a reason that is an assertion.

A mutant that the tests let pass is a defect of the tests. Add one for every mistake that you can
imagine a tired author making, name it after the mistake, and say which test file must catch it.
They are found by name: each `tests/<folder>/bugs*.py` has a list MUTANTS.
"""

import importlib
import pkgutil
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
FILES = sorted(TESTS.glob("*/bugs*.py"))
MODULES = [importlib.import_module(f"tests.{file.parent.name}.{file.stem}") for file in FILES]
MUTANTS = [mutant for module in MODULES for mutant in module.MUTANTS]

pytestmark = pytest.mark.mutants


class Recorder:
    """Notes why tests of an inner run failed."""

    def __init__(self) -> None:
        self.reasons: list[tuple[str, type]] = []
        self.passed = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if call.excinfo is not None and report.failed:
            self.reasons.append((item.name, call.excinfo.type))
        self.passed += report.when == "call" and report.passed
        return report


def run(files: tuple[str, ...]) -> Recorder:
    """Run test files inside this process and stop at the first failure."""
    recorder = Recorder()
    without = [
        f"-pno:{name}" for name in ("cacheprovider", "xdist", "nbval", "unraisableexception")
    ]
    options = ["-x", "-q", "--no-header", "--no-summary", *without]
    pytest.main([*options, *(str(TESTS / file) for file in files)], plugins=[recorder])
    return recorder


def patch(monkeypatch, target: str, replacement) -> None:
    place, _, name = target.rpartition(".")
    owner = pkgutil.resolve_name(place)
    original = getattr(owner, name)
    assert callable(original) or isinstance(original, property), target
    monkeypatch.setattr(owner, name, replacement)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.name}-{m.tests[0]}")
def test_the_unit_tests_reject(mutant, monkeypatch):
    patch(monkeypatch, mutant.target, mutant.replacement)
    recorder = run(mutant.tests)
    assert recorder.reasons, f"{mutant.name} was not noticed by {mutant.tests}"
    name, kind = recorder.reasons[0]
    accepted = (AssertionError, pytest.fail.Exception)
    assert issubclass(kind, accepted), f"{name} failed with {kind.__name__}, not by an assertion"


def test_the_runner_passes_what_is_right():
    recorder = run(("helpers/test_kl.py", "exact/test_tables.py"))
    assert not recorder.reasons and recorder.passed >= 8


def test_the_library_is_not_empty_and_each_bug_has_a_name():
    names = [(mutant.name, mutant.tests) for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 10
