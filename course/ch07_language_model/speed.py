"""What makes the loop fast, switched on one speed-up after the other, with the work counted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from helpers import settings, train
from helpers.models import LanguageModel


@dataclass(frozen=True)
class Work:
    """One step's writing and scoring: what came out, and how much was read."""

    texts: list[str]  # (B,)
    gradient: Tensor  # (D,) the estimate ĝ, reward units
    positions: tuple[int, int]  # token positions through the network, to write and to score


def ladder(
    load: Callable[[], LanguageModel],
    prompts: Sequence[str],
    reward: settings.Reward,
    config: settings.Config,
    advantages: Tensor,
) -> dict[str, Work]:
    """The first step of a run with ever more of what makes it fast.

    Args:
        load: returns a fresh copy of the policy.
        prompts: of the run.
        reward: of the run; it is not called.
        config: of the run. Its settings of speed are replaced.
        advantages: (B,) float, reward units: the same for each.
    Returns:
        The last speed-up that was switched on → the step with it and all before.
    """
    chosen: dict[str, Any] = {
        "compact_below": 0.0,  # rows that have ended stay to the end
        "share_prompts": False,
        "skip_zero_advantages": False,
        "tokens_per_micro_batch": 10**6,
    }
    steps: dict[str, dict[str, Any]] = {
        "cache": {},
        "+ rows leave": {"compact_below": settings.Config.compact_below},
        "+ prompts shared": {"share_prompts": True},
        "+ silent rows skipped": {"skip_zero_advantages": True},
        "+ micro-batches": {"tokens_per_micro_batch": 128},
    }
    work = {}
    for name, switched_on in steps.items():
        chosen |= switched_on
        loop = train.Loop(load(), prompts, reward, replace(config, **chosen))
        work[name] = _step(loop, advantages)
    return work


@contextmanager
def inputs_read(model: nn.Module) -> Iterator[list[torch.Size]]:
    """Note what goes into a network, call by call.

    Args:
        model: any causal LM of `transformers`.
    Returns:
        A context manager; its list grows by the (rows, positions) of each call.
    """
    shapes: list[torch.Size] = []
    counter = model.register_forward_pre_hook(
        lambda _, given, named: shapes.append(named.get("input_ids", *given[:1]).shape),
        with_kwargs=True,
    )
    try:
        yield shapes
    finally:
        counter.remove()


def _step(loop: train.Loop, advantages: Tensor) -> Work:
    """Write and credit, with a counter before the network."""
    with inputs_read(loop.lm.model) as shapes:
        _, batch, texts = loop.write(torch.Generator().manual_seed(loop.config.seed))
        calls = len(shapes)
        loop.credit(batch, advantages)
    counts = [shape.numel() for shape in shapes]
    slopes = [p.grad.flatten() for p in loop.lm.model.parameters() if p.grad is not None]
    return Work(texts, -torch.cat(slopes), (sum(counts[:calls]), sum(counts[calls:])))
