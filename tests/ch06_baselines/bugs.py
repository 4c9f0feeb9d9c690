"""Seeded bugs in advantages, in the exact moments of estimators and in the baselines."""

import dataclasses

import torch

from course.exact import baselines, gradients
from helpers import advantages
from tests.mutant import Mutant

ORIGINAL = {
    "leave_one_out": advantages.leave_one_out,
    "gae": advantages.gae,
    "of_groups": gradients.of_groups,
    "of_terms": gradients.of_terms,
    "exact_values": baselines.exact_values,
    "table_problem": baselines.table_problem,
    "with_independent": baselines.with_independent,
    "average": baselines.average,
    "running_mean": advantages.running_mean,
    "judged": baselines.Member.judged,
}
GROUPS, MOMENTS = "helpers/test_advantages.py", "exact/test_gradients.py"
FAMILY = "exact/test_baselines.py"


def batch_mean_for_leave_one_out(rewards):
    return rewards - rewards.mean(-1, keepdim=True)


def divides_the_others_by_k(rewards):
    return rewards - (rewards.sum(-1, keepdim=True) - rewards) / rewards.shape[-1]


def mean_over_all_prompts(rewards):
    return rewards - (rewards.sum() - rewards) / (rewards.numel() - 1)


def group_mean_over_all_prompts(rewards):
    return rewards - rewards.mean()


def z_score_with_k(rewards, *, epsilon=1e-4):
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.std(-1, keepdim=True, correction=0) + epsilon)


def epsilon_inside_the_root(rewards, *, epsilon=1e-4):
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.var(-1, keepdim=True) + epsilon).sqrt()


def z_score_not_centred(rewards, *, epsilon=1e-4):
    return rewards / (rewards.std(-1, keepdim=True) + epsilon)


def z_score_over_the_batch(rewards, *, epsilon=1e-4):
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.std() + epsilon)


def gae_swaps_gamma_and_lambda(token_rewards, values, completion_mask, *, gamma=1.0, lam=1.0):
    return ORIGINAL["gae"](token_rewards, values, completion_mask, gamma=lam, lam=gamma)


def gae_without_lambda(token_rewards, values, completion_mask, *, gamma=1.0, lam=1.0):
    return ORIGINAL["gae"](token_rewards, values, completion_mask, gamma=gamma, lam=1.0)


def gae_bootstraps_past_the_end(token_rewards, values, completion_mask, *, gamma=1.0, lam=1.0):
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    errors = token_rewards + gamma * after - values
    errors = errors.masked_fill(~completion_mask, 0.0)
    return advantages.rewards_to_go(errors, completion_mask, gamma=gamma * lam)


def gae_trace_with_lambda_alone(token_rewards, values, completion_mask, *, gamma=1.0, lam=1.0):
    kept = values.masked_fill(~completion_mask, 0.0)
    after = torch.cat([kept[:, 1:], torch.zeros_like(kept[:, :1])], dim=1)
    errors = token_rewards.masked_fill(~completion_mask, 0.0) + gamma * after - kept
    return advantages.rewards_to_go(errors, completion_mask, gamma=lam)


def best_constant_is_the_mean_reward(problem):
    return float(problem.probability @ problem.rewards)


def best_constant_with_lengths_not_squares(problem):
    weight = problem.probability * problem.scores.norm(dim=-1)
    return float(weight @ problem.rewards / weight.sum())


def share_out_forgets_empty_kinds(group_size, kinds):
    rows = gradients.itertools.product(range(1, group_size + 1), repeat=kinds)
    kept = [row for row in rows if sum(row) == group_size]
    return torch.tensor(kept or [[group_size] + [0] * (kinds - 1)])


def multinomial_forgotten(problem, judge, *, group_size):
    """Each way to share out counts the same number of groups."""
    rewards, kind = problem.rewards.unique(return_inverse=True)
    counts = gradients.share_out(group_size, len(rewards)).double()
    share = torch.zeros_like(rewards).index_add_(0, kind, problem.probability)
    chance = torch.special.xlogy(counts, share).sum(-1).exp()
    found = ORIGINAL["of_groups"](problem, judge, group_size=group_size)
    return dataclasses.replace(found, mean=found.mean * chance.sum(), variance=found.variance)


def variance_not_divided_by_the_group(problem, judge, *, group_size):
    found = ORIGINAL["of_groups"](problem, judge, group_size=group_size)
    return dataclasses.replace(found, variance=found.variance * group_size)


def compressed_by_dropping_columns(problem):
    size = min(problem.word_scores.shape)
    return dataclasses.replace(problem, word_scores=problem.word_scores[:, :size])


def values_weigh_texts_equally(problem, num_actions):
    flat = torch.full_like(problem.probability, 1 / len(problem.probability))
    return ORIGINAL["exact_values"](dataclasses.replace(problem, probability=flat), num_actions)


def temperature_only_when_sampling(table, prompt, *, temperature=1.0, reward=None):
    found = ORIGINAL["table_problem"](table, prompt, temperature=temperature, reward=reward)
    at_one = ORIGINAL["table_problem"](table, prompt, reward=reward)
    return dataclasses.replace(found, word_scores=at_one.word_scores)


def baselines_noise_forgotten(problem, *, mean, variance, count):
    return ORIGINAL["with_independent"](problem, mean=mean, variance=0.0, count=count)


def average_divides_the_variance_once(parts):
    found = ORIGINAL["average"](parts)
    return dataclasses.replace(found, variance=found.variance * len(parts))


def excess_of_the_next_state(problem, values):
    rows = problem.word_scores.shape[0]
    state = problem.moves.clamp(min=0) // (rows // len(values))
    after = torch.cat([values[state][:, 1:], problem.rewards[:, None]], dim=1)
    return (problem.rewards[:, None] - after).masked_fill(problem.moves < 0, 0.0)


def state_baseline_is_v(problem, num_actions):
    return ORIGINAL["exact_values"](problem, num_actions)[0]


def running_mean_starts_at_zero(past, new):
    return ORIGINAL["running_mean"](torch.zeros(()) if past is None else past, new)


def judged_by_what_the_batch_has_taught(self, problem, rows, known):
    if self is not baselines.FAMILY["prompt_running_mean"]:
        return ORIGINAL["judged"](self, problem, rows, known)
    taught = advantages.running_mean(known.memory, problem.rewards[rows])
    return problem.rewards[rows] - taught


MUTANTS = [
    Mutant("helpers.advantages.leave_one_out", batch_mean_for_leave_one_out, (GROUPS,)),
    Mutant("helpers.advantages.leave_one_out", divides_the_others_by_k, (GROUPS,)),
    Mutant("helpers.advantages.leave_one_out", mean_over_all_prompts, (GROUPS,)),
    Mutant("helpers.advantages.minus_group_mean", group_mean_over_all_prompts, (GROUPS,)),
    Mutant("helpers.advantages.group_z_score", z_score_with_k, (GROUPS,)),
    Mutant("helpers.advantages.group_z_score", epsilon_inside_the_root, (GROUPS,)),
    Mutant("helpers.advantages.group_z_score", z_score_not_centred, (GROUPS,)),
    Mutant("helpers.advantages.group_z_score", z_score_over_the_batch, (GROUPS,)),
    Mutant("helpers.advantages.gae", gae_swaps_gamma_and_lambda, (GROUPS,)),
    Mutant("helpers.advantages.gae", gae_without_lambda, (GROUPS,)),
    Mutant("helpers.advantages.gae", gae_bootstraps_past_the_end, (GROUPS,)),
    Mutant("helpers.advantages.gae", gae_trace_with_lambda_alone, (GROUPS,)),
    Mutant("course.exact.gradients.best_constant", best_constant_is_the_mean_reward, (FAMILY,)),
    Mutant(
        "course.exact.gradients.best_constant", best_constant_with_lengths_not_squares, (FAMILY,)
    ),
    Mutant("course.exact.gradients.share_out", share_out_forgets_empty_kinds, (MOMENTS,)),
    Mutant("course.exact.gradients.of_groups", multinomial_forgotten, (MOMENTS,)),
    Mutant("course.exact.gradients.of_groups", variance_not_divided_by_the_group, (MOMENTS,)),
    Mutant(
        "course.exact.gradients.GradientProblem.turned", compressed_by_dropping_columns, (FAMILY,)
    ),
    Mutant("course.exact.baselines.exact_values", values_weigh_texts_equally, (FAMILY,)),
    Mutant("course.exact.baselines.table_problem", temperature_only_when_sampling, (FAMILY,)),
    Mutant("course.exact.baselines.with_independent", baselines_noise_forgotten, (FAMILY,)),
    Mutant("course.exact.baselines.average", average_divides_the_variance_once, (FAMILY,)),
    Mutant("course.exact.baselines.excess", excess_of_the_next_state, (FAMILY,)),
    Mutant("course.exact.baselines.best_state_baseline", state_baseline_is_v, (FAMILY,)),
    Mutant("helpers.advantages.running_mean", running_mean_starts_at_zero, (FAMILY,)),
    Mutant("course.exact.baselines.Member.judged", judged_by_what_the_batch_has_taught, (FAMILY,)),
]
