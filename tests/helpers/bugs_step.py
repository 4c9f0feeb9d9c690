"""Seeded bugs in one step of the training loop: what is scored, divided, shared and compared."""

import torch

from helpers import decoding, losses, rollout, scoring, train
from tests.mutant import Mutant

ORIGINAL = {
    "compare": scoring.against_reference,
    "credit": train.Loop.credit,
    "draw": rollout.draw,
    "judging": train.Loop.compare,
    "logits": scoring.SharedPrompts.logits,
    "new_cache": decoding.new_cache,
    "score": scoring.score,
    "select": scoring.select,
    "split": scoring.split,
    "token_rewards": scoring.token_rewards,
    "read": rollout.read,
}
LOOP = ("helpers/test_train_gradients.py",)
COMPARE = ("helpers/test_train_baselines.py",)
ROWS = ("helpers/test_rollout_rows.py",)


def _scale(loop, factor):
    for parameter in loop.lm.model.parameters():
        parameter.grad = parameter.grad * factor


def normaliser_over_kept_rows(self, batch, advantages):
    ORIGINAL["credit"](self, batch, advantages)
    kept = int((advantages != 0).reshape(len(advantages), -1).any(1).sum())
    _scale(self, len(advantages) / max(kept, 1))


def divided_by_all_tokens(self, batch, advantages):
    ORIGINAL["credit"](self, batch, advantages)
    _scale(self, len(advantages) / int(batch.lengths.sum()))


def divided_by_each_length(self, batch, advantages):
    shape = (-1,) + (1,) * (advantages.ndim - 1)
    ORIGINAL["credit"](self, batch, advantages / batch.lengths.view(shape))


def mean_of_each_micro_batch(self, batch, advantages):
    """Every micro-batch counts as much as the whole: right as long as there is one."""
    for parameter in self.lm.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    rows = torch.arange(len(advantages))
    for some, part, _, scores in scoring.score(
        self.lm.model,
        batch,
        rows,
        group_size=self.config.group_size,
        budget=self.budget,
        temperature=self.config.temperature,
    ):
        judged = advantages[some]
        judged = judged[:, : scores.shape[1]] if judged.ndim == 2 else judged
        losses.reinforce_loss(scores, judged, part.completion_mask).backward()


def zero_rows_skipped_by_reward(self, batch, advantages):
    """A completion that others did better than is left out: only praise teaches."""
    ORIGINAL["credit"](self, batch, advantages.clamp(min=0))


def gradients_of_the_last_step_kept(self, batch, advantages):
    before = [p.grad for p in self.lm.model.parameters()]
    ORIGINAL["credit"](self, batch, advantages)
    for parameter, old in zip(self.lm.model.parameters(), before, strict=True):
        parameter.grad = parameter.grad if old is None else parameter.grad + old


def uphill_is_downhill(self, batch, advantages):
    ORIGINAL["credit"](self, batch, -advantages)


def prompts_read_without_gradient(self):
    """The keys and values of the prompts are taken for constants."""


def prompts_mixed_up(self, piece, rows):
    return ORIGINAL["logits"](self, piece, rows % len(self.mask) * self.group_size)


def scored_at_temperature_one(*args, **kwargs):
    return ORIGINAL["score"](*args, **{**kwargs, "temperature": 1.0})


def logits_one_position_late(model, batch, *, states=False):
    return torch.roll(ORIGINAL["read"](model, batch, states=states), -1, dims=1)


def end_not_scored(batch, rows):
    part = ORIGINAL["select"](batch, rows)
    columns = torch.arange(part.completion_mask.shape[1])
    keep = columns < (part.lengths - 1).clamp(min=1).unsqueeze(1)
    return rollout.RolloutBatch(**{**vars(part), "completion_mask": keep})


def last_micro_batch_lost(lengths, *, budget, prompt_tokens=0):
    pieces = ORIGINAL["split"](lengths, budget=budget, prompt_tokens=prompt_tokens)
    return pieces[:-1] if len(pieces) > 1 else pieces


def cache_of_rows_that_left(model, **room):
    cache = ORIGINAL["new_cache"](model, **room)
    select = cache.batch_select_indices
    cache.batch_select_indices = lambda keep: select(torch.arange(len(keep)))
    return cache


def entropy_is_surprise(logits, uniforms, settings):
    token, logp, _ = ORIGINAL["draw"](logits, uniforms, settings)
    return token, logp, -logp


def one_number_for_all_rows(logits, uniforms, settings):
    return ORIGINAL["draw"](logits, uniforms[:1].expand_as(uniforms), settings)


def penalty_is_a_bonus(rewards, penalties, completion_mask):
    return ORIGINAL["token_rewards"](rewards, -penalties, completion_mask)


def reward_in_the_last_column(rewards, penalties, completion_mask):
    paid = -penalties
    return torch.cat([paid[:, :-1], paid[:, -1:] + rewards.unsqueeze(1)], dim=1)


def divergence_from_samples(policy, ref_policy, batch, **kwargs):
    ref_logprobs, _ = ORIGINAL["compare"](policy, ref_policy, batch, **kwargs)
    return ref_logprobs, batch.old_logprobs - ref_logprobs


def divergence_reversed(policy, ref_policy, batch, **kwargs):
    ref_logprobs, _ = ORIGINAL["compare"](policy, ref_policy, batch, **kwargs)
    swapped = ORIGINAL["compare"](ref_policy, policy, batch, **kwargs)[1]
    return ref_logprobs, swapped


def running_mean_knows_this_batch(self, batch, token_rewards):
    judged, memory = ORIGINAL["judging"](self, batch, token_rewards)
    if "mean" in memory:
        judged = token_rewards.sum(1) - memory["mean"]
    return judged, memory


def learned_value_knows_this_batch(self, batch, token_rewards):
    judged, memory = ORIGINAL["judging"](self, batch, token_rewards)
    if "values" in memory:
        before, self.state.memory = self.state.memory, memory
        judged, _ = ORIGINAL["judging"](self, batch, token_rewards)
        self.state.memory = before
    return judged, memory


def groups_split_over_processes(self, everything):
    return everything[self.rank :: self.count]


def each_process_for_itself(self, mine):
    return mine


def its_own_rewards_twice(self, mine):
    return torch.cat([mine] * self.count)


def mean_over_processes(self, mine):
    return self.accelerator.reduce(mine, "sum") / self.count if self.accelerator else mine


MUTANTS = [
    Mutant("helpers.train.Loop.credit", normaliser_over_kept_rows, LOOP),
    Mutant("helpers.train.Loop.credit", divided_by_all_tokens, LOOP),
    Mutant("helpers.train.Loop.credit", divided_by_each_length, LOOP),
    Mutant("helpers.train.Loop.credit", mean_of_each_micro_batch, LOOP),
    Mutant("helpers.train.Loop.credit", zero_rows_skipped_by_reward, LOOP),
    Mutant("helpers.train.Loop.credit", gradients_of_the_last_step_kept, LOOP),
    Mutant("helpers.train.Loop.credit", uphill_is_downhill, LOOP),
    Mutant("helpers.scoring.SharedPrompts.backward", prompts_read_without_gradient, LOOP),
    Mutant("helpers.scoring.SharedPrompts.logits", prompts_mixed_up, LOOP),
    Mutant("helpers.scoring.score", scored_at_temperature_one, LOOP),
    Mutant("helpers.rollout.read", logits_one_position_late, LOOP),
    Mutant("helpers.scoring.select", end_not_scored, LOOP),
    Mutant("helpers.scoring.split", last_micro_batch_lost, LOOP),
    Mutant("helpers.decoding.new_cache", cache_of_rows_that_left, ROWS),
    Mutant("helpers.rollout.draw", entropy_is_surprise, ROWS),
    Mutant("helpers.rollout.draw", one_number_for_all_rows, ROWS),
    Mutant("helpers.scoring.token_rewards", penalty_is_a_bonus, LOOP),
    Mutant("helpers.scoring.token_rewards", reward_in_the_last_column, COMPARE),
    Mutant("helpers.scoring.against_reference", divergence_from_samples, LOOP),
    Mutant("helpers.scoring.against_reference", divergence_reversed, LOOP),
    Mutant("helpers.train.Loop.compare", running_mean_knows_this_batch, COMPARE),
    Mutant("helpers.train.Loop.compare", learned_value_knows_this_batch, COMPARE),
    Mutant("helpers.processes.Processes.share", groups_split_over_processes, COMPARE),
    Mutant("helpers.processes.Processes.gather", its_own_rewards_twice, COMPARE),
    Mutant("helpers.processes.Processes.add", each_process_for_itself, COMPARE),
    Mutant("helpers.processes.Processes.add", mean_over_processes, COMPARE),
]
