"""The training loop: on-policy REINFORCE on any causal language model, one record a step.

A step is the five stations of chapter 00, each a method of `Loop`: write, judge, compare,
credit, uphill. What is estimated is the gradient of J = E[R] − β KL(π ‖ π_ref): summed over the
tokens of a completion, averaged over completions, never divided by a length. The policy that is
scored is the one that sampled: same weights, same temperature, no dropout.

Left out of what is usual at full size: several updates on one batch, and with them ratios and
clipping (PPO, GRPO); learning-rate schedules; weights sharded over devices.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from helpers import (
    baselines,
    checkpoints,
    graphs,
    losses,
    microbatches,
    reference,
    rewards,
    rollout,
    settings,
    value_head,
)
from helpers.models import LanguageModel
from helpers.rollout import RolloutBatch

if TYPE_CHECKING:
    from accelerate import Accelerator

RewardFunction = Callable[[list[str], list[str]], Any]
BASELINES = settings.BASELINES


@dataclass(frozen=True)
class Config:
    """Everything that decides a run, but the model, the prompts and the reward."""

    steps: int = 100
    prompts_per_step: int = 8  # P; no prompt twice in a step while there are enough
    group_size: int = 16  # K, completions a prompt
    max_new_tokens: int = 32  # a completion ends here if it has not ended by itself
    temperature: float = 1.0  # the policy is softmax(logits / temperature): sampled and scored so
    baseline: str = "leave-one-out"  # one of BASELINES
    constant: float = 0.0  # of the baseline "constant", reward units
    gae_lambda: float = 1.0  # of the baseline "learned V(s)"; below 1 the errors of V are a bias
    kl_coef: float = 0.0  # β, reward units a nat
    lr: float = 4e-4  # of AdamW, without weight decay or schedule
    max_grad_norm: float = 1.0  # a longer gradient is scaled down to this length
    seed: int = 0  # of prompts and tokens
    checkpoint_every: int = 20  # steps
    # The rest is about speed alone: it changes no number, up to rounding.
    tokens_per_micro_batch: int = 1024  # padding counted; a GPU with room likes 65536
    share_prompts: bool = True  # read each prompt once a step, not once a completion
    skip_zero_advantages: bool = True  # their part of the gradient is exactly 0
    graph_decode: bool = True  # on CUDA, replay one captured decode step (`helpers.graphs`)


@dataclass(frozen=True)
class Record:
    """What one step saw, before its weights were moved. Means are over all completions."""

    step: int  # from 0
    reward: float  # mean of R, without the KL term
    reward_std: float  # standard deviation of R
    entropy: float  # Σ_t H(π(·|s_t)), nats a completion: exact in each state that was met
    nll: float  # −Σ_t log π(x_t|s_t), nats a completion: the same mean, from the tokens alone
    kl: float  # Σ_t KL(π(·|s_t) ‖ π_ref(·|s_t)), nats a completion; nan without a reference
    length: float  # tokens, EOS included
    finished: float  # share that ended before the limit
    silent: float  # share with advantage 0, which teaches nothing
    grad_norm: float  # of the estimate, before it was clipped
    seconds: float
    tokens_per_second: float  # tokens written, over the seconds of the whole step
    prompts: list[str] = field(repr=False)  # (B,) of this process; so are the next two
    completions: list[str] = field(repr=False)
    rewards: list[float] = field(repr=False)

    def numbers(self) -> dict[str, float]:
        """All of it but the texts and their rewards, by name."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, list)}


def train(
    lm: LanguageModel,
    prompts: Sequence[str],
    reward: RewardFunction,
    config: Config | None = None,
    *,
    ref_policy: LanguageModel | None = None,
    folder: str | Path | None = None,
    accelerator: "Accelerator | None" = None,
) -> Iterator[Record]:
    """Train a language model in place, one step for each record that is asked for.

    However the run ends (all steps done, iterator closed, Ctrl-C, an exception), with a folder
    there is a checkpoint of the weights after the last whole step. Only an interrupt in the
    instant in which they are moved goes back to the checkpoint before.

    Args:
        lm: the policy; its weights are moved.
        prompts: where the prompts of a step are drawn from.
        reward: (prompts, completions), two lists of B strings → B finite numbers.
        config: None takes the defaults.
        ref_policy: π_ref, frozen, with the same vocabulary; needed if kl_coef is not 0.
        folder: where checkpoints go. If it holds one, the run goes on from there.
        accelerator: of `accelerate launch`. The prompts of a step are divided between the
            processes, groups stay whole, and the update is that of one process.
    Returns:
        An iterator of records.
    Raises:
        ValueError: a setting or a checkpoint cannot work; while iterating: the reward is not B
            finite numbers, or the gradient is not finite. Messages name the step.
        OSError: a checkpoint could not be written; the one before is still there.
    Source: chapter 07.
    """
    loop = Loop(lm, prompts, reward, config or Config(), ref_policy, accelerator)
    if folder is not None:
        checkpoints.resume(loop.state, lm.model, Path(folder), loop.config)
    return _run(loop, folder if loop.rank == 0 else None)


def _run(loop: "Loop", folder: str | Path | None) -> Iterator[Record]:
    """Steps and checkpoints. The first checkpoint is from before the first step.

    A record is handed out before the checkpoint that follows it: whoever writes records down has
    written all of them up to the checkpoint that a killed run goes on from.
    """

    def save() -> None:
        if folder is not None and loop.state.whole and loop.state.saved_step != loop.state.step:
            checkpoints.save(loop.state, loop.lm, Path(folder), loop.config)

    try:
        save()
        while loop.state.step < loop.config.steps:
            yield loop.step()
            if loop.state.step % loop.config.checkpoint_every == 0:
                save()
    finally:
        save()


class Loop:
    """One step after another. `train` wraps it; chapter 07 takes it apart."""

    def __init__(
        self,
        lm: LanguageModel,
        prompts: Sequence[str],
        reward: RewardFunction,
        config: Config,
        ref_policy: LanguageModel | None = None,
        accelerator: "Accelerator | None" = None,
    ) -> None:
        """Check the settings; nothing is computed yet.

        Args:
            lm: the policy.
            prompts: where the prompts of a step are drawn from.
            reward: two lists of B strings → B finite numbers.
            config: the settings.
            ref_policy: π_ref, or None.
            accelerator: of several processes, or None.
        Raises:
            ValueError: a setting cannot work.
        """
        self.lm, self.reward = lm, reward
        self.config, self.ref_policy, self.accelerator = config, ref_policy, accelerator
        self.rank = accelerator.process_index if accelerator else 0
        self.processes = accelerator.num_processes if accelerator else 1
        settings.check(config, lm, prompts, reward, ref_policy, processes=self.processes)
        self.prompts = list(prompts)
        lm.model.eval()  # no dropout: who is scored is who sampled
        self.state = checkpoints.State.fresh(lm.model, lr=config.lr, seed=config.seed)
        self.decoder: graphs.Decoder | None = None
        if config.graph_decode and lm.model.device.type == "cuda" and graphs.supported(lm.model):
            self.decoder = graphs.Decoder(lm.model)

    def step(self) -> Record:
        """Write, judge, compare, credit, uphill.

        Raises:
            ValueError: see `train`.
        """
        started, state = time.perf_counter(), self.state
        generator = torch.Generator()
        generator.set_state(state.chance)
        try:
            with _autocast(self.lm):
                asked, batch, completions = self.write(generator)
                rewards, token_rewards, divergences = self.judge(asked, batch, completions)
                advantages, memory = self.compare(batch, token_rewards)
                self.credit(batch, advantages)
            norm = self.uphill()
        except Exception as error:
            if state.whole:
                error.add_note(f"In step {state.step}. The weights are those before it.")
            raise
        columns = {
            "reward": rewards, "entropy": batch.entropies.sum(1), "nll": -batch.old_logprobs.sum(1),
            "kl": divergences.sum(1), "length": batch.lengths, "finished": batch.finished,
            "silent": (advantages == 0).reshape(len(rewards), -1).all(1),
        }  # fmt: skip
        table = self._gather(torch.stack([c.to(rewards) for c in columns.values()], dim=1))
        means: dict[str, Any] = dict(zip(columns, table.mean(0).tolist(), strict=True))
        written, seconds = float(table[:, 4].sum()), time.perf_counter() - started
        record = Record(
            step=state.step, reward_std=float(table[:, 0].std(correction=0)), **means,
            grad_norm=norm, seconds=seconds, tokens_per_second=written / seconds,
            prompts=asked, completions=completions, rewards=rewards.tolist(),
        )  # fmt: skip
        chance = generator.get_state()
        # Last of all, so that no interrupt leaves a step that is noted and has no record.
        state.step, state.memory, state.chance, state.whole = state.step + 1, memory, chance, True
        return record

    def write(self, generator: torch.Generator) -> tuple[list[str], RolloutBatch, list[str]]:
        """Draw prompts, and sample a group of completions to each.

        Args:
            generator: the source of all chance in a step, the same in every process.
        Returns:
            (B,) prompts, the batch, and (B,) completions as text, of this process.
        """
        config = self.config
        drawn: list[int] = []
        while len(drawn) < config.prompts_per_step:
            drawn += torch.randperm(len(self.prompts), generator=generator).tolist()
        drawn = drawn[: config.prompts_per_step]
        count = config.prompts_per_step * config.group_size
        uniforms = rollout.draw_uniforms((count, config.max_new_tokens), generator)
        mine = [self.prompts[i] for i in self._share(drawn)]
        batch = rollout.sample(
            self.lm.model, *self.lm.encode(mine), eos_ids=self.lm.eos_ids,
            max_new_tokens=config.max_new_tokens, uniforms=self._share(uniforms),
            group_size=config.group_size, temperature=config.temperature, decoder=self.decoder,
        )  # fmt: skip
        asked = [prompt for prompt in mine for _ in range(config.group_size)]
        return asked, batch, self.lm.decode(batch.completion_ids, batch.lengths)

    def judge(
        self, asked: list[str], batch: RolloutBatch, completions: list[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The reward R of each text, and with a reference −β log(π/π_ref) of each token.

        Args:
            asked: (B,) prompts.
            batch: what was written.
            completions: (B,) as text.
        Returns:
            rewards (B,), reward units; token_rewards (B, T), reward units: R on the last token,
            penalties on all; divergences (B, T), nats, nan without a reference.
        Raises:
            ValueError: the reward is not B finite numbers.
        """
        penalties = torch.zeros_like(batch.old_logprobs)
        paid = rewards.call(
            self.reward, asked, completions, step=self.state.step, dtype=penalties.dtype
        ).to(penalties.device)  # (B,)
        divergences = torch.full_like(penalties, torch.nan)
        if self.ref_policy is not None:
            ref_logprobs, divergences = reference.compare(
                self.lm.model, self.ref_policy.model, batch,
                group_size=self.config.group_size, temperature=self.config.temperature,
                budget=self.config.tokens_per_micro_batch, share_prompts=self.config.share_prompts,
            )  # fmt: skip
            penalties = self.config.kl_coef * (batch.old_logprobs - ref_logprobs)
        token_rewards = reference.token_rewards(paid, penalties, batch.completion_mask)
        return paid, token_rewards, divergences

    def compare(
        self, batch: RolloutBatch, token_rewards: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Advantages: the reward, less what the baseline of chapter 06 expected.

        Args:
            batch: what was written.
            token_rewards: (B, T) float, reward units.
        Returns:
            advantages, (B,) one a completion, or (B, T) one a token; and what the baseline
            remembers for the next batch, which this one must not see.
        """
        config, memory = self.config, self.state.memory
        if config.baseline == "learned V(s)":
            advantages, sums = value_head.judge(
                self.lm.model, batch, token_rewards, memory.get("values"),
                lam=config.gae_lambda, budget=config.tokens_per_micro_batch,
            )  # fmt: skip
            return advantages, {"values": value_head.learn(memory.get("values"), self._add(sums))}
        groups = self._gather(token_rewards.sum(1)).view(-1, config.group_size)  # (P, K)
        if config.baseline in baselines.GROUP_JUDGES:
            advantages = baselines.GROUP_JUDGES[config.baseline](groups)
            rounding = 8 * torch.finfo(groups.dtype).eps * groups.abs().amax(1, keepdim=True)
            equal = groups.amax(1, keepdim=True) - groups.amin(1, keepdim=True) <= rounding
            advantages = advantages.masked_fill(equal, 0.0)  # exactly, so that it can be skipped
        elif config.baseline == "running mean":
            past, mean, kept = memory.get("mean"), groups.mean(), baselines.MEMORY
            advantages = groups if past is None else groups - past
            memory = {"mean": mean if past is None else kept * past + (1 - kept) * mean}
        else:
            advantages = groups - (config.constant if config.baseline == "constant" else 0.0)
        return self._share(advantages.reshape(-1)), memory

    def credit(self, batch: RolloutBatch, advantages: Tensor) -> None:
        """Leave in `.grad` minus the estimate of ∇J, summed over micro-batches and processes.

        Args:
            batch: what was written.
            advantages: (B,) or (B, T) float, reward units.
        """
        config, model, size = self.config, self.lm.model, self.config.group_size
        count = config.prompts_per_step * size  # of all processes, kept or not
        for parameter in self._parameters():
            parameter.grad = torch.zeros_like(parameter)
        rows = torch.arange(len(advantages), device=advantages.device)
        if config.skip_zero_advantages:
            rows = rows[(advantages != 0).reshape(len(rows), -1).any(1)]
        if len(rows):
            shared = None
            if config.share_prompts:
                shared = microbatches.SharedPrompts(model, batch, rows, group_size=size)
            for some, part, _, token_logprobs in microbatches.score(
                model, batch, rows, shared=shared,
                budget=config.tokens_per_micro_batch, temperature=config.temperature,
            ):  # fmt: skip
                judged = advantages[some]
                if judged.ndim == 2:
                    judged = judged[:, : part.completion_ids.shape[1]]
                loss = losses.reinforce_loss(token_logprobs, judged, part.completion_mask)
                (loss * len(some) / count).backward()  # a mean over all B, not over these
            if shared is not None:
                shared.backward()
        for parameter in self._parameters():
            parameter.grad = self._add(parameter.grad)

    def uphill(self) -> float:
        """Clip the gradient, and take one step of the optimizer.

        Returns:
            The length of the gradient before it was clipped.
        Raises:
            ValueError: the gradient is not finite; the weights were not moved.
        """
        norm = torch.nn.utils.clip_grad_norm_(self._parameters(), self.config.max_grad_norm)
        if not bool(norm.isfinite()):
            lengths = {name: float(p.grad.norm()) for name, p in self.lm.model.named_parameters()
                       if p.grad is not None}  # fmt: skip
            bad = [name for name, length in lengths.items() if not math.isfinite(length)]
            raise ValueError(
                f"step {self.state.step}: the gradient is not finite in {len(bad)} of "
                f"{len(lengths)} tensors, first in {(bad or list(lengths))[0]}. Lower lr "
                f"({self.config.lr}), or look at the size of the rewards."
            )
        self.state.whole = False  # until the step is noted down
        self.state.optimizer.step()
        return float(norm)

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for p in self.lm.model.parameters() if p.requires_grad]

    def _share(self, everything: Any) -> Any:
        """This process's part of a list or tensor over all prompts or completions."""
        size = len(everything) // self.processes
        return everything[self.rank * size : (self.rank + 1) * size]

    def _gather(self, mine: Tensor) -> Tensor:
        """The parts of all processes, one below the other."""
        return self.accelerator.gather(mine) if self.accelerator else mine

    def _add(self, mine: Tensor | None) -> Any:
        """The sum over all processes."""
        return self.accelerator.reduce(mine, "sum") if self.accelerator else mine


def _autocast(lm: LanguageModel) -> AbstractContextManager:
    """bfloat16 on CUDA, where matrix products are faster in it; a CPU is slower."""
    device = lm.model.device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")
