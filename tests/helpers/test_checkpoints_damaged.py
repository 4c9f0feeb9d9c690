"""Checkpoints that are damaged or foreign, and disks without room, are named in words."""

import errno
import json
import os
import random
import shutil
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from course.worlds import tiny_models, word_world
from helpers import checkpoints
from tests.helpers import killable_runs


@pytest.fixture
def trained(tmp_path, module_run):
    """A copy of a folder with checkpoints of steps 2 and 4."""
    return shutil.copytree(module_run, tmp_path / "run")


@pytest.fixture(scope="module")
def module_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    list(killable_runs.start(folder=folder, steps=4))
    return folder


def refused(folder, *words, **changes) -> None:
    """Refused with these words, at once, and nothing was changed."""
    lm, files = killable_runs.fresh(), sorted(folder.rglob("*"))
    before = killable_runs.weights(lm)
    with pytest.raises(Exception) as caught:
        killable_runs.start(lm, folder=folder, **changes)
    assert type(caught.value) is ValueError, repr(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert not killable_runs.differ(killable_runs.weights(lm), before), "the model was changed"
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
    if name != "training.safetensors":
        return  # the rest is the same whatever was damaged
    shutil.rmtree(trained / "step-000004")
    wanted, _, weights = unkilled
    lm = killable_runs.fresh()
    assert killable_runs.numbers(killable_runs.start(lm, folder=trained)) == wanted[2:]
    assert not killable_runs.differ(killable_runs.weights(lm), weights)


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
        ({"baseline": "none"}, ("'leave_one_out' there, 'none' here",)),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(changes, words, trained):
    refused(trained, "step-000004", *words, **changes)


def test_a_checkpoint_of_another_model_is_refused(trained):
    shapes = {"wider": {"width": 48}, "deeper": {"layers": 3}, "flatter": {"layers": 1}}
    world = word_world.WORD_WORLD
    state = lambda model: checkpoints.State.fresh(model, lr=1.0, seed=0)  # noqa: E731
    small = lambda **shape: tiny_models.word_transformer(world, seed=0, **shape)  # noqa: E731
    lm = tiny_models.word_language_model(world, small())
    folder = trained.parent / "small"
    checkpoints.save(state(lm.model), lm, folder, killable_runs.CONFIG)
    checkpoints.resume(state(small()), small(), folder, killable_runs.CONFIG)
    for name, shape in (shapes | {"half": {"dtype": torch.float32}}).items():
        other = small(**shape)
        before = {key: value.clone() for key, value in other.state_dict().items()}
        with pytest.raises(ValueError, match="step-000000 is of another model: transformer"):
            checkpoints.resume(state(other), other, folder, killable_runs.CONFIG)
        assert not killable_runs.differ(other.state_dict(), before), name


FORGED = {  # of one tensor of step 4, with all digests right
    "another shape": lambda tensor: tensor[..., :-1].contiguous(),
    "too small": lambda tensor: tensor.flatten()[:2].contiguous(),
    "another dtype": lambda tensor: tensor.half(),
    "missing": None,
}


@pytest.mark.parametrize("change", FORGED)
@pytest.mark.parametrize("moment", ["exp_avg", "exp_avg_sq"])
def test_moments_that_do_not_fit_never_reach_the_optimizer(moment, change, trained):
    """A fused AdamW would write beyond its tensors, and end the process."""
    folder = trained / "step-000004"
    tensors = load_file(folder / "training.safetensors")
    name = next(key for key in sorted(tensors) if key.startswith(f"moments/{moment}/"))
    if FORGED[change] is None:
        del tensors[name]
    else:
        tensors[name] = FORGED[change](tensors[name])
    save_file(tensors, folder / "training.safetensors")
    about = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    (folder / "state.json").unlink()
    checkpoints._write_about(folder, {key: about[key] for key in ("step", "config", "run")})
    refused(trained, "step-000004", "does not fit this model", name)


def test_moments_of_a_weight_that_is_not_there_are_refused(trained):
    folder = trained / "step-000004"
    tensors = load_file(folder / "training.safetensors")
    save_file(tensors | {"moments/exp_avg/nobody": torch.ones(3)}, folder / "training.safetensors")
    about = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    (folder / "state.json").unlink()
    checkpoints._write_about(folder, {key: about[key] for key in ("step", "config", "run")})
    refused(trained, "does not fit this model", "moments/exp_avg/nobody")


def test_a_folder_that_cannot_be_forced_to_the_disk_blocks_no_run(tmp_path, monkeypatch):
    """Network and FUSE file systems answer EINVAL for a folder; a failing disk answers EIO."""
    real = checkpoints.os.fsync

    def answers(code):
        def fsync(descriptor):
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(code, os.strerror(code))
            real(descriptor)

        return fsync

    monkeypatch.setattr(checkpoints.os, "fsync", answers(errno.EINVAL))
    assert len(list(killable_runs.start(folder=tmp_path / "one", steps=2))) == 2
    monkeypatch.setattr(checkpoints.os, "fsync", answers(errno.EIO))
    with pytest.raises(OSError, match="step 0: the checkpoint could not be written"):
        list(killable_runs.start(folder=tmp_path / "two", steps=2))


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file, and no folder"):
        killable_runs.start(folder=tmp_path / "file")
    theirs = tmp_path / "theirs"
    (theirs / "step-000009").mkdir(parents=True)
    (theirs / "step-000009" / "notes.txt").write_text("mine")
    refused(theirs, "step-000009 is no checkpoint of this course", "choose another folder")
    other = tmp_path / "other"
    kept = ["step-1.part-of-my-book", "notes.txt", "step-000003.part-mine"]
    for name in kept:
        (other / name).mkdir(parents=True)
    list(killable_runs.start(folder=other, steps=1))
    assert sorted(p.name for p in other.iterdir()) == sorted([*kept, "step-000000", "step-000001"])


def test_the_rest_of_a_killed_write_is_cleared_away(trained):
    for name in ("step-000006.part-12-34", "step-000002.part-0"):
        (trained / name).mkdir()
    run = killable_runs.start(folder=trained)
    assert (trained / "step-000002.part-0").exists()  # another process may be writing there
    next(run)
    assert sorted(path.name for path in trained.glob("[!.]*")) == ["step-000002", "step-000004"]


# ------------------------------------------------------------------------------------- no room


@pytest.mark.parametrize("seen", ["model", "training", "state"])
def test_a_full_disk_is_named_and_the_last_checkpoint_serves(seen, trained, unkilled, monkeypatch):
    def full(*args):
        if seen != "state":
            path = args[1]
            path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    lm = killable_runs.fresh()
    with monkeypatch.context() as patch:
        if seen == "model":
            patch.setattr(type(lm.model), "save_pretrained", lambda self, path: full(0, path / "x"))
        elif seen == "training":
            patch.setattr(checkpoints, "save_file", full)
        else:
            patch.setattr(checkpoints, "_write_about", full)
        with pytest.raises(OSError) as caught:
            list(killable_runs.start(lm, folder=trained))
    message = str(caught.value)
    assert "step 6: the checkpoint could not be written" in message, message
    assert "No space left" in message and "Still there: step-000004" in message, message
    assert sorted(path.name for path in trained.iterdir()) == ["step-000002", "step-000004"]
    wanted, _, weights = unkilled
    assert killable_runs.numbers(killable_runs.start(lm, folder=trained)) == wanted[4:]
    assert not killable_runs.differ(killable_runs.weights(lm), weights)


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path):
    (tmp_path / "sub").write_text("a file where the folder should be made")
    with pytest.raises((OSError, ValueError), match="sub"):
        list(killable_runs.start(folder=tmp_path / "sub" / "run"))
