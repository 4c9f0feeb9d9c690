"""Seeded bugs in the surrogate, the reward-to-go, the exact moments, and the ascent."""

import torch

from course.exact import ascent, gradients, oracle
from helpers import advantages, logprobs, losses
from tests.mutant import Mutant

ORIGINAL = {
    "reinforce_loss": losses.reinforce_loss,
    "rewards_to_go": advantages.rewards_to_go,
    "of_terms": gradients.of_terms,
    "combine": gradients.GradientProblem.combine,
    "score": ascent.score,
    "draw": ascent.draw,
    "estimate": ascent.estimate,
    "turned": gradients.GradientProblem.turned,
}


def judged_by_word(judged, mask):
    return judged[:, None].expand(mask.shape) if judged.ndim == 1 else judged


def downhill(token_logprobs, judged, mask):
    return -ORIGINAL["reinforce_loss"](token_logprobs, judged, mask)


def mean_over_own_words(token_logprobs, judged, mask):
    lengths = mask.sum(-1, keepdim=True)
    return ORIGINAL["reinforce_loss"](token_logprobs / lengths, judged, mask)


def mean_over_all_words(token_logprobs, judged, mask):
    share = len(mask) / mask.sum()
    return ORIGINAL["reinforce_loss"](token_logprobs * share, judged, mask)


def sum_over_texts(token_logprobs, judged, mask):
    return len(mask) * ORIGINAL["reinforce_loss"](token_logprobs, judged, mask)


def product_of_two_means(token_logprobs, judged, mask):
    scores = logprobs.sequence_logprobs(token_logprobs, mask)
    return -scores.mean() * judged.detach().mean()


def judgement_forgotten(token_logprobs, judged, mask):
    return ORIGINAL["reinforce_loss"](token_logprobs, torch.ones_like(judged), mask)


def judgement_carries_gradient(token_logprobs, judged, mask):
    judged = judged_by_word(judged, mask).masked_fill(~mask, 0.0)
    return -(judged * token_logprobs.masked_fill(~mask, 0.0)).sum(-1).mean()


def last_word_dropped(token_logprobs, judged, mask):
    keep = torch.arange(mask.shape[1]) < mask.sum(-1, keepdim=True) - 1
    return ORIGINAL["reinforce_loss"](token_logprobs * keep, judged, mask)


def padding_is_scored(token_logprobs, judged, mask):
    judged = judged_by_word(judged, mask).detach()
    return -(judged * token_logprobs).sum(-1).mean()


def what_was_paid_so_far(token_rewards, mask, *, gamma=1.0):
    return token_rewards.masked_fill(~mask, 0.0).cumsum(1).masked_fill(~mask, 0.0)


def discount_forgotten(token_rewards, mask, *, gamma=1.0):
    return ORIGINAL["rewards_to_go"](token_rewards, mask)


def own_reward_missing(token_rewards, mask, *, gamma=1.0):
    whole = ORIGINAL["rewards_to_go"](token_rewards, mask, gamma=gamma)
    return (whole - token_rewards).masked_fill(~mask, 0.0)


def padding_is_paid(token_rewards, mask, *, gamma=1.0):
    every = torch.ones_like(mask)
    return ORIGINAL["rewards_to_go"](token_rewards, every, gamma=gamma).masked_fill(~mask, 0.0)


def whole_return_for_every_word(token_rewards, mask, *, gamma=1.0):
    first = ORIGINAL["rewards_to_go"](token_rewards, mask, gamma=gamma)[:, :1]
    return first.expand(mask.shape).masked_fill(~mask, 0.0)


def not_divided_by_the_count(problem, terms, *, count=1, probability=None):
    return ORIGINAL["of_terms"](problem, terms, probability=probability)


def mean_square_for_variance(problem, terms, *, count=1, probability=None):
    found = ORIGINAL["of_terms"](problem, terms, count=count, probability=probability)
    square = float(found.mean @ found.mean)
    return gradients.GradientMoments(
        found.mean, found.truth, found.variance + square / count, found.variance_along
    )


def texts_weighted_equally(problem, terms, *, count=1, probability=None):
    even = torch.full_like(problem.probability, 1 / len(problem.probability))
    return ORIGINAL["of_terms"](problem, terms, count=count, probability=even)


def ending_not_scored(self, weights):
    lengths = (self.moves >= 0).sum(-1, keepdim=True)
    keep = torch.arange(self.moves.shape[1]) < lengths - 1
    return ORIGINAL["combine"](self, weights * keep)


def coordinates_cut(self):
    found = ORIGINAL["turned"](self)
    return gradients.GradientProblem(
        found.probability, found.rewards, found.word_scores[:, :50], found.moves
    )


def scored_in_the_same_place(policy, world, prompt, rows):
    every = oracle.enumerate_completions(world)
    mask = logprobs.mask_from_lengths(every.lengths[rows], world.max_length)
    ids = every.completion_ids[rows]
    first = torch.full((len(rows), 1), world.prompt_id(prompt))
    logits = policy(torch.cat([first, ids[:, :-1]], dim=1))
    logits = torch.cat([logits[:, 1:], logits[:, -1:]], dim=1)
    return logprobs.token_logprobs(logits, ids).masked_fill(~mask, 0.0), mask


def prompt_forgotten(policy, world, prompt, rows):
    return ORIGINAL["score"](policy, world, world.prompts[0], rows)


def drawn_at_another_temperature(policy, world, prompt, count, *, generator):
    colder = lambda ids: policy(ids) / 0.7  # noqa: E731
    return ORIGINAL["draw"](colder, world, prompt, count, generator=generator)


def steps_downhill(policy, parameters, world, prompt, rows, *, reward=None):
    return -ORIGINAL["estimate"](policy, parameters, world, prompt, rows, reward=reward)


def step_in_the_wrong_direction(theta, change):
    start = 0
    with torch.no_grad():
        for tensor in theta:
            tensor -= change[start : start + tensor.numel()].view_as(tensor)
            start += tensor.numel()


LOSS, TO_GO = ("helpers/test_losses.py",), ("helpers/test_rewards_to_go.py",)
MOMENTS, ASCENT = ("exact/test_gradients.py",), ("exact/test_ascent.py",)

MUTANTS = [
    Mutant("helpers.losses.reinforce_loss", downhill, LOSS),
    Mutant("helpers.losses.reinforce_loss", mean_over_own_words, LOSS),
    Mutant("helpers.losses.reinforce_loss", mean_over_all_words, LOSS),
    Mutant("helpers.losses.reinforce_loss", sum_over_texts, LOSS),
    Mutant("helpers.losses.reinforce_loss", product_of_two_means, LOSS),
    Mutant("helpers.losses.reinforce_loss", judgement_forgotten, LOSS),
    Mutant("helpers.losses.reinforce_loss", judgement_carries_gradient, LOSS),
    Mutant("helpers.losses.reinforce_loss", last_word_dropped, LOSS),
    Mutant("helpers.losses.reinforce_loss", padding_is_scored, LOSS),
    Mutant("helpers.advantages.rewards_to_go", what_was_paid_so_far, TO_GO),
    Mutant("helpers.advantages.rewards_to_go", discount_forgotten, TO_GO),
    Mutant("helpers.advantages.rewards_to_go", own_reward_missing, TO_GO),
    Mutant("helpers.advantages.rewards_to_go", padding_is_paid, TO_GO),
    Mutant("helpers.advantages.rewards_to_go", whole_return_for_every_word, TO_GO),
    Mutant("course.exact.gradients.of_terms", not_divided_by_the_count, MOMENTS),
    Mutant("course.exact.gradients.of_terms", mean_square_for_variance, MOMENTS),
    Mutant("course.exact.gradients.of_terms", texts_weighted_equally, MOMENTS),
    Mutant("course.exact.gradients.GradientProblem.combine", ending_not_scored, MOMENTS),
    Mutant("course.exact.gradients.GradientProblem.turned", coordinates_cut, ASCENT),
    Mutant("course.exact.ascent.score", scored_in_the_same_place, ASCENT),
    Mutant("course.exact.ascent.score", prompt_forgotten, ASCENT),
    Mutant("course.exact.ascent.draw", drawn_at_another_temperature, ASCENT),
    Mutant("course.exact.ascent.estimate", steps_downhill, ASCENT),
    Mutant("course.exact.ascent._step", step_in_the_wrong_direction, ASCENT),
]
