"""Killed, interrupted, damaged, foreign, no room: the numbers are those of a quiet run."""

import errno
import json
import os
import random
import shutil
import signal
import time

import pytest
import runs
import torch

from helpers import checkpoints, models, train, worlds

KILLS = 5
WAIT = 120  # seconds, far more than anything here takes
needs_signals = pytest.mark.skipif(os.name != "posix", reason="kill -9 and SIGINT are POSIX's")


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory):
    """Records, rows and final weights of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("unkilled")
    lm = runs.fresh()
    log = folder / "log.csv"
    records = list(runs.runlog.record(runs.start(lm, folder=folder / "run"), log))
    return runs.numbers(records), runs.rows(log), runs.weights(lm)


def check_whole(folder, log, unkilled):
    """The log has every step once, and the last checkpoint the weights of the unkilled run."""
    _, rows, weights = unkilled
    assert [float(row["step"]) for row in runs.rows(log)] == list(range(len(rows)))
    assert runs.rows(log) == rows, "other numbers than those of the run that was not killed"
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 2 and names[1] == "step-000006", names
    assert not runs.differ(runs.weights(models.load(folder / "step-000006")), weights)


# ------------------------------------------------------------------------------------- resumed


@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize("baseline", train.BASELINES)
def test_a_resumed_run_has_the_numbers_of_one_that_went_through(baseline, stop, tmp_path):
    through, stopped = runs.fresh(), runs.fresh()
    wanted = runs.numbers(runs.start(through, baseline=baseline, steps=4))
    first = runs.numbers(runs.start(stopped, baseline=baseline, steps=stop, folder=tmp_path))
    resumed = runs.fresh()
    second = runs.numbers(runs.start(resumed, baseline=baseline, steps=4, folder=tmp_path))
    assert [one["step"] for one in first + second] == ["0", "1", "2", "3"]
    assert first + second == wanted
    assert not runs.differ(runs.weights(resumed), runs.weights(through))


def test_chance_moments_and_memory_are_what_they_were(tmp_path):
    for baseline in ("running mean", "learned V(s)"):
        lm, folder = runs.fresh(), tmp_path / baseline
        config = runs.config(baseline=baseline)
        loop = train.Loop(lm, list(runs.PROMPTS), runs.reward, config)
        for _ in range(2):
            loop.step()
        checkpoints.save(loop.state, lm, folder, config)
        other = runs.fresh()
        again = checkpoints.State.fresh(other.model, lr=config.lr, seed=config.seed)
        checkpoints.resume(again, other.model, folder, config)
        assert again.step == again.saved_step == 2
        assert torch.equal(again.chance, loop.state.chance)
        assert again.memory.keys() == loop.state.memory.keys() and again.memory
        assert not runs.differ(again.memory, loop.state.memory)
        pairs = zip(lm.model.named_parameters(), other.model.named_parameters(), strict=True)
        for (name, weight), (_, copy) in pairs:
            there, here = loop.state.optimizer.state[weight], again.optimizer.state[copy]
            assert there.keys() == here.keys() and float(there["exp_avg_sq"].sum()) > 0, name
            assert not runs.differ(dict(here), dict(there)), name


def test_steps_may_be_added_and_a_finished_run_has_nothing_to_do(tmp_path):
    lm = runs.fresh()
    assert len(list(runs.start(lm, steps=1, folder=tmp_path))) == 1
    before = runs.weights(lm)
    assert list(runs.start(lm, steps=1, folder=tmp_path)) == []
    assert not runs.differ(runs.weights(lm), before)
    assert [one.step for one in runs.start(lm, steps=3, folder=tmp_path, checkpoint_every=7)] == [
        1,
        2,
    ]


def test_a_checkpoint_is_a_model_that_anyone_can_load(tmp_path, capfd):
    lm = runs.fresh()
    list(runs.start(lm, steps=2, folder=tmp_path))
    loaded = models.load(runs.newest(tmp_path))
    assert not runs.differ(runs.weights(loaded), runs.weights(lm))
    assert loaded.eos_ids == lm.eos_ids and loaded.context_length == lm.context_length
    assert torch.equal(loaded.encode(runs.PROMPTS)[0], lm.encode(runs.PROMPTS)[0])
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.rglob("*.pt")), "pickled"
    assert capfd.readouterr().err == "", "saving a checkpoint is silent"


# ------------------------------------------------------------------------------------- kill -9


@needs_signals
def test_killed_at_random_moments_and_restarted_until_it_is_done(tmp_path, unkilled):
    chance = random.Random()  # other moments each time: what they hit is not known beforehand
    folder, log, kills = tmp_path / "run", tmp_path / "log.csv", 0
    while True:
        process = runs.launch(
            runs.go, str(folder), str(log), None, 0, {}, mark=tmp_path / "started"
        )  # fmt: skip
        process.join(chance.uniform(0.0, 0.4) * (1 + kills / 4) if kills < KILLS else WAIT)
        process.kill()
        process.join(WAIT)
        assert process.exitcode in (0, -signal.SIGKILL), "it ended by itself, with an error"
        kills += process.exitcode != 0
        if process.exitcode == 0 and kills >= KILLS:
            break
        if process.exitcode == 0:  # too early to be a test: from the start
            check_whole(folder, log, unkilled)
            shutil.rmtree(folder)
    check_whole(folder, log, unkilled)


PLACES = [
    ("checkpoints.save_file", 2),  # the model is written, its moments are not
    ("checkpoints:after.save_file", 3),  # all is written, but not state.json
    ("checkpoints._digest_of", 3),
    ("Path.rename", 2),  # all but the name
    ("Path:after.rename", 3),  # in the midst of removing the old one
    ("shutil.rmtree", 4),
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
    process = runs.launch(runs.go, str(folder), str(log), place, count, {})
    process.join(WAIT)
    assert process.exitcode == -signal.SIGKILL, "the place was not reached"
    for path in checkpoints._whole_names(folder):
        assert (path / "state.json").exists(), "under its own name, and not whole"
    list(runs.runlog.record(runs.start(folder=folder), log))
    check_whole(folder, log, unkilled)


# -------------------------------------------------------------------------------------- Ctrl-C


@needs_signals
def test_ctrl_c_at_random_moments_leaves_a_checkpoint_to_go_on_from(tmp_path, unkilled):
    chance, folder, log = random.Random(), tmp_path / "run", tmp_path / "log.csv"
    heard = 0
    while True:
        process = runs.launch(
            runs.interrupted, str(folder), str(log), {}, mark=tmp_path / "started"
        )  # fmt: skip
        process.join(chance.uniform(0.0, 0.4) if heard < KILLS else WAIT)
        if process.is_alive():
            os.kill(process.pid, signal.SIGINT)
        process.join(WAIT)
        assert process.exitcode in (0, 77), "it ended with another error"
        heard += process.exitcode == 77
        if folder.exists():  # it had come so far
            assert not list(folder.glob("*.part-*")), "half of a checkpoint was left"
            models.load(runs.newest(folder))
        if process.exitcode == 0 and heard >= KILLS:
            break
        if process.exitcode == 0:
            check_whole(folder, log, unkilled)
            shutil.rmtree(folder)
    check_whole(folder, log, unkilled)


@pytest.mark.parametrize("where", ["before", "halfway", "after"])
def test_ctrl_c_while_weights_are_moved_saves_none_that_are_half_moved(
    where, tmp_path, unkilled, monkeypatch
):
    calls = []
    original = torch.optim.AdamW.step

    def half(self, *args, **kwargs):
        calls.append(1)
        if len(calls) != 4:
            return original(self, *args, **kwargs)
        if where == "halfway":
            for weight in self.param_groups[0]["params"][::2]:
                weight.data.add_(1.0)
        if where == "after":
            original(self, *args, **kwargs)
        raise KeyboardInterrupt

    folder, log = tmp_path / "run", tmp_path / "log.csv"
    monkeypatch.setattr(torch.optim.AdamW, "step", half)
    with pytest.raises(KeyboardInterrupt):
        list(runs.runlog.record(runs.start(folder=folder), log))
    assert runs.newest(folder).name == "step-000002", "a step that was not whole was saved"
    list(runs.runlog.record(runs.start(folder=folder), log))
    check_whole(folder, log, unkilled)


def test_ctrl_c_while_a_checkpoint_is_written_leaves_no_half_of_it(tmp_path, monkeypatch):
    original, calls = checkpoints.save_file, []

    def interrupt(tensors, path):
        calls.append(1)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        original(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(runs.start(folder=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000", "step-000002"]
    assert [one.step for one in runs.start(folder=tmp_path)] == [2, 3, 4, 5]


def test_a_closed_iterator_and_a_break_leave_a_checkpoint_of_the_last_step(tmp_path):
    lm = runs.fresh()
    iterator = runs.start(lm, folder=tmp_path, checkpoint_every=100)
    next(iterator)
    iterator.close()
    assert runs.newest(tmp_path).name == "step-000001"
    assert not runs.differ(runs.weights(models.load(runs.newest(tmp_path))), runs.weights(lm))
    for record in runs.start(lm, folder=tmp_path, checkpoint_every=100):
        if record.step == 2:
            break
    assert runs.newest(tmp_path).name == "step-000003"


# ---------------------------------------------------------------------------- damaged, foreign


@pytest.fixture
def trained(tmp_path, module_run):
    """A copy of a folder with checkpoints of steps 2 and 4."""
    return shutil.copytree(module_run, tmp_path / "run")


@pytest.fixture(scope="module")
def module_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    list(runs.start(folder=folder, steps=4))
    return folder


def refused(folder, *words, **changes) -> None:
    """Refused with these words, at once, and nothing was changed."""
    lm, files = runs.fresh(), sorted(folder.rglob("*"))
    before = runs.weights(lm)
    with pytest.raises(ValueError) as caught:
        runs.start(lm, folder=folder, **changes)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert not runs.differ(runs.weights(lm), before), "the model was changed"
    assert sorted(folder.rglob("*")) == files, "files were changed"


NAMES = ["model.safetensors", "training.safetensors", "state.json", "config.json", "tokenizer.json"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["truncated", "empty", "bit", "missing"])
def test_a_damaged_file_is_named_and_the_checkpoint_before_serves(name, damage, trained, unkilled):
    path = trained / "step-000004" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "bit":
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        path.write_bytes(flipped)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    refused(trained, "step-000004", name, "damaged", "go on from step-000002")
    shutil.rmtree(trained / "step-000004")
    wanted, _, weights = unkilled
    lm = runs.fresh()
    assert runs.numbers(runs.start(lm, folder=trained)) == wanted[2:]
    assert not runs.differ(runs.weights(lm), weights)


def test_any_flipped_bit_of_the_state_is_found_or_harmless(trained):
    path = trained / "step-000004" / "state.json"
    content, chance = path.read_bytes(), random.Random(0)
    about = json.loads(content)
    for _ in range(400):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            assert checkpoints._read_about(path.parent, []) == {
                name: value for name, value in about.items() if name != "sha256"
            }, "other content was accepted"
        except ValueError as error:
            assert "step-000004" in str(error)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 4}, ("seed: 3 there, 4 here", "other settings")),
        ({"lr": 1e-3, "group_size": 8}, ("group_size: 4 there, 8 here", "lr: 0.01 there")),
        ({"baseline": "none"}, ("'leave-one-out' there, 'none' here",)),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(changes, words, trained):
    refused(trained, "step-000004", *words, **changes)


def test_a_checkpoint_of_another_model_is_refused(trained):
    shapes = {"wider": {"width": 48}, "deeper": {"layers": 3}, "flatter": {"layers": 1}}
    world = worlds.WORD_WORLD
    state = lambda model: checkpoints.State.fresh(model, lr=1.0, seed=0)  # noqa: E731
    small = lambda **shape: models.word_transformer(world, seed=0, **shape)  # noqa: E731
    lm = models.word_language_model(world, small())
    folder = trained.parent / "small"
    checkpoints.save(state(lm.model), lm, folder, runs.CONFIG)
    checkpoints.resume(state(small()), small(), folder, runs.CONFIG)
    for name, shape in (shapes | {"half": {"dtype": torch.float32}}).items():
        other = small(**shape)
        before = {key: value.clone() for key, value in other.state_dict().items()}
        with pytest.raises(ValueError, match="step-000000 is of another model: transformer"):
            checkpoints.resume(state(other), other, folder, runs.CONFIG)
        assert not runs.differ(other.state_dict(), before), name


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file, and no folder"):
        runs.start(folder=tmp_path / "file")
    theirs = tmp_path / "theirs"
    (theirs / "step-000009").mkdir(parents=True)
    (theirs / "step-000009" / "notes.txt").write_text("mine")
    refused(theirs, "step-000009 is no checkpoint of this course", "choose another folder")
    other = tmp_path / "other"
    kept = ["step-1.part-of-my-book", "notes.txt", "step-000003.part-mine"]
    for name in kept:
        (other / name).mkdir(parents=True)
    list(runs.start(folder=other, steps=1))
    assert sorted(p.name for p in other.iterdir()) == sorted([*kept, "step-000000", "step-000001"])


def test_the_rest_of_a_killed_write_is_cleared_away(trained):
    for name in ("step-000006.part-12-34", "step-000002.part-0"):
        (trained / name).mkdir()
    runs.start(folder=trained)
    assert sorted(path.name for path in trained.iterdir()) == ["step-000002", "step-000004"]


# ------------------------------------------------------------------------------------- no room


@pytest.mark.parametrize("seen", ["model", "training", "state"])
def test_a_full_disk_is_named_and_the_last_checkpoint_serves(seen, trained, unkilled, monkeypatch):
    def full(*args):
        if seen != "state":
            path = args[1]
            path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    lm = runs.fresh()
    with monkeypatch.context() as patch:
        if seen == "model":
            patch.setattr(type(lm.model), "save_pretrained", lambda self, path: full(0, path / "x"))
        elif seen == "training":
            patch.setattr(checkpoints, "save_file", full)
        else:
            patch.setattr(checkpoints, "_write_about", full)
        with pytest.raises(OSError) as caught:
            list(runs.start(lm, folder=trained))
    message = str(caught.value)
    assert "step 6: the checkpoint could not be written" in message, message
    assert "No space left" in message and "Still there: step-000004" in message, message
    assert sorted(path.name for path in trained.iterdir()) == ["step-000002", "step-000004"]
    wanted, _, weights = unkilled
    assert runs.numbers(runs.start(lm, folder=trained)) == wanted[4:]
    assert not runs.differ(runs.weights(lm), weights)


def limited(folder: str, bytes_: int) -> None:
    """Train where no file may be larger than so many bytes."""
    import resource

    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
    try:
        list(runs.start(folder=folder))
    except OSError as error:
        os._exit(78 if "step 6: the checkpoint could not be written" in str(error) else 79)


@needs_signals
def test_a_disk_with_a_real_limit(trained):
    most = max(path.stat().st_size for path in trained.rglob("*.safetensors"))
    process = runs.launch(limited, str(trained), most - 1000)
    process.join(WAIT)
    assert process.exitcode == 78
    assert sorted(path.name for path in trained.iterdir()) == ["step-000002", "step-000004"]
    assert [one.step for one in runs.start(folder=trained)] == [4, 5]


def test_a_full_disk_before_the_first_step_says_that_nothing_is_there(tmp_path, monkeypatch):
    (tmp_path / "sub").write_text("a file where the folder should be made")
    started = time.monotonic()
    with pytest.raises((OSError, ValueError), match="sub"):
        list(runs.start(folder=tmp_path / "sub" / "run"))
    assert time.monotonic() - started < WAIT
