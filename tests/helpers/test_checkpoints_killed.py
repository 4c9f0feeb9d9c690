"""Killed and interrupted in processes of their own: the numbers are those of a quiet run."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers import checkpoints, models
from tests.helpers import killable_runs

KILLS = int(os.environ.get("KILLS", "3"))  # moments a test
ROOT = Path(__file__).resolve().parents[2]
WAIT = 120  # seconds, far more than anything here takes
needs_signals = pytest.mark.skipif(os.name != "posix", reason="kill -9 and SIGINT are POSIX's")


def wait_for(condition) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.002)


def check_named_ones_are_whole(folder) -> None:
    for path in checkpoints._whole_names(folder):
        assert (path / "state.json").exists(), "under its own name, and not whole"


def go_on_and_check(folder, log, unkilled) -> None:
    list(killable_runs.runlog.record(killable_runs.start(folder=folder), log))
    killable_runs.check_whole(folder, log, unkilled)


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
    check_named_ones_are_whole(folder)
    go_on_and_check(folder, log, unkilled)


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


@needs_signals
def test_ctrl_c_again_while_the_last_step_is_saved(tmp_path, unkilled):
    """Impatience costs the steps since the checkpoint before, and nothing else."""
    chance, folder, log = random.Random(), tmp_path / "run", tmp_path / "log.csv"
    for _ in range(KILLS):
        process = killable_runs.launch(
            killable_runs.interrupted, str(folder), str(log), {}, mark=tmp_path / "started"
        )
        process.join(chance.uniform(0.0, 0.3))
        for _ in range(2):
            if process.is_alive():
                os.kill(process.pid, signal.SIGINT)
            process.join(chance.uniform(0.0, 0.02))
        process.join(WAIT)
        assert process.exitcode is not None
        check_named_ones_are_whole(folder)
    go_on_and_check(folder, log, unkilled)


@needs_signals
def test_stopped_and_continued_it_has_the_same_numbers(tmp_path, unkilled):
    folder, log = tmp_path / "run", tmp_path / "log.csv"
    process = killable_runs.launch(
        killable_runs.go, str(folder), str(log), None, 0, {}, mark=tmp_path / "started"
    )
    wait_for((folder / ".lock-holder.json").exists)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(ValueError, match=f"in use by another .*process {process.pid}"):
        killable_runs.start(folder=folder)  # it is alive, and may go on
    for _ in range(KILLS):
        os.kill(process.pid, signal.SIGCONT)
        process.join(0.02)
        if process.is_alive():
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.02)
    if process.is_alive():
        os.kill(process.pid, signal.SIGCONT)
    process.join(WAIT)
    assert process.exitcode == 0
    killable_runs.check_whole(folder, log, unkilled)


SCRIPT = """
import sys
from tests.helpers import killable_runs
run = killable_runs.start(folder=sys.argv[1], steps=9, checkpoint_every=100)
for record in run:
    if record.step == 4:
        {}
"""


@pytest.mark.parametrize("end", ["break", "raise SystemExit('enough')", "1 / 0"])
def test_a_script_that_leaves_the_loop_leaves_its_last_step(tmp_path, end):
    line = [sys.executable, "-W", "error", "-c", SCRIPT.format(end), str(tmp_path / "run")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == (end != "break"), done.stderr
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["step-000000", "step-000005"]


@needs_signals
def test_a_scheduler_that_ends_the_command_gets_the_last_step(tmp_path):
    folder = tmp_path / "run"
    line = [sys.executable, "tools/train.py", "--steps=100000", "--checkpoint-every=100000"]
    with subprocess.Popen(
        [*line, f"--folder={folder}"], cwd=ROOT, stderr=subprocess.DEVNULL
    ) as process:
        log = folder / "records.csv"
        wait_for(lambda: log.exists() and len(killable_runs.rows(log)) > 1)
        process.terminate()
        assert process.wait(WAIT) == 128 + signal.SIGTERM
    done = len(killable_runs.rows(log))
    assert killable_runs.newest(folder).name == f"step-{done:06d}"


@needs_signals
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_be_read_only_is_named(tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(OSError, match="step 0: the checkpoint could not be written"):
        list(killable_runs.start(folder=tmp_path / "run"))


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
