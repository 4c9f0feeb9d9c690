"""What all tests share: one thread, no network, and small worlds."""

import os
import threading
import time

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's library
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import settings

from course.exact import tables
from course.kit import style
from course.worlds import word_world
from helpers import models
from tests.helpers import killable_runs

torch.set_num_threads(1)
settings.register_profile("course", deadline=None)  # a busy machine is not a bug
settings.load_profile("course")


@pytest.fixture
def world() -> word_world.TokenWorld:
    return word_world.WORD_WORLD


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def table(world, generator) -> tables.TablePolicy:
    return tables.TablePolicy(world, std=0.5, generator=generator)


@pytest.fixture(scope="session")
def reviews() -> models.LanguageModel:
    return models.load(models.REVIEWS_MODEL)


@pytest.fixture(scope="session")
def unkilled(tmp_path_factory):
    """Records, rows and final weights of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("unkilled")
    lm = killable_runs.fresh()
    log = folder / "log.csv"
    records = list(killable_runs.runlog.record(killable_runs.start(lm, folder=folder / "run"), log))
    return killable_runs.numbers(records), killable_runs.rows(log), killable_runs.weights(lm)


@pytest.fixture(params=["no end", "one word left", "wide"])
def other_world(request) -> word_world.TokenWorld:
    """Worlds of other shapes: nothing may be written for the word world alone."""
    flat = lambda prompts, completions: [float(len(c)) for c in completions]  # noqa: E731
    return {
        "no end": word_world.TokenWorld(("a", "b"), ("p",), 3, flat, ends=False),
        "one word left": word_world.TokenWorld(("a", "."), ("p", "q"), 5, flat),
        "wide": word_world.TokenWorld(("a", "b", "c", "d", "e", "f", "."), ("p",), 2, flat),
    }[request.param]


@pytest.fixture
def no_thread_is_left(request):
    """For tests that start threads: all of them have ended soon after the test."""
    style.use_style()
    before = threading.active_count()
    yield
    deadline = time.monotonic() + request.module.SECONDS
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
