"""The five runs of exercise 7.4 show what their causes imply, on another seed too."""

import pytest

from course.ch07_language_model import broken_runs


@pytest.mark.parametrize("seed", [1])
def test_each_run_fits_its_own_cause_and_no_other(seed):
    for kind in broken_runs.KINDS:
        run = broken_runs.one_run(kind, seed=seed)
        assert set(run) == set(broken_runs.COLUMNS)
        assert all(len(column) == broken_runs.STEPS for column in run.values())
        fits = [
            cause
            for cause, tests in broken_runs.EVIDENCE.items()
            if all(holds(run) for holds, _ in tests)
        ]
        assert fits == [kind]


def test_the_letters_name_each_cause_once():
    assert (
        sorted(broken_runs.ORDER.values())
        == sorted(broken_runs.KINDS)
        == sorted(broken_runs.EVIDENCE)
    )
