"""Killed and interrupted in processes of their own: the numbers are those of a quiet run."""

import os
import random
import shutil
import signal

import pytest
import torch

from helpers import checkpoints, models
from tests.helpers import killable_runs

KILLS = 3
WAIT = 120  # seconds, far more than anything here takes
needs_signals = pytest.mark.skipif(os.name != "posix", reason="kill -9 and SIGINT are POSIX's")


# ------------------------------------------------------------------------------------- kill -9


@needs_signals
def test_killed_at_random_moments_and_restarted_until_it_is_done(tmp_path, unkilled):
    chance = random.Random()  # other moments each time: what they hit is not known beforehand
    folder, log, kills = tmp_path / "run", tmp_path / "log.csv", 0
    while True:
        process = killable_runs.launch(
            killable_runs.go, str(folder), str(log), None, 0, {}, mark=tmp_path / "started"
        )
        process.join(chance.uniform(0.0, 0.4) * (1 + kills / 4) if kills < KILLS else WAIT)
        process.kill()
        process.join(WAIT)
        assert process.exitcode in (0, -signal.SIGKILL), "it ended by itself, with an error"
        kills += process.exitcode != 0
        if process.exitcode == 0 and kills >= KILLS:
            break
        if process.exitcode == 0:  # too early to be a test: from the start
            killable_runs.check_whole(folder, log, unkilled)
            shutil.rmtree(folder)
    killable_runs.check_whole(folder, log, unkilled)


PLACES = [
    ("checkpoints.save_file", 2),  # the model is written, its moments are not
    ("checkpoints:after.save_file", 3),  # all is written, but not state.json
    ("checkpoints._digest_of", 3),
    ("Path.rename", 2),  # all but the name
    ("Path:after.rename", 3),  # in the midst of removing the old one
    ("shutil.rmtree", 2),
    ("checkpoints:after.save", 2),  # between a checkpoint and what follows
    ("runlog._append", 2),  # between a step and its row; no checkpoint was due
    ("runlog._append", 4),  # likewise, before a checkpoint
    ("runlog:after._append", 4),  # between a row and its checkpoint
    ("loop:after.uphill", 3),  # weights moved, step not noted
]


@needs_signals
@pytest.mark.parametrize(("place", "count"), PLACES, ids=lambda value: str(value))
def test_killed_at_the_worst_places(place, count, tmp_path, unkilled):
    folder, log = tmp_path / "run", tmp_path / "log.csv"
    process = killable_runs.launch(killable_runs.go, str(folder), str(log), place, count, {})
    process.join(WAIT)
    assert process.exitcode == -signal.SIGKILL, "the place was not reached"
    for path in checkpoints._whole_names(folder):
        assert (path / "state.json").exists(), "under its own name, and not whole"
    list(killable_runs.runlog.record(killable_runs.start(folder=folder), log))
    killable_runs.check_whole(folder, log, unkilled)


@needs_signals
def test_ctrl_c_at_random_moments_leaves_a_checkpoint_to_go_on_from(tmp_path, unkilled):
    chance, folder, log = random.Random(), tmp_path / "run", tmp_path / "log.csv"
    heard = 0
    while True:
        process = killable_runs.launch(
            killable_runs.interrupted, str(folder), str(log), {}, mark=tmp_path / "started"
        )
        process.join(chance.uniform(0.0, 0.4) if heard < KILLS else WAIT)
        if process.is_alive():
            os.kill(process.pid, signal.SIGINT)
        process.join(WAIT)
        assert process.exitcode in (0, 77), "it ended with another error"
        heard += process.exitcode == 77
        if folder.exists():  # it had come so far
            assert not list(folder.glob("*.part-*")), "half of a checkpoint was left"
            models.load(killable_runs.newest(folder))
        if process.exitcode == 0 and heard >= KILLS:
            break
        if process.exitcode == 0:
            killable_runs.check_whole(folder, log, unkilled)
            shutil.rmtree(folder)
    killable_runs.check_whole(folder, log, unkilled)


def limited(folder: str, bytes_: int) -> None:
    """Train where no file may be larger than so many bytes."""
    import resource

    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
    try:
        list(killable_runs.start(folder=folder))
    except OSError as error:
        os._exit(78 if "step 6: the checkpoint could not be written" in str(error) else 79)


@needs_signals
def test_a_disk_with_a_real_limit(tmp_path):
    trained = tmp_path / "run"
    list(killable_runs.start(folder=trained, steps=4))
    most = max(path.stat().st_size for path in trained.rglob("*.safetensors"))
    process = killable_runs.launch(limited, str(trained), most - 1000)
    process.join(WAIT)
    assert process.exitcode == 78
    assert sorted(path.name for path in trained.iterdir()) == ["step-000002", "step-000004"]
    assert [one.step for one in killable_runs.start(folder=trained)] == [4, 5]
