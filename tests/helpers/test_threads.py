"""The number of CPU threads follows the work, and the reader's word goes before ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import threads, train
from tests.helpers import killable_runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def as_a_reader(monkeypatch):
    """No variable of the tests' own, and what is changed is changed back."""
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_chosen_here", 1)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    yield monkeypatch
    torch.set_num_threads(1)


def loop():
    return train.Loop(
        killable_runs.fresh(), killable_runs.PROMPTS, killable_runs.reward, killable_runs.CONFIG
    )


def test_a_small_model_gets_one_thread_and_a_large_one_all(as_a_reader):
    loop()
    assert torch.get_num_threads() == 1
    as_a_reader.setattr(threads, "LARGE", 10_000)
    loop()
    assert torch.get_num_threads() == 2
    as_a_reader.setattr(threads, "LARGE", 10**9)
    loop()
    assert torch.get_num_threads() == 1, "a small one again"


def test_what_the_reader_has_chosen_stays(as_a_reader):
    as_a_reader.setattr(threads, "LARGE", 10_000)
    torch.set_num_threads(3)
    loop()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    as_a_reader.setenv("OMP_NUM_THREADS", "1")
    loop()
    assert torch.get_num_threads() == 1


def test_a_container_with_one_core_has_one(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "150000 100000\n")
    assert threads.cores() == 1
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "max 100000\n")
    assert threads.cores() == len(os.sched_getaffinity(0))


WAYS = {  # however a kernel was started, the first cell imports one of these
    "helpers": "import helpers, torch",
    "torch first": "import torch, helpers",
    "course": "import course.exact, torch",
    "a chapter": "from course.ch05_reinforce import widgets; import torch",
}


@pytest.mark.parametrize("way", WAYS)
def test_in_any_process_that_imports_the_course(way):
    line = [sys.executable, "-c", WAYS[way] + "; print(torch.get_num_threads())"]
    plain = {k: v for k, v in os.environ.items() if k not in threads.VARIABLES}
    for more, count in (({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2")):
        done = subprocess.run(line, cwd=ROOT, env=plain | more, capture_output=True, text=True)
        assert done.stdout.strip() == count, done


def test_threads_that_wait_sleep():
    code = "import helpers, os; print(os.environ['OMP_WAIT_POLICY'])"
    for more, policy in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        plain = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=plain | more, capture_output=True, text=True
        )
        assert done.stdout.strip() == policy, done
