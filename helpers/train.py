"""The training loop: on-policy REINFORCE on any causal language model, one record a step.

A step is the five stations of chapter 00, each a method of `Loop`: write, judge, compare,
credit, uphill. What is estimated is the gradient of J = E[R] − β KL(π ‖ π_ref): summed over the
tokens of a completion, averaged over completions, never divided by a length. The policy that is
scored is the one that sampled: same weights, same temperature, no dropout.

Left out of what is usual at full size: several updates on one batch, and with them ratios and
clipping (PPO, GRPO); learning-rate schedules; weights sharded over devices.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from helpers import advantages as judging
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
from helpers.processes import Processes
from helpers.rollout import RolloutBatch

if TYPE_CHECKING:
    from accelerate import Accelerator

Reward = Callable[[list[str], list[str]], Any]


@dataclass(frozen=True)
class Config:
    """Everything that decides a run, but the model, the prompts and the reward."""

    steps: int = 100  # in all, restarts included
    prompts_per_step: int = 8  # P; no prompt twice in a step while there are enough
    group_size: int = 16  # K, completions a prompt
    max_new_tokens: int = 32  # a completion ends here if it has not ended by itself
    temperature: float = 1.0  # the policy is softmax(logits / temperature): sampled and scored so
    baseline: str = "leave-one-out"  # one of settings.BASELINES
    constant: float = 0.0  # of the baseline "constant", reward units
    gae_lambda: float = 1.0  # of the baseline "learned V(s)"; below 1 the errors of V are a bias
    kl_coef: float = 0.0  # β, reward units a nat
    lr: float = 4e-4  # of AdamW, without weight decay or schedule
    max_grad_norm: float = 1.0  # a longer gradient is scaled down to this length, which is a bias
    seed: int = 0  # of prompts and tokens
    checkpoint_every: int = 20  # steps
    # The rest is about speed alone: it changes no number, up to rounding.
    tokens_per_micro_batch: int = 1024  # padding counted; logits take this × vocabulary × 4 bytes
    share_prompts: bool = True  # read a prompt once a pass, not once a completion
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
    silent: float  # share with advantage 0, which adds nothing to the gradient
    mismatch: float  # largest |log π scored − log π sampled| of a token, nats: rounding, or a bug
    grad_norm: float  # of the estimate, before it was clipped
    seconds: float
    tokens_per_second: float  # tokens written, over the seconds of the whole step
    prompts: list[str] = field(repr=False)  # (B,) of this process; so are the next two
    completions: list[str] = field(repr=False)
    rewards: list[float] = field(repr=False)

    @classmethod
    def columns(cls) -> list[str]:
        """Names of all that is a number: not the texts and their rewards."""
        return [each.name for each in dataclasses.fields(cls) if each.repr]

    def numbers(self) -> dict[str, float]:
        """Each of `columns` with its number."""
        return {name: getattr(self, name) for name in self.columns()}


def train(
    lm: LanguageModel,
    prompts: Sequence[str],
    reward: Reward,
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
        lm: the policy; its weights are moved, and it stays in eval mode.
        prompts: where the prompts of a step are drawn from.
        reward: (prompts, completions), two lists of B strings → B finite numbers.
        config: None takes the defaults.
        ref_policy: π_ref, frozen, with the same vocabulary; needed if kl_coef is not 0. With
            kl_coef 0 the KL is measured only.
        folder: where checkpoints go. If it holds one, the run goes on from there; that prompts
            and reward are still the same is yours to see to.
        accelerator: of `accelerate launch`; the model itself need not be prepared. The prompts
            of a step are divided between the processes, groups stay whole, and the update is
            that of one process. All must see the same folder.
    Returns:
        An iterator of records.
    Raises:
        ValueError: a setting or a checkpoint cannot work; while iterating: the reward is not B
            finite numbers, or the gradient is not finite. Messages name the step.
        OSError: a checkpoint could not be written; the one before is still there.
    Source: chapter 07, eq. (7.2).
    """
    loop = Loop(lm, prompts, reward, config or Config(), ref_policy, accelerator)
    if folder is not None:
        checkpoints.resume(loop.state, lm.model, Path(folder), loop.config)
        loop.processes.check_same(loop.state.step, lm.model.device)
    return _run(loop, Path(folder) if folder is not None and loop.processes.rank == 0 else None)


def _run(loop: "Loop", folder: Path | None) -> Iterator[Record]:
    """Steps and checkpoints. The first checkpoint is from before the first step.

    A record is handed out before the checkpoint that follows it: whoever writes records down has
    written all of them up to the checkpoint that a killed run goes on from.
    """

    def save() -> None:
        state = loop.state
        if folder is not None and state.between_steps and state.saved_step != state.step:
            checkpoints.save(state, loop.lm, folder, loop.config)

    if folder is not None:
        checkpoints.clear(folder)
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
        reward: Reward,
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
        self.config, self.ref_policy, self.processes = config, ref_policy, Processes(accelerator)
        settings.check(config, lm, prompts, reward, ref_policy, processes=self.processes.count)
        self.prompts = list(prompts)
        for each in (lm, ref_policy):
            if each is not None:
                each.model.eval()  # no dropout: who is scored is who sampled
        # AdamW without its W, and the state of the generator that all chance comes from.
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
                paid, token_rewards, divergences = self.judge(asked, batch, completions)
                advantages, memory = self.compare(batch, token_rewards)
                gaps = self.credit(batch, advantages)
            norm = self.uphill()
        except Exception as error:
            if state.between_steps:
                error.add_note(f"In step {state.step}. The weights are those before it.")
            raise
        rows = self.processes.columns({  # (B,) each, then of all processes
            "reward": paid, "entropy": batch.entropies.sum(1), "nll": -batch.old_logprobs.sum(1),
            "kl": divergences.sum(1), "length": batch.lengths, "finished": batch.finished,
            "silent": (advantages == 0).reshape(len(paid), -1).all(1), "mismatch": gaps,
        }, self.lm.model.device)  # fmt: skip
        numbers: dict[str, Any] = {name: float(row.mean()) for name, row in rows.items()}
        numbers["mismatch"] = float(rows["mismatch"].max())
        seconds = time.perf_counter() - started
        record = Record(
            **numbers, step=state.step, reward_std=float(rows["reward"].std(correction=0)),
            grad_norm=norm, seconds=seconds,
            tokens_per_second=float(rows["length"].sum()) / seconds,
            prompts=asked, completions=completions, rewards=paid.tolist(),
        )  # fmt: skip
        chance = generator.get_state()
        # In one line, after which the step counts: a checkpoint must not hold half of it.
        state.step, state.memory, state.chance, state.between_steps = (
            state.step + 1, memory, chance, True,
        )  # fmt: skip
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
        mine = [self.prompts[i] for i in self.processes.share(drawn)]
        batch = rollout.sample(
            self.lm.model, *self.lm.encode(mine), eos_ids=self.lm.eos_ids,
            max_new_tokens=config.max_new_tokens, uniforms=self.processes.share(uniforms),
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
            paid (B,), reward units: R; token_rewards (B, T), reward units: R on the last token
            and penalties on all; divergences (B, T), nats, nan without a reference.
        Raises:
            ValueError: the reward is not B finite numbers.
        """
        penalties = torch.zeros_like(batch.old_logprobs)
        paid = rewards.call(
            self.reward, asked, completions, step=self.state.step, dtype=penalties.dtype
        ).to(penalties.device)  # (B,)
        divergences = torch.full_like(penalties, torch.nan)
        if self.ref_policy is not None:
            ref_logprobs, divergences = reference.measure(
                self.lm.model, self.ref_policy.model, batch,
                group_size=self.config.group_size, temperature=self.config.temperature,
                budget=self.config.tokens_per_micro_batch, share_prompts=self.config.share_prompts,
            )  # fmt: skip
            # The sampler's own log-probabilities: what was drawn was drawn from them.
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
            advantages, sums = value_head.compare(
                self.lm.model, batch, token_rewards, memory.get("values"),
                lam=config.gae_lambda, budget=config.tokens_per_micro_batch,
            )  # fmt: skip
            return advantages, {
                "values": value_head.learn(memory.get("values"), self.processes.add(sums))
            }
        groups = self.processes.gather(token_rewards.sum(1)).view(-1, config.group_size)  # (P, K)
        if config.baseline in baselines.GROUP_COMPARISONS:
            advantages = baselines.GROUP_COMPARISONS[config.baseline](groups)
            advantages = judging.zero_where_equal(advantages, groups)  # so that it is skipped
        elif config.baseline == "running mean":  # one for all prompts; chapter 06 has one for each
            past, mean, kept = memory.get("mean"), groups.mean(), baselines.MEMORY
            advantages = groups if past is None else groups - past
            memory = {"mean": mean if past is None else kept * past + (1 - kept) * mean}
        else:
            advantages = groups - (config.constant if config.baseline == "constant" else 0.0)
        return self.processes.share(advantages.reshape(-1)), memory

    def credit(self, batch: RolloutBatch, advantages: Tensor) -> Tensor:
        """Leave in `.grad` minus the estimate of ∇J, summed over micro-batches and processes.

        Args:
            batch: what was written.
            advantages: (B,) or (B, T) float, reward units.
        Returns:
            (B,) float, nats: the largest |log π now − log π at sampling| of a completion's
            tokens; 0 for those that were skipped.
        Source: chapter 07, eqs. (7.2) and (7.3).
        """
        config, gaps = self.config, torch.zeros_like(batch.old_logprobs[:, 0])
        count = config.prompts_per_step * config.group_size  # B, of all processes, kept or not
        for parameter in self._parameters():
            parameter.grad = torch.zeros_like(parameter)  # not None: all take part in the sum
        rows = torch.arange(len(advantages), device=advantages.device)
        if config.skip_zero_advantages:
            rows = rows[(advantages != 0).reshape(len(rows), -1).any(1)]
        for some, part, _, token_logprobs in microbatches.score(
            self.lm.model, batch, rows, group_size=config.group_size,
            budget=config.tokens_per_micro_batch, temperature=config.temperature,
            share_prompts=config.share_prompts,
        ):  # fmt: skip
            judged = advantages[some]
            if judged.ndim == 2:
                judged = judged[:, : part.completion_ids.shape[1]]
            loss = losses.reinforce_loss(token_logprobs, judged, part.completion_mask)
            (loss * len(some) / count).backward()  # a mean over all B, not over these
            gaps[some] = (token_logprobs.detach() - part.old_logprobs).abs().amax(1)
        for parameter in self._parameters():
            if parameter.grad is not None:
                parameter.grad = self.processes.add(parameter.grad)
        return gaps

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
        self.state.between_steps = False  # until the step counts
        self.state.optimizer.step()  # Adam goes on along past gradients even where this one is 0
        return float(norm)

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for p in self.lm.model.parameters() if p.requires_grad]


def _autocast(lm: LanguageModel) -> AbstractContextManager:
    """bfloat16 on CUDA, where matrix products are faster in it; a CPU is slower."""
    device = lm.model.device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")
