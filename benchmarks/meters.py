"""How it is measured: CPU time of the process, operations that were computed, memory."""

import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from helpers import cpu


class FlopMeter:
    """Adds up what the products of a model with its weights cost; thrice where gradients are on.

    A backward pass takes two products for each of the forward pass. Padding counts, for it is
    computed; attention does not, which is no product with weights. It listens to the linear
    layers alone: a model that is itself listened to would be called by the library (`decoding`).
    """

    def __init__(self, model: nn.Module) -> None:
        """Begin to count.

        Args:
            model: any, of linear layers such as GPT-2's or Llama's.
        """
        self.flops = 0
        for layer in model.modules():
            if isinstance(layer, nn.Linear | Conv1D):
                layer.register_forward_hook(self._see)

    def _see(self, layer: Any, args: tuple, output: Any) -> None:
        rows = args[0].numel() // args[0].shape[-1]
        self.flops += (6 if torch.is_grad_enabled() else 2) * rows * layer.weight.numel()


def product_rates(model: nn.Module, rows: int, *, trials: int = 7) -> dict[str, float]:
    """What this torch can do at the shapes of a model's linear layers, per library.

    Args:
        model: its weights are not used, their shapes are.
        rows: of the products, such as the tokens of a micro-batch.
        trials: the best counts.
    Returns:
        "MKL" (what torch takes on a CPU) and, where it is there, "oneDNN": operations per CPU
        second of one forward pass of all linear layers, one after the other.
    """
    kinds = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D)]
    shapes = [tuple(m.weight.t().shape if isinstance(m, Conv1D) else m.weight.shape) for m in kinds]
    layers = [(torch.randn(rows, inner), torch.randn(outer, inner)) for outer, inner in shapes]
    ways: dict[str, Any] = {"MKL": torch.nn.functional.linear}
    if cpu.onednn_is_there():
        ways["oneDNN"] = lambda x, w: cpu._multiply(x, w, None)
    flops = sum(2 * rows * w.numel() for _, w in layers)
    best = dict.fromkeys(ways, 0.0)
    for _ in range(trials):
        for name, way in ways.items():
            started = time.process_time()
            for x, weight in layers:
                way(x, weight)
            best[name] = max(best[name], flops / (time.process_time() - started))
    return best


def gemm_peak(*, side: int = 512, repeats: int = 20, trials: int = 10) -> float:
    """Operations a CPU second of the machine's matrix product, with the threads that torch has.

    Args:
        side: of the square float32 matrices.
        repeats: products between two looks at the clock.
        trials: the best counts.
    """
    a, b = torch.randn(2, side, side, generator=torch.Generator().manual_seed(0))
    best = 0.0
    for _ in range(trials):
        started = time.process_time()
        for _ in range(repeats):
            a @ b
        best = max(best, repeats * 2 * side**3 / (time.process_time() - started))
    return best


def cpu_name() -> str:
    """What the processor calls itself, and how many the system shows."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} × {names[0] if names else platform.processor()}"


def peak_memory() -> float:
    """Most memory that this process has held, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # a child's `ru_maxrss` may be its parent's; this is its own
        line = next(
            row
            for row in status.read_text(encoding="utf-8").splitlines()
            if row.startswith("VmHWM")
        )
        return int(line.split()[1]) / 2**10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)
