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


def forward_flops(config: Any, *, rows: int, new_tokens: int, all_tokens: int, scored: int) -> int:
    """Floating-point operations of the matrix products in one forward pass of a GPT-2.

    Padding counts, and so does what the causal mask throws away: both are computed.

    Args:
        config: of the model.
        rows: in the batch.
        new_tokens: fed, a row.
        all_tokens: attended to, a row; more than the new ones where there is a cache.
        scored: positions whose logits are computed, of all rows together.
    """
    width = config.n_embd
    weights = 12 * width**2 * config.n_layer  # 3 + 1 of attention, 4 + 4 of the perceptron
    attention = 2 * width * all_tokens * config.n_layer  # queries with keys, weights with values
    return 2 * (rows * new_tokens * (weights + attention) + scored * width * config.vocab_size)


class FlopMeter:
    """Adds up what a model's calls cost; twice as much again where gradients are on.

    A backward pass takes two products for each of the forward pass. Operations that are
    repeated in it to save memory are not counted.
    """

    def __init__(self, model: nn.Module) -> None:
        """Begin to count.

        Args:
            model: a GPT-2.
        """
        self.flops = 0
        model.register_forward_hook(self._see, with_kwargs=True)

    def _see(self, model: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        fed = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        rows, new_tokens = fed.shape
        cache = getattr(output, "past_key_values", None)
        all_tokens = cache.get_seq_length() if cache is not None else new_tokens
        if "label_mask" in output:  # TRL's head, which scores in pieces and returns no logits
            scored = int(output.label_mask.sum())
        else:
            scored = rows * output.logits.shape[1]
        once = forward_flops(
            model.config, rows=rows, new_tokens=new_tokens, all_tokens=all_tokens, scored=scored
        )
        self.flops += 3 * once if torch.is_grad_enabled() else once


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
