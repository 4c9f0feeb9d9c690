"""The recorded runs of chapter 07 are whole, and what the script would record again."""

import itertools
import json
import math
import sys
from pathlib import Path

import pytest

from helpers import runlog, settings, widgets

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "notebooks" / "runs"
sys.path.insert(0, str(ROOT / "tools"))

import record_chapter07 as script  # noqa: E402


@pytest.mark.parametrize("bug", range(len(script.BUGS)), ids=script.BUGS)
def test_the_first_steps_of_a_broken_loop_are_those_on_file(bug):
    rows = [row for row in runlog.load(RUNS / "chapter07_bugs.csv") if row["bug"] == bug]
    assert [row["seed"] for row in rows[:: script.STEPS]] == list(range(script.SEEDS))
    again = itertools.islice(script.broken_run(script.BUGS[bug], 1), 3)
    for found, row in zip(again, rows[script.STEPS :], strict=False):
        names = ("objective", "mismatch", "excess", "loss")
        assert found == pytest.approx([row[name] for name in names], abs=1e-5)


def test_every_baseline_has_every_seed_and_the_settings_are_the_scripts():
    about = json.loads((RUNS / "chapter07_baselines.json").read_text(encoding="utf-8"))
    assert about["baselines"] == list(settings.BASELINES) and about["seeds"] == script.SEEDS
    assert about["threshold"] == script.THRESHOLD and about["most"] == script.MOST
    rows = runlog.load(RUNS / "chapter07_baselines.csv")
    wanted = itertools.product(range(len(settings.BASELINES)), script.SHIFTS, range(script.SEEDS))
    assert [(row["baseline"], row["shift"], row["seed"]) for row in rows] == list(wanted)
    for row in rows:
        assert math.isnan(row["steps"]) or script.WINDOW <= row["steps"] <= script.MOST
    about = json.loads((RUNS / "chapter07_bugs.json").read_text(encoding="utf-8"))
    assert about["bugs"] == list(script.BUGS) and about["steps"] == script.STEPS
    assert about["temperature"] == script.HOT and about["lr"] == script.LR


def test_steps_are_counted_to_the_first_mean_of_five_above_the_threshold(monkeypatch):
    class Record:
        def __init__(self, reward):
            self.reward = reward

    def fake(rewards):
        return lambda *args, **kwargs: map(Record, rewards)

    # means of five: 10 + 1.8 after five steps, 10 + 2 after six
    monkeypatch.setattr(script.train, "train", fake([11.0, 11.0, 12.0, 12.0, 13.0, 12.0, 90.0]))
    assert script.steps_needed("none", 10.0, 0) == 6
    monkeypatch.setattr(script.train, "train", fake([10.0, 90.0]))  # fewer than five
    assert math.isnan(script.steps_needed("none", 10.0, 0))


def test_runs_are_read_by_the_names_that_the_script_gave_them():
    assert widgets.BUGS == script.BUGS
    assert sorted(widgets.ROWS.values()) == sorted(script.BUGS[1:])
    rows = runlog.load(RUNS / "chapter07_bugs.csv")
    found = widgets.recorded_bugs()
    for number, bug in enumerate(script.BUGS):
        assert [len(seed) for seed in found[bug]["objective"]] == [script.STEPS] * script.SEEDS
        flat = [x for seed in found[bug]["mismatch"] for x in seed]
        assert flat == [row["mismatch"] for row in rows if row["bug"] == number]
