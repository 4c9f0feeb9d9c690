"""Two processes under `accelerate launch` make the update of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.helpers import train_in_two_processes

ROOT = Path(__file__).resolve().parents[2]
BASELINES = ("leave_one_out", "running_mean", "learned_value")


def launch(*words: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes=2",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
        "--main_process_port=0",
        "--module",
        "tests.helpers.train_in_two_processes",
        *words,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    done = launch(str(folder), *BASELINES)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_processes_that_begin_apart_all_refuse_and_say_in_what(tmp_path):
    names = ("weights", "prompts", "settings", "step to begin with")
    done = launch(str(tmp_path), "--apart", *names)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in names:
        for rank in (0, 1):
            message = (tmp_path / f"refused-{name}-{rank}").read_text()
            assert f"different {name}" in message and f"process {rank} has" in message, message


def test_one_of_two_is_killed_and_the_other_ends_with_its_last_step(tmp_path):
    done = launch(str(tmp_path / "run"), "--die")
    assert done.returncode != 0
    assert "Connection" in done.stderr and "In step 2" in done.stderr, done.stderr[-3000:]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["step-000000", "step-000002"]


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_update_of_two_is_that_of_one(folder, tmp_path, baseline):
    train_in_two_processes.run(str(tmp_path), baseline, None)
    name = baseline
    alone = load_file(tmp_path / f"{name}-0.safetensors")
    first, second = (load_file(folder / f"{name}-{rank}.safetensors") for rank in (0, 1))
    assert [int(t["written"]) for t in (alone, first, second)] == [16, 8, 8]
    for key, wanted in alone.items():
        if key == "written":
            continue
        assert torch.equal(first[key], second[key]), "the processes have drifted apart"
        assert_close(first[key], wanted, rtol=1e-8, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")
    assert sorted(p.name for p in (folder / name).iterdir()) == ["step-000002", "step-000004"]
