"""Checkpoints that a killed run goes on from, with the same numbers as one that was not killed.

A checkpoint is a folder: the model and its tokenizer as `models.load` reads them, the
optimizer's moments, and `state.json` with the step, the settings and each file's size and digest.
It is written under a temporary name, forced to the disk, and renamed: under its own name there
are only whole ones. Nothing is pickled.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers import contract, identity, models, settings
from helpers.models import LanguageModel

KEEP = 2  # whole checkpoints that are kept: the newest, and one to fall back on
FREE_TO_CHANGE = {  # settings that a resumed run may have changed: they change no number
    "steps",
    "checkpoint_every",
    "tokens_per_micro_batch",
    "share_prompts",
    "skip_zero_advantages",
    "graph_decode",
    "compact_below",
    "onednn",
}
MOMENTS = {"exp_avg", "exp_avg_sq", "step"}  # what AdamW keeps of each weight


@dataclass
class State:
    """What a step changes, besides the weights."""

    optimizer: torch.optim.Optimizer
    chance: Tensor  # (C,) int, state of the generator before the next step
    step: int = 0  # ≥ 0: whole steps done
    memory: dict[str, Tensor] = field(default_factory=dict)  # of the baseline
    saved_step: int | None = None  # ≥ 0: of the newest checkpoint
    between_steps: bool = True  # False while a step has moved weights and is not counted yet

    @staticmethod
    def fresh(model: nn.Module, *, lr: float, seed: int) -> "State":
        """The state before the first step.

        Args:
            model: whose weights are to be moved.
            lr: ≥ 0, learning rate of AdamW, without weight decay.
            seed: ≥ 0, of prompts and tokens.
        """
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0, fused=True)
        return State(optimizer, torch.Generator().manual_seed(seed).get_state())


def save(
    state: State,
    lm: LanguageModel,
    folder: Path,
    config: Any,
    run: dict[str, str] | None = None,
) -> Path:
    """Write one checkpoint, and remove all but the newest `KEEP`.

    Args:
        state: after a whole step.
        lm: its weights.
        folder: of the run; made if it is missing.
        config: a dataclass, of plain values.
        run: what else decides it, `identity.of_run`.
    Returns:
        The checkpoint's folder.
    Raises:
        OSError: it could not be written. The message names the step and what is still there.
    """
    final = folder / f"step-{state.step:06d}"
    temporary = _temporary_name(final)
    try:
        temporary.mkdir(parents=True)
        models.save(lm, temporary)
        tensors = _tensors(state, lm.model) | _own_weights(temporary, lm.model)
        save_file(tensors, temporary / "training.safetensors")
        about = {"step": state.step, "config": dataclasses.asdict(config), "run": run or {}}
        _write_about(temporary, about)
        if final.exists():  # an interrupt came after it was renamed, before that was noted
            _remove(final)
        temporary.rename(final)
        _force_to_disk(folder)  # the new name too, before an old checkpoint goes
    except BaseException as error:  # Ctrl-C as well: nothing half-written stays
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        left = [path.name for path in _whole_names(folder)]
        raise OSError(
            f"step {state.step}: the checkpoint could not be written to {folder}: {error}. "
            f"Still there: {left[-1] if left else 'none'}."
        ) from error
    state.saved_step = state.step
    for old in _whole_names(folder)[:-KEEP]:
        with contextlib.suppress(OSError):  # a file of it may be open elsewhere
            _remove(old)
    return final


def resume(
    state: State,
    model: nn.Module,
    folder: Path,
    config: Any,
    run: dict[str, str] | None = None,
) -> None:
    """Go on from the newest checkpoint of a folder, if there is one.

    Args:
        state: fresh; filled in place.
        model: its weights are replaced.
        folder: of the run; need not exist.
        config: a dataclass, must be the one of the run, but for `steps` and what changes no number.
        run: likewise what else decides it, `identity.of_run`.
    Raises:
        ValueError: the newest checkpoint is damaged, or of another run. Nothing was changed.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, and no folder for checkpoints. Choose another name.")
    found = _whole_names(folder)
    if found:
        newest = found[-1]
        about = _read_about(newest, found[:-1])
        _check_same_run(newest, about["config"], dataclasses.asdict(config))
        _check_same_texts_and_weights(newest, about.get("run", {}), run or {})
        tensors = _read_tensors(newest / "training.safetensors")
        weights = {
            name.removeprefix(OWN): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(OWN)
        } or _read_tensors(newest / "model.safetensors")
        _check_fits(newest, weights, model)
        _check_state(newest, int(about["step"]), tensors, state, model)
        model.load_state_dict(weights, strict=False)  # tied weights are stored once
        _fill(state, tensors, model)
        state.step = state.saved_step = int(about["step"])


def clear(folder: Path) -> None:
    """Remove what a run has left that was killed while it wrote.

    Args:
        folder: of the run; need not exist. Nobody else may be writing there.
    """
    for rest in folder.glob("step-*.part-*") if folder.is_dir() else ():
        if re.fullmatch(r"step-\d{6,}\.part-[\d-]+", rest.name):
            shutil.rmtree(rest, ignore_errors=True)


def _tensors(state: State, model: nn.Module) -> dict[str, Tensor]:
    """Everything but the weights, by name: `moments/…`, `memory/…` and `chance`."""
    found = {"chance": state.chance}
    found |= {f"memory/{name}": tensor.contiguous() for name, tensor in state.memory.items()}
    for name, weight in model.named_parameters():
        for key, value in state.optimizer.state.get(weight, {}).items():
            found[f"moments/{key}/{name}"] = torch.as_tensor(value).contiguous()
    return found


OWN = "weights/"  # before the names of weights that the model's folder stores under other ones


def _own_weights(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """Weights that the saved folder does not hold under their own names, by `OWN` and theirs.

    The library renames or stacks the weights of some architectures (Pythia, mixtures of experts),
    cuts large models into several files, and of an adapter stores what was added alone: then
    what a run moves is kept a second time, as it is here.
    """
    path = folder / "model.safetensors"
    stored: set[str] = set()
    if path.is_file():
        with safe_open(path, framework="pt") as file:
            stored = set(file.keys())
    weights = dict(model.named_parameters())  # of tied weights, only the first
    if weights.keys() <= stored:
        return {}
    if hasattr(model, "peft_config"):  # the model that it changes is found by its name
        weights = {name: weight for name, weight in weights.items() if weight.requires_grad}
    return {f"{OWN}{name}": weight.detach().contiguous() for name, weight in weights.items()}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # SafetensorError is no ValueError, nor is a missing file
        raise ValueError(
            f"{path} could not be read ({type(error).__name__}: {error!s:.200})."
        ) from error


def _check_state(
    newest: Path, step: int, tensors: dict[str, Tensor], state: State, model: nn.Module
) -> None:
    """Refuse what does not fit these weights: a fused optimizer would write beyond its tensors."""
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    wanted: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    wanted["chance"] = (tuple(state.chance.shape), state.chance.dtype)
    if step or any(name.startswith("moments/") for name in tensors):
        for name, weight in learned.items():
            for kind in MOMENTS:
                single = kind == "step"
                shape = () if single else tuple(weight.shape)
                wanted[f"moments/{kind}/{name}"] = (
                    shape,
                    torch.float32 if single else weight.dtype,
                )
    here = {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}
    memory = {name: here.pop(name) for name in list(here) if name.startswith("memory/")}
    wrong = [name for name in wanted.keys() | here.keys() if wanted.get(name) != here.get(name)]
    for name, (shape, dtype) in memory.items():
        fits = {"memory/mean": len(shape) == 0, "memory/values": len(shape) == 2}.get(name, False)
        if not fits or not dtype.is_floating_point or not bool(tensors[name].isfinite().all()):
            wrong.append(name)
    if wrong:
        name = min(wrong)
        there, ours = (here | memory).get(name, "missing"), wanted.get(name, "otherwise")
        raise ValueError(
            f"{newest}: the state of the training does not fit this model: {name} is {there} "
            f"there and must be {ours} here. Choose another folder, or start from its weights "
            "with models.load."
        )


def _fill(state: State, tensors: dict[str, Tensor], model: nn.Module) -> None:
    state.chance = tensors["chance"]
    weights = dict(model.named_parameters())
    state.memory = {
        name.partition("/")[2]: tensor.double()
        for name, tensor in tensors.items()
        if name.startswith("memory/")
    }
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "moments":
            what, _, name = rest.partition("/")
            weight = weights[name]
            state.optimizer.state[weight][what] = tensor.to(weight.device)


def _whole_names(folder: Path) -> list[Path]:
    """Checkpoints by step; a temporary one has another name."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if re.fullmatch(r"step-\d{6,}", p.name))
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _write_about(folder: Path, about: dict[str, Any]) -> None:
    """`state.json`, last of all files: with the digests of the others, and with its own."""
    files: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
        _force_to_disk(path)
    about = about | {"files": files}
    text = json.dumps(about | {"sha256": _digest_of(about)}, indent=1)
    (folder / "state.json").write_text(text, encoding="utf-8")
    _force_to_disk(folder / "state.json")
    _force_to_disk(folder)


def _read_about(newest: Path, older: list[Path]) -> dict[str, Any]:
    way_out = (
        f"Delete {newest.name} to go on from {older[-1].name}, or choose another folder."
        if older
        else f"There is no older one: choose another folder, or delete {newest.name} to start anew."
    )
    try:
        about = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        digest = about.pop("sha256")
        if digest != _digest_of(about):
            raise ValueError("it says other things than were written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{newest} is no checkpoint of this course, or its state.json is damaged "
            f"({type(error).__name__}: {error}). {way_out}"
        ) from error
    for name, known in about["files"].items():
        path = newest / name
        size = path.stat().st_size if path.exists() else None
        if size != known["bytes"] or _digest(path) != known["sha256"]:
            raise ValueError(
                f"step {about['step']}: {path} is damaged: it has {size} bytes of "
                f"{known['bytes']}, or others than were written. {way_out}"
            )
    return about


def _check_same_run(newest: Path, known: dict[str, Any], wanted: dict[str, Any]) -> None:
    if isinstance(known.get("baseline"), str):  # a folder of an older release
        known = known | {"baseline": settings.new_name(known["baseline"])}
    names = sorted((known.keys() | wanted.keys()) - FREE_TO_CHANGE)
    changed = [
        f"{name}: {known.get(name)!r} there, {wanted.get(name)!r} here"
        for name in names
        if known.get(name) != wanted.get(name)
    ]
    if changed:
        raise ValueError(
            f"{newest} is of a run with other settings ({'; '.join(changed)}). Choose another "
            "folder, or start from its weights with models.load."
        )


def _check_fits(newest: Path, weights: dict[str, Tensor], model: nn.Module) -> None:
    stored = {name: (tuple(w.shape), w.dtype) for name, w in weights.items()}
    here = {name: (tuple(w.shape), w.dtype) for name, w in model.state_dict().items()}
    needed = {name for name, p in model.named_parameters() if p.requires_grad}
    if not hasattr(model, "peft_config"):  # an adapter is stored without what it changes
        needed = {name for name, _ in model.named_parameters()}  # of tied weights, only the first
    wrong = [name for name in here if stored.get(name, here[name]) != here[name]]
    wrong += [name for name in here if name in needed and name not in stored]
    wrong += [name for name in stored if name not in here]
    if wrong:
        there, ours = stored.get(wrong[0], "missing"), here.get(wrong[0], "missing")
        raise ValueError(
            f"{newest} is of another model: {wrong[0]} is {there} there and {ours} here. "
            "Choose another folder, or load that model."
        )


def _check_same_texts_and_weights(
    newest: Path, known: dict[str, str], wanted: dict[str, str]
) -> None:
    changed = identity.differences(known, wanted)
    if changed:
        raise ValueError(
            f"{newest} is of another run: not the same {', nor the same '.join(changed)}. Choose "
            "another folder, start from its weights with models.load, or go on all the same with "
            f"changed={changed}."
        )


def _temporary_name(final: Path) -> Path:
    return final.with_name(f"{final.name}.part-{os.getpid()}-{threading.get_ident()}")


def _remove(checkpoint: Path) -> None:
    """Take its name away first: a run that is killed here leaves no half of a checkpoint."""
    gone = checkpoint.with_name(f"{checkpoint.name}.part-0")
    shutil.rmtree(gone, ignore_errors=True)
    try:
        shutil.rmtree(checkpoint.rename(gone), ignore_errors=True)
    finally:
        shutil.rmtree(gone, ignore_errors=True)  # what a Ctrl-C has left of it


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _force_to_disk(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return  # only there can a folder be opened
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:  # network and FUSE file systems cannot do this with a folder
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


contract.hold(globals())
