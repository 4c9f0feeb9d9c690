"""What all tests share: one thread, no network, and small worlds."""

import os
import threading
import time

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's library
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import runs
import torch
from hypothesis import settings

from helpers import models, plotting, tabular, worlds

torch.set_num_threads(1)
settings.register_profile("course", deadline=None)  # a busy machine is not a bug
settings.load_profile("course")


@pytest.fixture
def world() -> worlds.TokenWorld:
    return worlds.WORD_WORLD


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def table(world, generator) -> tabular.TablePolicy:
    return tabular.TablePolicy(world, std=0.5, generator=generator)


@pytest.fixture(scope="session")
def reviews() -> models.LanguageModel:
    return models.load(models.REVIEWS_MODEL)


@pytest.fixture(scope="session")
def unkilled(tmp_path_factory):
    """Records, rows and final weights of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("unkilled")
    lm = runs.fresh()
    log = folder / "log.csv"
    records = list(runs.runlog.record(runs.start(lm, folder=folder / "run"), log))
    return runs.numbers(records), runs.rows(log), runs.weights(lm)


@pytest.fixture(params=["no end", "one word left", "wide"])
def other_world(request) -> worlds.TokenWorld:
    """Worlds of other shapes: nothing may be written for the word world alone."""
    flat = lambda prompts, completions: [float(len(c)) for c in completions]  # noqa: E731
    return {
        "no end": worlds.TokenWorld(("a", "b"), ("p",), 3, flat, ends=False),
        "one word left": worlds.TokenWorld(("a", "."), ("p", "q"), 5, flat),
        "wide": worlds.TokenWorld(("a", "b", "c", "d", "e", "f", "."), ("p",), 2, flat),
    }[request.param]


@pytest.fixture
def no_thread_is_left(request):
    """For tests that start threads: all of them have ended soon after the test."""
    plotting.use_style()
    before = threading.active_count()
    yield
    deadline = time.monotonic() + request.module.SECONDS
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
