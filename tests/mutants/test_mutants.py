"""Tests of the tests: every seeded bug must be rejected, for a reason that is an assertion."""

import functools
import importlib
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))

import library  # noqa: E402

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
    options = ["-x", "-q", "--no-header", "--no-summary", "-p", "no:cacheprovider",
               "-p", "no:xdist", "-p", "no:nbval", "-o", "addopts=",
               "-p", "no:unraisableexception"]  # fmt: skip
    pytest.main([*options, *(str(TESTS / file) for file in files)], plugins=[recorder])
    return recorder


def patch(monkeypatch, target: str, replacement) -> None:
    module, *owners, name = target.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(f"helpers.{module}"))
    original = getattr(owner, name)
    assert callable(original) or isinstance(original, property), target
    monkeypatch.setattr(owner, name, replacement)


@pytest.mark.parametrize(
    "mutant", library.MUTANTS, ids=lambda m: f"{m.name}-{m.tests[0].removesuffix('.py')}"
)
def test_the_unit_tests_reject(mutant, monkeypatch):
    patch(monkeypatch, mutant.target, mutant.replacement)
    recorder = run(mutant.tests)
    assert recorder.reasons, f"{mutant.name} was not noticed by {mutant.tests}"
    name, kind = recorder.reasons[0]
    accepted = (AssertionError, pytest.fail.Exception)
    assert issubclass(kind, accepted), f"{name} failed with {kind.__name__}, not by an assertion"


def test_the_runner_passes_what_is_right():
    recorder = run(("test_kl.py", "test_tabular.py"))
    assert not recorder.reasons and recorder.passed >= 8


def test_the_library_is_not_empty_and_each_bug_has_a_name():
    names = [(mutant.name, mutant.tests) for mutant in library.MUTANTS]
    assert len(names) == len(set(names)) >= 10
