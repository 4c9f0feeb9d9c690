"""Run / Stop: to the end, stopped, restarted, failing, clicked twice; no thread is left."""

import contextlib
import threading
import time

import pytest
import torch

from helpers import baselines, checkpoints, models, plotting, tabular, train, widgets, worlds
from helpers.widgets import live as live_module

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
SECONDS = 20  # far more than anything here takes, for a busy machine


def draw(runs):
    figure = plotting.Figure(figsize=(1, 1))
    axes = figure.subplots()
    for run in runs:
        axes.plot([record["step"] for record in list(run.records)])
    return figure


def live_run(train, settings=dict):
    return widgets.LiveRun(train, settings, draw, lambda run: f"{run.settings}")


def counting(steps=5, pause=0.0):
    for step in range(steps):
        time.sleep(pause)
        yield {"step": float(step)}


def test_a_run_goes_to_its_end_and_buttons_come_back():
    live = live_run(counting, lambda: {"steps": 7})
    empty = live.image.value
    live.run.click()
    assert live.wait(SECONDS)
    [run] = live.runs
    assert run.status == "finished" and [r["step"] for r in run.records] == list(range(7))
    assert live.image.value != empty and "finished after step 6" in live.message.value
    assert not live.run.disabled and live.halt.disabled and not live.reset.disabled
    assert "&#x27;steps&#x27;: 7" in live.history.value


def test_stop_answers_within_a_second_and_a_restart_begins_anew():
    live = live_run(counting, lambda: {"steps": 100_000, "pause": 0.005})
    live.run.click()
    while not live.runs[0].records:
        time.sleep(0.01)
    assert live.run.disabled and live.reset.disabled and not live.halt.disabled
    asked = time.monotonic()
    live.halt.click()
    assert live.wait(SECONDS) and time.monotonic() - asked < 1.0
    stood = len(live.runs[0].records)
    time.sleep(0.05)
    assert live.runs[0].status == "stopped" and len(live.runs[0].records) == stood
    live.settings = lambda: {"steps": 3}
    live.run.click()
    assert live.wait(SECONDS)
    assert [run.status for run in live.runs] == ["stopped", "finished"]
    assert len(live.runs[1].records) == 3


def test_a_double_click_starts_one_run_and_reset_waits():
    live = live_run(counting, lambda: {"steps": 1000, "pause": 0.002})
    live.run.click()
    live.start()
    live.clear()
    assert len(live.runs) == 1
    live.stop()
    assert live.wait(SECONDS)
    live.reset.click()
    assert live.runs == [] and live.history.value == ""


def test_an_exception_of_the_readers_function_is_shown_where_it_happened():
    def failing():
        yield {"step": 0.0}
        raise ZeroDivisionError("my <reward> divides")

    live = live_run(failing)
    live.run.click()
    assert live.wait(SECONDS)
    assert live.runs[0].status == "failed" and len(live.runs[0].records) == 1
    assert "ZeroDivisionError: my &lt;reward&gt; divides" in live.message.value
    assert "failing" in live.message.value and not live.run.disabled


def test_choices_that_cannot_work_are_refused_in_words():
    def refuse():
        raise ValueError("take K ≥ 2")

    live = live_run(counting, refuse)
    live.run.click()
    assert "take K ≥ 2" in live.message.value and live.runs == [] and not live.running


def test_choices_freeze_at_the_start_and_pictures_are_few():
    values, drawn = {"steps": 50, "pause": 0.01}, []
    live = live_run(counting, lambda: values)
    original = live.draw
    live.draw = lambda runs: drawn.append(1) or original(runs)
    live.run.click()
    values["steps"] = 1
    assert live.wait(SECONDS)
    assert len(live.runs[0].records) == 50 and live.runs[0].settings["steps"] == 50
    assert len(drawn) < 50 / 2, "a picture a record is too many"


# ------------------------------------------------------------ Stop, while the reader's code hangs


def stopped_within(live, seconds=1.6):
    """Press Stop; the target is 1 s on an idle machine."""
    asked = time.monotonic()
    live.halt.click()
    assert live.wait(SECONDS), "Stop was not heard"
    taken = time.monotonic() - asked
    assert taken < seconds, f"Stop was heard after {taken:.2f} s"
    assert not live.run.disabled and not live.reset.disabled and live.halt.disabled
    assert not live.running and live.runs[-1].status == "stopped"


def started(live, entered):
    live.run.click()
    assert entered.wait(SECONDS)


def test_stop_ends_a_python_loop_that_never_returns_and_its_finally_is_run():
    entered, cleaned = threading.Event(), []

    def endless():
        try:
            yield {"step": 0.0}
            entered.set()
            while True:
                with contextlib.suppress(Exception):  # which does not hold Stop up
                    sum(range(100))
        finally:
            cleaned.append(threading.get_ident())

    live = live_run(endless)
    started(live, entered)
    stopped_within(live)
    assert cleaned, "the generator's finally was not run"
    assert live.message.value == "stopped after step 0" and len(live.runs[0].records) == 1


def sleepy(entered, seconds, after):
    """A generator that waits outside Python, where no exception can reach it."""

    def hang():
        try:
            yield {"step": 0.0}
            entered.set()
            time.sleep(seconds)
            after.append("went on")
            yield {"step": 1.0}
        finally:
            after.append("cleaned")

    return hang


def test_a_call_that_cannot_be_ended_is_given_up_and_ended_when_it_returns():
    entered, after, before = threading.Event(), [], threading.active_count()
    live = live_run(sleepy(entered, 3.0, after))
    started(live, entered)
    stopped_within(live)
    assert "has not returned yet" in live.message.value and after == []
    live.train = counting
    live.run.click()  # at once
    assert live.wait(SECONDS)
    assert [run.status for run in live.runs] == ["stopped", "finished"]
    shown = live.history.value, live.message.value, live.image.value
    deadline = time.monotonic() + SECONDS
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert after == ["cleaned"], "the thread went on after its call returned"
    assert threading.active_count() <= before, "a zombie"
    assert (live.history.value, live.message.value, live.image.value) == shown
    assert [len(run.records) for run in live.runs] == [1, 5]


def test_a_run_that_was_given_up_touches_nothing_even_if_it_swallows_the_exception():
    entered, gate, swallowed = threading.Event(), threading.Event(), []

    def stubborn():
        entered.set()
        while not gate.is_set():
            try:
                time.sleep(2.0)  # longer than Stop waits
            except BaseException as error:
                swallowed.append(type(error))
            gate.set()
        yield {"step": 0.0}
        swallowed.append("asked again")

    live = live_run(stubborn)
    started(live, entered)
    stopped_within(live)
    shown = live.history.value, live.message.value
    assert gate.wait(SECONDS)
    time.sleep(0.2)
    assert live.runs[0].records == [] and live.runs[0].status == "stopped"
    assert (live.history.value, live.message.value) == shown
    assert swallowed in ([live_module.Stopped], []), swallowed


def test_stop_does_not_break_into_the_generators_own_saving():
    entered, saved = threading.Event(), []

    def saving():
        try:
            for step in range(10_000):
                entered.set()
                time.sleep(0.01)
                yield {"step": float(step)}
        finally:
            for _ in range(45):  # 0.45 s: longer than SOON, the grace
                time.sleep(0.01)
            saved.append("whole")

    live = live_run(saving)
    started(live, entered)
    stopped_within(live)
    assert saved == ["whole"] and "returned" not in live.message.value


def test_pressing_stop_twice_or_at_any_moment_leaves_a_widget_that_works():
    live = live_run(counting, lambda: {"steps": 10_000, "pause": 0.001})
    for delay in (0.0, 0.0, 0.002, 0.01, 0.03):
        live.run.click()
        time.sleep(delay)
        live.stop()
        stopped_within(live)
    live.stop()
    live.settings = lambda: {"steps": 2}
    live.run.click()
    assert live.wait(SECONDS)
    assert live.runs[-1].status == "finished" and len(live.runs) == 6


def test_stop_leaves_a_checkpoint_of_a_training_run_whose_reward_hangs(reviews, tmp_path):
    entered, calls = threading.Event(), []
    lm = models.load(models.REVIEWS_MODEL)
    config = train.Config(
        steps=9, prompts_per_step=2, group_size=4, max_new_tokens=8, checkpoint_every=100
    )

    def hangs(prompts, completions):
        calls.append(1)
        while len(calls) > 3:
            entered.set()
        return [float(len(text)) for text in completions]

    def run():
        for record in train.train(lm, ["the film", "i"], hangs, config, folder=tmp_path):
            yield record.numbers()

    live = live_run(run)
    started(live, entered)
    stopped_within(live)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-000000", "step-000003"], "the checkpoint of the last whole step"
    saved = models.load(tmp_path / "step-000003").model.state_dict()
    for name, weight in lm.model.state_dict().items():
        assert torch.equal(saved[name], weight), name
    assert checkpoints.KEEP == 2


# ------------------------------------------------------------------ the laboratory


@pytest.fixture
def lab(table):
    mine = lambda prompts, texts: [float(text.count("very")) for text in texts]  # noqa: E731
    return widgets.RewardLab(table, rewards={"mine": mine})


def test_every_control_of_the_laboratory_redraws(lab, world):
    for control, value in (
        (lab.reward, "pass or fail (0 or 1)"), (lab.prompts, world.prompts), (lab.constant, 3.0),
        (lab.group_size, 6), (lab.temperature, 0.6), (lab.baseline, "none"),
    ):  # fmt: skip
        before = lab.image.value
        control.value = value
        assert lab.image.value != before, control.description
        assert control.description
    assert "leave-one-out" in lab.table_of_numbers.value


def test_the_laboratory_learns_and_lists_its_settings(lab):
    lab.reward.value = "the word world's"
    lab.steps.value, lab.seed.value, lab.learning_rate.value = 60, 5, 1.0
    for name in ("leave-one-out", "exact Q − V"):
        lab.baseline.value = name
        lab.live.run.click()
        assert lab.live.wait(SECONDS)
    first, second = lab.live.runs
    assert first.status == second.status == "finished" and len(first.records) == 61
    assert first.records[-1]["objective"] > first.records[0]["objective"] + 0.3
    for words in ("seed=5", "group_size=4", "learning_rate=1", "temperature=1", "Q − V"):
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
    lab.baseline.value = "running mean"
    assert lab._settings()["group_size"] == 1


def test_too_many_different_rewards_leave_the_group_bars_out(table):
    noisy = lambda prompts, texts: [float(hash(text) % 1000) for text in texts]  # noqa: E731
    lab = widgets.RewardLab(table, rewards={"noisy": noisy})
    assert "different rewards fill a group" in lab.note.value
    assert "exact V(s)" in lab.table_of_numbers.value


def test_the_bars_are_the_exact_moments(table):

    problems = [baselines.table_problem(table, c) for c in worlds.WORD_WORLD.prompts]
    _, rows, missing = widgets.compare_baselines(problems, 5, group_size=3, constant=2.0)
    assert not missing and [r[1] for r in rows] == sorted(r[1] for r in rows)
    found = {name: rest for name, *rest in rows}
    assert found["none"][0] == 1.0 and found["leave-one-out"][1] == pytest.approx(1.0)
    assert found["group mean with self"][1] == pytest.approx(2 / 3)
    ask = lambda name: baselines.average([  # noqa: E731
        baselines.moments(p, name, num_actions=5, group_size=3, constant=2.0) for p in problems
    ]).variance  # fmt: skip
    for name in ("constant", "exact V(s)", "group z-score"):
        label = "constant 2" if name == "constant" else name
        assert found[label][0] == pytest.approx(ask(name) / ask("none"))


def test_a_worker_thread_keeps_its_own_grad_mode(table):
    lab = widgets.RewardLab(tabular.tabulate(table, table.world))
    lab.steps.value = 20
    with torch.no_grad():
        lab.live.run.click()
        assert lab.live.wait(SECONDS)
    assert lab.live.runs[0].status == "finished"
