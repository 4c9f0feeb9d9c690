"""Two libraries in turn: our step runs right after one of theirs, so that what else the
machine does meets both alike. What counts is the ratio of neighbours.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks import meters, peers, workloads
from benchmarks.workloads import GROUP_SIZE, PROMPTS, Workload
from helpers import logprobs
from helpers.rollout import RolloutBatch
from helpers.settings import Reward


@dataclass
class Side:
    """What one of the two did in a pairing; the first step of each is not counted."""

    seconds: list[float] = field(default_factory=list)  # CPU time of each step
    tokens: list[float] = field(default_factory=list)  # completion tokens of each step
    flops: list[int] = field(default_factory=list)  # of each step

    def numbers(self, peak: float) -> dict[str, float]:
        """Medians over steps; `peak` is the machine's, operations a second."""
        rates = [n / s for n, s in zip(self.tokens, self.seconds, strict=True)]
        shares = [n / s / peak for n, s in zip(self.flops, self.seconds, strict=True)]
        return {
            "ms": round(1e3 * statistics.median(self.seconds), 1),
            "tokens_per_second": round(statistics.median(rates)),
            "length": round(statistics.mean(self.tokens) / PROMPTS / GROUP_SIZE, 2),
            "gflop": round(statistics.median(self.flops) / 1e9, 1),
            "share_of_gemm_peak": round(statistics.median(shares), 3),
        }


def timed(side: Side, meter: meters.FlopMeter, step: Callable[[], float]) -> None:
    """Run a step that returns its completion tokens, and note what it took.

    Args:
        side: is added to.
        meter: of the model that is moved.
        step: what runs.
    """
    flops, started = meter.flops, time.process_time()
    tokens = step()
    side.seconds.append(time.process_time() - started)
    side.tokens.append(tokens)
    side.flops.append(meter.flops - flops)


def our_step(work: Workload, asked: list[str], pay: Reward, activation: str) -> Any:
    """Our loop's step, and the meter of its model."""
    loop = workloads.our_loop(work, asked, pay, activation=activation)
    step: Callable[[], float] = lambda: loop.step().length * PROMPTS * GROUP_SIZE  # noqa: E731
    return step, meters.FlopMeter(loop.lm.model)


def beside_plain(work: Workload, pay: Reward, *, activation: str, steps: int) -> tuple[Side, Side]:
    """Our steps and those of the plain loop, in turn.

    Args:
        work: the workload.
        pay: the reward.
        activation: of the multilayer perceptrons.
        steps: that count.
    Returns:
        Ours, theirs.
    """
    asked = workloads.prompts(work, PROMPTS * 8)
    step, meter = our_step(work, asked, pay, activation)
    plain = peers.PlainLoop(work, asked, pay, activation=activation)
    their_meter = meters.FlopMeter(plain.model)
    step(), plain.step()
    ours, theirs = Side(), Side()
    for _ in range(steps):
        timed(theirs, their_meter, plain.step)
        timed(ours, meter, step)
    return ours, theirs


def beside_trl(
    name: str, work: Workload, *, activation: str, steps: int
) -> tuple[tuple[Side, Side], float]:
    """Our steps inside TRL's callback at the end of a step, and a comparison of gradients.

    Args:
        name: "RLOO" or "GRPO".
        work: the workload.
        activation: of the multilayer perceptrons.
        steps: that count.
    Returns:
        Ours, theirs, and how far our gradient is from theirs on their first batch: the length
        of the difference, over the length of theirs.
    """
    from transformers import TrainerCallback

    asked = workloads.prompts(work, PROMPTS * (steps + 1))
    step, meter = our_step(work, asked, workloads.reward, activation)
    step()
    ours, theirs, distance = Side(), Side(), torch.nan
    seen: dict[str, Any] = {}

    class Beside(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
            nonlocal distance
            spent = time.process_time() - self.started
            if state.global_step == 1:  # its weights were the starting ones
                distance = gradient_distance(name, work, asked, activation, seen)
            else:
                theirs.seconds.append(spent)
                theirs.flops.append(their_meter.flops - self.flops)
                theirs.tokens.append(float(seen["batch"]["completion_mask"].sum()))
                timed(ours, meter, step)
            self.start()

        def start(self) -> None:
            self.started, self.flops = time.process_time(), their_meter.flops

    with tempfile.TemporaryDirectory() as folder:
        trainer = peers.trl_trainer(
            name,
            work,
            asked,
            workloads.reward,
            activation=activation,
            steps=steps + 1,
            folder=folder,
            seen=seen,
        )
        their_meter, beside = meters.FlopMeter(trainer.model), Beside()
        trainer.add_callback(beside)
        beside.start()
        trainer.train()
    return (ours, theirs), distance


def gradient_distance(
    name: str, work: Workload, asked: list[str], activation: str, seen: dict[str, Any]
) -> float:
    """Our gradient on TRL's own batch and advantages, against the one that TRL computed.

    Args:
        name: "RLOO", or "GRPO", which divides by the tokens of the batch and not by its rows.
        work: the workload.
        asked: prompts.
        activation: of the multilayer perceptrons.
        seen: see `peers.trl_trainer`.
    Returns:
        Length of the difference of both gradients before clipping, over the length of theirs.
    """
    batch = seen["batch"]
    prompts, whose = torch.unique(batch["prompt_ids"], dim=0, return_inverse=True)
    order = torch.argsort(whose, stable=True)  # TRL shuffles rows; ours stand in groups
    assert torch.equal(prompts.repeat_interleave(GROUP_SIZE, 0), batch["prompt_ids"][order])
    mask = batch["completion_mask"][order].bool()
    lengths, width = mask.sum(1), int(mask.sum(1).max())
    assert torch.equal(mask[:, :width], logprobs.mask_from_lengths(lengths, width))
    zeros = torch.zeros(len(mask), width)
    sampled = RolloutBatch(
        batch["prompt_ids"][order],
        batch["prompt_mask"][order].bool(),
        batch["completion_ids"][order, :width],
        mask[:, :width],
        lengths,
        torch.ones_like(lengths, dtype=torch.bool),
        zeros,
        zeros,
    )
    judged = batch["advantages"][order]
    if name == "GRPO":
        judged = judged * len(mask) / mask.sum()
    loop = workloads.our_loop(work, asked, activation=activation)
    loop.credit(sampled, judged)
    weights = list(loop.lm.model.parameters())
    mine, theirs = (
        torch.cat([g.flatten() for g in grads])
        for grads in ([p.grad for p in weights], seen["gradient"])
    )
    return float((mine - theirs).norm() / theirs.norm())
