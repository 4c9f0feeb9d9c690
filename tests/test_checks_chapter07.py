"""The five runs of exercise 7.4 show what their causes imply, on another seed too."""

import pytest

from helpers.checks import chapter07_runs as runs


@pytest.mark.parametrize("seed", [1])
def test_each_run_fits_its_own_cause_and_no_other(seed):
    for kind in runs.KINDS:
        run = runs.one_run(kind, seed=seed)
        assert set(run) == set(runs.COLUMNS)
        assert all(len(column) == runs.STEPS for column in run.values())
        fits = [
            cause for cause, tests in runs.EVIDENCE.items() if all(holds(run) for holds, _ in tests)
        ]
        assert fits == [kind]


def test_the_letters_name_each_cause_once():
    assert sorted(runs.ORDER.values()) == sorted(runs.KINDS) == sorted(runs.EVIDENCE)
