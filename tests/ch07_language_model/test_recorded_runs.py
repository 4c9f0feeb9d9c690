"""The recorded runs of chapter 07 are whole, and what the script would record again."""

import itertools
import json
import math

import pytest

from course.ch07_language_model import record, recorded
from helpers import runlog, settings

RUNS = recorded.RUNS


@pytest.mark.parametrize("bug", range(len(record.BUGS)), ids=record.BUGS)
def test_the_first_steps_of_a_broken_loop_are_those_on_file(bug):
    rows = [row for row in runlog.load(RUNS / "chapter07_bugs.csv") if row["bug"] == bug]
    assert [row["seed"] for row in rows[:: record.STEPS]] == list(range(record.SEEDS))
    again = itertools.islice(record.broken_run(record.BUGS[bug], 1), 3)
    for found, row in zip(again, rows[record.STEPS :], strict=False):
        names = ("objective", "mismatch", "excess", "loss")
        assert found == pytest.approx([row[name] for name in names], abs=1e-5)


def test_every_baseline_has_every_seed_and_the_settings_are_the_scripts():
    about = json.loads((RUNS / "chapter07_baselines.json").read_text(encoding="utf-8"))
    assert (
        about["baselines"] == [each.label for each in settings.BASELINES.values()]
        and about["seeds"] == record.SEEDS
    )
    assert about["threshold"] == record.THRESHOLD and about["most"] == record.MOST
    rows = runlog.load(RUNS / "chapter07_baselines.csv")
    wanted = itertools.product(range(len(settings.BASELINES)), record.SHIFTS, range(record.SEEDS))
    assert [(row["baseline"], row["shift"], row["seed"]) for row in rows] == list(wanted)
    for row in rows:
        assert math.isnan(row["steps"]) or record.WINDOW <= row["steps"] <= record.MOST
    about = json.loads((RUNS / "chapter07_bugs.json").read_text(encoding="utf-8"))
    assert about["bugs"] == list(record.BUGS) and about["steps"] == record.STEPS
    assert about["temperature"] == record.HOT and about["lr"] == record.LR


def test_steps_are_counted_to_the_first_mean_of_five_above_the_threshold(monkeypatch):
    class Record:
        def __init__(self, reward):
            self.reward = reward

    def fake(rewards):
        return lambda *args, **kwargs: map(Record, rewards)

    # means of five: 10 + 1.8 after five steps, 10 + 2 after six
    monkeypatch.setattr(record.train, "train", fake([11.0, 11.0, 12.0, 12.0, 13.0, 12.0, 90.0]))
    assert record.steps_needed("none", 10.0, 0) == 6
    monkeypatch.setattr(record.train, "train", fake([10.0, 90.0]))  # fewer than five
    assert math.isnan(record.steps_needed("none", 10.0, 0))


def test_runs_are_read_by_the_names_that_the_script_gave_them():
    assert recorded.BUGS == record.BUGS
    assert sorted(recorded.ROWS.values()) == sorted(record.BUGS[1:])
    rows = runlog.load(RUNS / "chapter07_bugs.csv")
    found = recorded.bugs()
    for number, bug in enumerate(record.BUGS):
        assert [len(seed) for seed in found[bug]["objective"]] == [record.STEPS] * record.SEEDS
        flat = [x for seed in found[bug]["mismatch"] for x in seed]
        assert flat == [row["mismatch"] for row in rows if row["bug"] == number]
