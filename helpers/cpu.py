"""How a CPU computes here: with how many threads, and with which library's matrix products.

Torch starts a thread for each core. For models of the size of this course's that gains next to
nothing, and where cores are busy the threads wait for each other: several kernels side by side,
as in a class, come to a halt. `benchmarks/threads.py` measures it. Whoever knows better sets
OMP_NUM_THREADS, or calls `torch.set_num_threads`; both are respected.

Torch multiplies float32 matrices by MKL, which on some processors leaves half of the speed unused;
oneDNN, in the same wheel, is then up to twice as fast. Which one is, is measured, not guessed.
"""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

if "torch" not in sys.modules:  # threads that wait sleep: the library reads it once, at its import
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from helpers import contract

LARGE = 20_000_000  # parameters from which a second thread shortens a step by a third or more
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
LEAST_PRODUCT = 4_000_000  # multiplications of a matrix product from which another way pays
MOST_TRIED = 64_000_000  # multiplications of the product that is tried out: some milliseconds
GAIN = 1.2  # times as fast oneDNN must be; where it is not, the choice would be chance
_chosen_here: int | None = None
_by_onednn: ContextVar[bool] = ContextVar("_by_onednn", default=False)


def settle(parameters: int = 0) -> None:
    """Choose the number of threads, unless the reader has.

    Called when `helpers` is imported, and by a training loop on the CPU.

    Args:
        parameters: of the model that the work is on, ≥ 0.
    """
    global _chosen_here
    by_reader = _chosen_here not in (None, torch.get_num_threads())  # since we chose
    if not by_reader and not any(name in os.environ for name in VARIABLES):
        _chosen_here = cores() if parameters >= LARGE else 1
        torch.set_num_threads(_chosen_here)


def cores() -> int:
    """CPU cores that this process may use: of a container, its share."""
    able = getattr(os, "sched_getaffinity", None)
    count = len(able(0)) if able else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no limit
        pass
    return count


class _OneDNN(torch.autograd.Function):
    """x Wᵀ + b of `torch.nn.functional.linear`, up to rounding; differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, needed = grad.reshape(-1, grad.shape[-1]), ctx.needs_input_grad
        return (
            _multiply(grad, weight.t(), None) if needed[0] else None,
            _multiply(rows.t(), x.reshape(-1, x.shape[-1]).t(), None) if needed[1] else None,
            rows.sum(0) if needed[2] else None,
        )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The only place that calls it: an operator that torch keeps for its own compiler."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def onednn_is_there() -> bool:
    """Whether this torch can multiply by oneDNN."""
    there = torch.backends.mkldnn.is_available()
    return there and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _ByOneDNN(TorchFunctionMode):
    """Sends large float32 products of linear layers to oneDNN; all else goes where it went."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is linear and len(args) > 1:
            x, weight, bias = args[0], args[1], [*args, (kwargs or {}).get("bias")][2]
        elif func is torch.addmm and len(args) == 3 and not kwargs:  # GPT-2's layers
            bias, x, weight = args[0], args[1], args[2].t()
        else:
            return func(*args, **(kwargs or {}))
        one_kind = {t.dtype for t in (x, weight, bias) if t is not None} == {torch.float32}
        if (
            one_kind
            and x.device.type == "cpu"
            and x.numel() * len(weight) >= LEAST_PRODUCT
            and (bias is None or bias.ndim == 1)
            and not torch.is_autocast_enabled("cpu")
        ):
            return _OneDNN.apply(x, weight, bias)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def products(by_onednn: bool) -> Iterator[None]:
    """Within it, `helpers.models.forward` and decoding multiply so.

    Args:
        by_onednn: False, or where oneDNN is absent: as torch does.
    """
    before = _by_onednn.set(by_onednn and onednn_is_there())
    try:
        yield
    finally:
        _by_onednn.reset(before)


def chosen_products() -> contextlib.AbstractContextManager[Any]:
    """What `products` has said, for a call of a model."""
    return _ByOneDNN() if _by_onednn.get() else contextlib.nullcontext()


def onednn_is_faster(model: nn.Module, rows: int) -> bool:
    """Whether linear layers are faster by oneDNN on this machine: measured, in milliseconds.

    Args:
        model: any; its largest matrix but the embeddings is tried, forward and backward.
        rows: ≥ 1, of a large product: tokens of a micro-batch.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    found = [p for p in model.parameters() if p.ndim == 2 and id(p) not in tables]
    sizes = max((tuple(p.shape) for p in found), key=lambda s: s[0] * s[1], default=(0, 0))
    rows = min(rows, MOST_TRIED // max(1, sizes[0] * sizes[1]))
    kinds = {(p.dtype, p.device.type) for p in found}
    large = rows * sizes[0] * sizes[1] >= LEAST_PRODUCT
    if not large or kinds != {(torch.float32, "cpu")} or not onednn_is_there():
        return False
    into, out_of, weight = (
        torch.ones(shape, dtype=torch.float32, device="cpu")
        for shape in ((rows, sizes[1]), (rows, sizes[0]), sizes)
    )

    def seconds(way: Any) -> float:
        started = time.perf_counter()
        for one, other in ((into, weight), (out_of, weight.t())):
            way(one, other, None)
        return time.perf_counter() - started

    pairs = [(seconds(linear), seconds(_multiply)) for _ in range(6)][1:]  # the first warms up
    return statistics.median(ours / theirs for ours, theirs in pairs) >= GAIN


contract.hold(globals())
