"""What makes a run this run and no other: digests of it, and a lock on its folder.

The settings are kept in words (`settings.Config`). What else decides every number is too large for
that: texts, weights, code. Of these a digest is kept, so that a run that goes on, or a process
that takes part, can be told from another one.
"""

import ast
import contextlib
import functools
import hashlib
import inspect
import json
import os
import platform
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import nn

from helpers import contract
from helpers.models import LanguageModel

LOCK, HOLDER = ".lock", ".lock-holder.json"


def of_run(
    lm: LanguageModel, prompts: Sequence[str], reward: Any, ref_policy: LanguageModel | None
) -> dict[str, str]:
    """What decides a run besides its settings, by the names that a refusal uses.

    Args:
        lm: the policy.
        prompts: of the run.
        reward: its callable, known by its name and its source without comments.
        ref_policy: π_ref, or None.
    Returns:
        Name → digest, or the thing itself where it is short.
    """
    frozen = {n: p for n, p in lm.model.named_parameters() if not p.requires_grad}
    trainable = sorted(n for n, p in lm.model.named_parameters() if p.requires_grad)
    return {
        "end tokens (eos)": str(sorted(lm.eos_ids)),
        "set of trainable weights": _digest(json.dumps(trainable).encode()),
        "frozen weights": of_weights(frozen.items()),
        "reference policy": of_model(ref_policy.model) if ref_policy is not None else "none",
        "prompts": _digest(json.dumps(list(prompts)).encode()),
        "reward function": of_function(reward),
    }


def of_model(model: nn.Module) -> str:
    """Digest of a model's weights.

    Args:
        model: any.
    """
    return of_weights(model.named_parameters())


def of_weights(weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Digest of named tensors: names, shapes, dtypes and every bit.

    Args:
        weights: pairs of name and tensor.
    """
    found = hashlib.sha256()
    for name, tensor in sorted(weights, key=lambda pair: pair[0]):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]


def of_function(function: Any) -> str:
    """A function's name, and a digest of its source in which comments and layout do not count.

    Words and numbers that it was made with (a closure, a default, `functools.partial`) count, of
    an object that is called its words; lists and the like, numbers of an object (it may count its
    calls), and what it calls or reads elsewhere do not.

    Args:
        function: any callable.
    """
    if isinstance(function, functools.partial):
        bound = _plain((*function.args, *sorted(function.keywords.items())))
        return f"{of_function(function.func)} with {_digest(bound.encode())}"
    named = function if hasattr(function, "__qualname__") else type(function)
    try:
        source = textwrap.dedent(inspect.getsource(named))
    except (OSError, TypeError):
        source = ""
    with contextlib.suppress(SyntaxError):  # a lambda in the middle of a line stays as it is
        source = ast.dump(ast.parse(source))
    inner = getattr(function, "__func__", function)  # of a method, the function
    made_with: list[Any] = [
        *(getattr(inner, "__defaults__", None) or ()),
        *(cell.cell_contents for cell in getattr(inner, "__closure__", None) or ()),
        *sorted(
            (name, value)
            for name, value in getattr(
                getattr(function, "__self__", function), "__dict__", {}
            ).items()
            if isinstance(value, str)
        ),
    ]
    code = getattr(inner, "__code__", None)
    if code is not None and code.co_name == "<lambda>":  # others may stand in the same line
        made_with += [code.co_names, code.co_consts]
    return f"{named.__qualname__} {_digest((source + _plain(tuple(made_with))).encode())}"


def differences(there: dict[str, str], here: dict[str, str]) -> list[str]:
    """Names of what is not the same; what one of them does not know is not compared.

    Args:
        there: of the other run.
        here: of this one.
    """
    return [name for name, digest in here.items() if there.get(name, digest) != digest]


class Lock:
    """A folder is one run's while it lives. A run that was killed leaves nothing in the way."""

    def __init__(self, folder: Path) -> None:
        """Take the folder.

        Args:
            folder: of the run; made if it is missing.
        Raises:
            ValueError: another run that is alive has it; the message says who.
        """
        self.folder = folder
        self._lock: filelock.BaseFileLock | None = filelock.FileLock(folder / LOCK)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            if not (folder / LOCK).exists():  # its last owner took it away in this moment
                self._lock.release()
                self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise ValueError(
                f"{folder} is in use by another run that is still alive ({self._holder()}). "
                "Close that one (`run.close()`, or let its process end), or choose another folder."
            ) from error
        except (OSError, NotImplementedError):  # a file system without locks, or not writable:
            self._lock = None  # what matters there is said when the first checkpoint is written
            return
        about = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%F %T")}
        with contextlib.suppress(OSError):
            (folder / HOLDER).write_text(json.dumps(about), encoding="utf-8")

    def release(self) -> None:
        """Leave the folder to others; twice is no mistake."""
        if self._lock is not None and self._lock.is_locked:
            for name in (HOLDER, LOCK):
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()
            self._lock.release()

    def _holder(self) -> str:
        try:
            about = json.loads((self.folder / HOLDER).read_text(encoding="utf-8"))
            here = " = this process" * (about["pid"] == os.getpid())
            return f"process {about['pid']}{here} on {about['host']}, since {about['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "its name could not be read"


def _plain(value: Any) -> str:
    """A value in words that are the same in the next process; of others, the type's name."""
    if isinstance(value, tuple):
        return str([_plain(one) for one in value])
    if isinstance(value, frozenset):
        return str(sorted(_plain(one) for one in value))
    if isinstance(value, (str, bytes, int, float, complex, type(None), Path)):
        return repr(value)
    return type(value).__qualname__


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


contract.hold(globals())
