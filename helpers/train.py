"""The training loop: on-policy REINFORCE on any causal language model, one record a step.

A step is the five stations of chapter 00, each a method of `Loop`: write, judge, compare,
credit, uphill. What is estimated is the gradient of J = E[R] − β KL(π ‖ π_ref): summed over the
tokens of a completion, averaged over completions, never divided by a length. The policy that is
scored is the one that sampled: same weights, same temperature, no dropout.

Left out of what is usual at full size: several updates on one batch, and with them ratios and
clipping (PPO, GRPO); learning-rate schedules; weights sharded over devices.
"""

import atexit
import contextlib
import math
import time
import weakref
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from helpers import (
    advantages,
    checkpoints,
    contract,
    cpu,
    decoding,
    identity,
    losses,
    probe,
    rollout,
    scoring,
    settings,
    value_head,
)
from helpers.models import LanguageModel
from helpers.processes import Processes
from helpers.rollout import RolloutBatch, SamplingSettings
from helpers.runlog import Record
from helpers.settings import Config, Reward

if TYPE_CHECKING:
    from accelerate import Accelerator

# Nats between log π at sampling and at scoring that rounding explains, by the kind of arithmetic.
MOST_MISMATCH = {"float64": 1e-6, "float32": 0.01, "autocast": 2.0}


def train(
    lm: LanguageModel,
    prompts: Sequence[str],
    reward: Reward,
    config: Config | None = None,
    *,
    ref_policy: LanguageModel | None = None,
    folder: str | Path | None = None,
    accelerator: "Accelerator | None" = None,
    changed: Collection[str] = (),
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
        folder: where checkpoints go. If it holds one, the run goes on from there, and must be the
            same in all that decides its numbers: settings, prompts, reward function, reference,
            end tokens, trainable weights. While this run is open no other can have the folder.
        accelerator: of `accelerate launch`; the model itself need not be prepared. The prompts
            of a step are divided between the processes, groups stay whole, and the update is
            that of one process. All must see the same folder.
        changed: what may differ from the run in the folder all the same, in the words of the
            refusal: "reward function", if it was repaired.
    Returns:
        An iterator of records.
    Raises:
        ValueError: a setting or a checkpoint cannot work; while iterating: the reward is not B
            finite numbers, or the gradient is not finite. Messages name the step.
        OSError: a checkpoint could not be written; the one before is still there.
    Source: chapter 07, eq. (7.2).
    """
    loop = Loop(lm, prompts, reward, config or Config(), ref_policy, accelerator)
    if folder is None and loop.processes.count == 1:
        return _run(loop, None, {}, None)
    run, place, lock = identity.of_run(lm, prompts, reward, ref_policy), None, None
    if not set(changed) <= run.keys():
        raise ValueError(f"changed is {changed!r}, and may name some of {', '.join(run)}")
    if folder is not None:
        place = Path(folder)
        if loop.processes.rank == 0 and not place.is_file():
            lock = identity.Lock(place)
        try:
            checkpoints.resume(
                loop.state,
                lm.model,
                place,
                loop.config,
                {name: digest for name, digest in run.items() if name not in changed},
            )
        except BaseException:
            if lock is not None:
                lock.release()
            raise
    if loop.processes.count > 1:  # a digest of all weights costs time
        begin = {"step to begin with": str(loop.state.step), "settings": repr(loop.config)}
        begin |= {"weights": identity.of_model(lm.model)}
        loop.processes.check_same(run | begin, lm.model.device)
    records = _run(loop, place if loop.processes.rank == 0 else None, run, lock)
    _OPEN.add(records)
    return records


_OPEN: "weakref.WeakSet[Iterator[Record]]" = weakref.WeakSet()


@atexit.register
def _close_open_runs() -> None:
    """A run that still has a name when the script ends saves its last step now: later nothing
    can be imported any more."""
    for records in list(_OPEN):
        with contextlib.suppress(Exception):
            records.close()  # type: ignore[attr-defined]


def _run(
    loop: "Loop", folder: Path | None, run: dict[str, str], lock: identity.Lock | None
) -> Iterator[Record]:
    """Steps and checkpoints. The first checkpoint is from before the first step.

    A record is handed out before the checkpoint that follows it: whoever writes records down has
    written all of them up to the checkpoint that a killed run goes on from.
    """

    def save() -> None:
        state = loop.state
        if folder is not None and state.between_steps and state.saved_step != state.step:
            checkpoints.save(state, loop.lm, folder, loop.config, run)

    if folder is not None:
        checkpoints.clear(folder)
    try:
        save()
        while loop.state.step < loop.config.steps:
            yield loop.step()
            if loop.state.step % loop.config.checkpoint_every == 0:
                save()
    finally:
        try:
            save()
        finally:
            if lock is not None:
                lock.release()


class Loop:
    """One step after another. `train` wraps it; chapter 07 takes it apart."""

    # Nats; a larger mismatch stops the run, for who is scored is not who sampled. None: what
    # rounding explains, `MOST_MISMATCH`; math.inf never stops.
    most_mismatch: float | None = None

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
        # AdamW with weight_decay=0, and the state of the generator that all chance comes from.
        self.state = checkpoints.State.fresh(lm.model, lr=config.lr, seed=config.seed)
        self.decoder: decoding.Decoder | None = None
        if lm.model.device.type == "cpu":
            cpu.settle(sum(parameter.numel() for parameter in lm.model.parameters()))
        way = probe.reading(lm.model)  # refuses what is no policy
        self.budget = config.tokens_per_micro_batch or scoring.budget_of(lm.model)
        self.by_onednn = bool(config.onednn)
        if config.onednn is None:
            self.by_onednn = cpu.onednn_is_faster(lm.model, self.budget)
        on_gpu = config.graph_decode and lm.model.device.type == "cuda"
        if on_gpu and way.cached and way.padded and decoding.supported(lm.model):
            self.decoder = decoding.Decoder(lm.model)

    def step(self) -> Record:
        """Write, judge, compare, credit, uphill.

        Raises:
            ValueError: see `train`.
        """
        started, state = time.perf_counter(), self.state
        self.lm.model.eval()  # whatever a reader's code did in between
        generator = torch.Generator()
        generator.set_state(state.chance)
        try:
            with _as_the_loop_needs_it(self.lm, self.by_onednn):
                asked, batch, completions = self.write(generator)
                paid, token_rewards, divergences = self.judge(asked, batch, completions)
                texts = asked, completions, paid.tolist()
                judged, memory = self.compare(batch, token_rewards)
                _check_advantages(state.step, judged.to(batch.old_logprobs), texts)
                gaps = self.credit(batch, judged)
            seen = {  # (B,) each
                "reward": paid,
                "entropy": batch.entropies.sum(1),
                "nll": -batch.old_logprobs.sum(1),
                "kl": divergences.sum(1),
                "length": batch.lengths,
                "finished": batch.finished,
                "silent": (judged == 0).reshape(len(paid), -1).all(1),
                "mismatch": gaps,
            }
            rows = self.processes.columns(seen, self.lm.model.device)  # of all processes
            _check_mismatch(self, float(rows["mismatch"].max()), batch)
            norm = self.uphill()
        except Exception as error:
            if state.between_steps:
                error.add_note(f"In step {state.step}. The weights are those before it.")
            raise
        record = self._record(rows, norm, started, texts)
        chance = generator.get_state()
        # In one statement, after which the step counts: a checkpoint must not hold half of it.
        state.step, state.memory, state.chance, state.between_steps = (
            state.step + 1,
            memory,
            chance,
            True,
        )
        return record

    def _record(
        self,
        rows: dict[str, Tensor],
        norm: float,
        started: float,
        texts: tuple[list[str], list[str], list[float]],
    ) -> Record:
        """The means of what all processes have seen, and the texts of this one."""
        numbers: dict[str, Any] = {name: float(row.mean()) for name, row in rows.items()}
        numbers["mismatch"] = float(rows["mismatch"].max())
        seconds = time.perf_counter() - started
        prompts, completions, rewards = texts
        return Record(
            **numbers,
            step=self.state.step,
            reward_std=float(rows["reward"].std(correction=0)),
            grad_norm=norm,
            seconds=seconds,
            tokens_per_second=float(rows["length"].sum()) / seconds,
            prompts=prompts,
            completions=completions,
            rewards=rewards,
        )

    def write(self, generator: torch.Generator) -> tuple[list[str], RolloutBatch, list[str]]:
        """Draw prompts, and sample a group of completions to each.

        Args:
            generator: the source of all chance in a step, the same in every process.
        Returns:
            (B,) prompts, the batch, and (B,) completions as text, of this process.
        Raises:
            ValueError: the logits are not finite. The message names the step.
        """
        config = self.config
        drawn: list[int] = []
        while len(drawn) < config.prompts_per_step:
            drawn += torch.randperm(len(self.prompts), generator=generator).tolist()
        drawn = drawn[: config.prompts_per_step]
        count = config.prompts_per_step * config.group_size
        uniforms = rollout.draw_uniforms((count, config.max_new_tokens), generator)
        mine = [self.prompts[i] for i in self.processes.share(drawn)]
        chosen = SamplingSettings(
            self.lm.eos_ids,
            config.max_new_tokens,
            group_size=config.group_size,
            temperature=config.temperature,
        )
        try:
            batch = rollout.sample(
                self.lm.model,
                *self.lm.encode(mine),
                chosen,
                uniforms=self.processes.share(uniforms),
                decoder=self.decoder,
                compact_below=config.compact_below,
            )
        except ValueError as error:
            raise ValueError(f"step {self.state.step}: {error}") from error
        asked = [prompt for prompt in mine for _ in range(config.group_size)]
        completions = self.lm.decode(
            batch.completion_ids, batch.lengths, special_tokens=config.keep_special_tokens
        )
        return asked, batch, completions

    def judge(
        self, asked: list[str], batch: RolloutBatch, completions: list[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The reward R of each text, and with a reference −β log(π/π_ref) of each token.

        Args:
            asked: B prompts.
            batch: what was written.
            completions: B texts.
        Returns:
            paid (B,), reward units: R; token_rewards (B, T), reward units: R on the last token
            and penalties on all; both in float64 on the CPU, since what a group shares is still to
            be subtracted. divergences (B, T), nats, nan without a reference.
        Raises:
            ValueError: the reward is not B finite numbers.
        """
        paid = settings.call_reward(self.reward, asked, completions, step=self.state.step)  # (B,)
        penalties = torch.zeros_like(batch.old_logprobs)
        divergences = torch.full_like(penalties, torch.nan)
        if self.ref_policy is not None:
            ref_logprobs, divergences = scoring.against_reference(
                self.lm.model,
                self.ref_policy.model,
                batch,
                group_size=self.config.group_size,
                temperature=self.config.temperature,
                budget=self.budget,
                share_prompts=self.config.share_prompts,
            )
            # The sampler's own log-probabilities: what was drawn was drawn from them.
            penalties = self.config.kl_coef * (batch.old_logprobs - ref_logprobs)
        token_rewards = scoring.token_rewards(
            paid, penalties.cpu().double(), batch.completion_mask.cpu()
        )
        return paid, token_rewards, divergences

    def compare(
        self, batch: RolloutBatch, token_rewards: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Advantages: the reward, minus what the baseline of chapter 06 expected.

        Args:
            batch: what was written.
            token_rewards: (B, T) float64, reward units, on the CPU.
        Returns:
            advantages, (B,) one per completion, or (B, T) one per token, float64, on the CPU; and
            what the baseline remembers for the next batch, which this one must not see.
        """
        config, memory = self.config, self.state.memory
        if config.baseline == "learned_value":
            judged, sums = value_head.compare(
                self.lm.model,
                batch,
                token_rewards,
                memory.get("values"),
                lam=config.gae_lambda,
                budget=self.budget,
            )
            sums = self.processes.add(sums)
            return judged, {"values": value_head.learn(memory.get("values"), sums)}
        groups = self.processes.gather(token_rewards.sum(1)).view(-1, config.group_size)  # (P, K)
        level: Tensor | float = config.constant if config.baseline == "constant" else 0.0
        if config.baseline == "running_mean":  # one for all prompts
            level = memory.get("mean", level)
            memory = {"mean": advantages.running_mean(memory.get("mean"), groups)}
        judged = advantages.compare(config.baseline, groups, level=level)
        return self.processes.share(judged.reshape(-1)), memory

    def credit(self, batch: RolloutBatch, judged: Tensor) -> Tensor:
        """Leave in `.grad` minus the estimate of ∇J, summed over micro-batches and processes.

        Args:
            batch: what was written.
            judged: (B,) or (B, T) float: advantages, reward units; taken as the model's numbers
                are.
        Returns:
            (B,) float, nats: the largest |log π now − log π at sampling| of a completion's
            tokens; 0 for those that were skipped.
        Source: chapter 07, eqs. (7.2) and (7.3).
        """
        config, gaps = self.config, torch.zeros_like(batch.old_logprobs[:, 0])
        judged = judged.to(batch.old_logprobs)
        count = config.prompts_per_step * config.group_size  # B, of all processes, kept or not
        for parameter in self._parameters():
            parameter.grad = torch.zeros_like(parameter)  # not None: all take part in the sum
        rows = torch.arange(len(judged), device=judged.device)
        if config.skip_zero_advantages:
            rows = rows[(judged != 0).reshape(len(rows), -1).any(1)]
        for some, part, _, token_logprobs in scoring.score(
            self.lm.model,
            batch,
            rows,
            group_size=config.group_size,
            budget=self.budget,
            temperature=config.temperature,
            share_prompts=config.share_prompts,
        ):
            weights = judged[some]
            if weights.ndim == 2:
                weights = weights[:, : part.completion_ids.shape[1]]
            loss = losses.reinforce_loss(token_logprobs, weights, part.completion_mask)
            (loss * len(some) / count).backward()  # a mean over all B, not over these
            gaps[some] = (token_logprobs.detach() - part.old_logprobs).abs().amax(1)
        if self.processes.count > 1:  # one sum of all gradients: each sum waits for the slowest
            grads = [p.grad for p in self._parameters() if p.grad is not None]
            sums = self.processes.add(torch.cat([grad.flatten() for grad in grads]))
            for grad, part in zip(grads, sums.split([g.numel() for g in grads]), strict=True):
                grad.copy_(part.view_as(grad))
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
            lengths = {
                name: float(p.grad.double().norm())  # in float32 the squares would overflow
                for name, p in self.lm.model.named_parameters()
                if p.grad is not None
            }
            bad = [name for name, length in lengths.items() if not math.isfinite(length)]
            longest = max(lengths, key=lambda name: lengths[name])
            what = f"the gradient is too long for float32 (in {longest}: {lengths[longest]:.1e})"
            for name in bad[:1]:
                what = f"the gradient is not finite in {len(bad)} of {len(lengths)} tensors, first"
                what += f" in {name}"
            raise ValueError(
                f"step {self.state.step}: {what}. Look at the size of the rewards, or lower lr "
                f"({self.config.lr})."
            )
        self.state.between_steps = False  # until the step counts
        self.state.optimizer.step()  # Adam goes on along past gradients even where this one is 0
        return float(norm)

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for p in self.lm.model.parameters() if p.requires_grad]


@contextlib.contextmanager
def _as_the_loop_needs_it(lm: LanguageModel, by_onednn: bool) -> Iterator[None]:
    """Gradients on, and bfloat16 on CUDA, where products are faster in it; a CPU is slower."""
    device = lm.model.device.type
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")
    with torch.inference_mode(False), torch.enable_grad(), autocast, cpu.products(by_onednn):
        yield


def _check_advantages(
    step: int, judged: Tensor, texts: tuple[list[str], list[str], list[float]]
) -> None:
    """Name the text whose advantage the arithmetic of the model cannot hold."""
    if not bool(judged.isfinite().all()):
        asked, completions, paid = texts
        row = max(range(len(paid)), key=lambda i: abs(paid[i]))
        raise ValueError(
            f"step {step}: an advantage is not finite in "
            f"{str(judged.dtype).removeprefix('torch.')}. The largest reward is "
            f"{paid[row]} for completion {row}: prompt {asked[row]!r:.60}, completion "
            f"{completions[row]!r:.120}. Scale the rewards down."
        )


def _check_mismatch(loop: Loop, mismatch: float, batch: RolloutBatch) -> None:
    """Stop where the policy that is scored is not the one that sampled."""
    most = loop.most_mismatch
    if most is None:
        half = torch.is_autocast_enabled(loop.lm.model.device.type)
        half = half or loop.lm.model.device.type == "cuda"  # see `_as_the_loop_needs_it`
        kind = str(batch.old_logprobs.dtype).removeprefix("torch.")
        most = MOST_MISMATCH["autocast" if half else kind]
    if not mismatch <= most:
        raise ValueError(
            f"step {loop.state.step}: a token's log-probability at scoring differs from that "
            f"at sampling by {mismatch:.3g} nats, more than rounding ({most:g}): the policy "
            "that is scored is not the one that sampled. Did something change the model in "
            "between, such as another temperature, dropout, or weights that were moved?"
        )


contract.hold(globals())
