"""Run / Stop: to the end, stopped, restarted, failing, clicked twice; no thread is left."""

import contextlib
import threading
import time

import pytest
import torch
from matplotlib.figure import Figure

from course.kit.live import LiveRun, Stopped
from helpers import checkpoints, models, train
from helpers.settings import Config

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
SECONDS = 20  # far more than anything here takes, for a busy machine


def draw(runs):
    figure = Figure(figsize=(1, 1))
    axes = figure.subplots()
    for run in runs:
        axes.plot([record["step"] for record in list(run.records)])
    return figure


def live_run(run, chosen=dict):
    return LiveRun(run, chosen, draw, lambda run: f"{run.settings}")


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
    assert swallowed in ([Stopped], []), swallowed


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
    config = Config(
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
