"""The reward-and-baseline laboratory: every control counts, exact bars, refusals in words."""

import pytest
import torch

from course.ch06_baselines import widgets
from course.exact import baselines, tables
from course.worlds import word_world

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
SECONDS = 20  # far more than anything here takes, for a busy machine


@pytest.fixture
def lab(table):
    mine = lambda prompts, texts: [float(text.count("very")) for text in texts]  # noqa: E731
    return widgets.RewardLab(table, rewards={"mine": mine})


def test_every_control_of_the_laboratory_redraws(lab, world):
    for control, value in (
        (lab.reward, "pass or fail (0 or 1)"),
        (lab.prompts, world.prompts),
        (lab.constant, 3.0),
        (lab.group_size, 6),
        (lab.temperature, 0.6),
        (lab.baseline, "none"),
    ):
        before = lab.image.value
        control.value = value
        assert lab.image.value != before, control.description
        assert control.description
    assert "leave-one-out" in lab.table_of_numbers.value


def test_the_laboratory_learns_and_lists_its_settings(lab):
    lab.reward.value = "the word world's"
    lab.steps.value, lab.seed.value, lab.learning_rate.value = 60, 5, 1.0
    for name in ("leave_one_out", "exact_advantage"):
        lab.baseline.value = name
        lab.live.run.click()
        assert lab.live.wait(SECONDS)
    first, second = lab.live.runs
    assert first.status == second.status == "finished" and len(first.records) == 61
    assert first.records[-1]["objective"] > first.records[0]["objective"] + 0.3
    for words in ("seed=5", "group_size=4", "learning_rate=1", "temperature=1", "exact_advantage"):
        assert words in lab.live.history.value


def test_the_readers_own_reward_is_shown_and_its_errors_are_too(lab, table):
    assert lab.reward.value == "mine"
    assert lab.live.settings()["reward"] == "mine"

    def broken(prompts, texts):
        raise KeyError("great")

    lab = widgets.RewardLab(table, rewards={"broken": broken})
    assert "KeyError" in lab.note.value
    lab.live.run.click()
    assert "does not work" in lab.live.message.value and lab.live.runs == []
    lab.reward.value = "the word world's"
    assert lab.image.value and lab.note.value == ""


def test_settings_that_cannot_work_are_refused_in_the_laboratory(lab):
    lab.group_size.value = 1
    assert "nobody to compare with" in lab.note.value
    lab.live.run.click()
    assert "take K ≥ 2" in lab.live.message.value and lab.live.runs == []
    lab.baseline.value = "prompt_running_mean"
    assert lab._settings()["group_size"] == 1


def test_too_many_different_rewards_leave_the_group_bars_out(table):
    noisy = lambda prompts, texts: [float(hash(text) % 1000) for text in texts]  # noqa: E731
    lab = widgets.RewardLab(table, rewards={"noisy": noisy})
    assert "different rewards fill a group" in lab.note.value
    assert "exact V(s)" in lab.table_of_numbers.value


def test_the_bars_are_the_exact_moments(table):

    problems = [baselines.table_problem(table, c) for c in word_world.WORD_WORLD.prompts]
    _, rows, missing = widgets.compare_baselines(problems, 5, group_size=3, constant=2.0)
    assert not missing and [r[1] for r in rows] == sorted(r[1] for r in rows)
    found = {name: rest for name, *rest in rows}
    assert found["none"][0] == 1.0 and found["leave-one-out"][1] == pytest.approx(1.0)
    assert found["group mean with self"][1] == pytest.approx(2 / 3)

    def ask(name):
        parts = [
            baselines.moments(p, name, num_actions=5, group_size=3, constant=2.0) for p in problems
        ]
        return baselines.average(parts).variance

    for name in ("constant", "exact_value", "group_z_score"):
        label = "constant 2" if name == "constant" else baselines.FAMILY[name].label
        assert found[label][0] == pytest.approx(ask(name) / ask("none"))


def test_a_worker_thread_keeps_its_own_grad_mode(table):
    lab = widgets.RewardLab(tables.tabulate(table, table.world))
    lab.steps.value = 20
    with torch.no_grad():
        lab.live.run.click()
        assert lab.live.wait(SECONDS)
    assert lab.live.runs[0].status == "finished"
