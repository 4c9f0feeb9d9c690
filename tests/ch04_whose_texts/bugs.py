"""Seeded bugs in learning from texts, importance sampling and exact moments."""

import torch

from course.exact import importance, off_policy, td, values
from tests.mutant import Mutant

ORIGINAL = {
    "log_ratios": importance.log_ratios,
    "of_mean": off_policy.of_mean,
    "per_decision_returns": importance.per_decision_returns,
    "temporal_difference": td.temporal_difference,
    "monte_carlo": td.monte_carlo,
    "write_texts": td.write_texts,
    "update_q": td.update_q,
    "of_self_normalised": off_policy.of_self_normalised,
    "off_policy": off_policy.off_policy,
}


# ------------------------------------------------------------------------- learning from texts


def sarsa_takes_the_maximum(row, word, state):
    return max(row)


def q_learning_follows_the_text(row, word, state):
    return row[word]


def expected_sarsa_forgets_that_the_best_is_drawn_too(epsilon):
    def mean(row, word, state):
        others = sum(row) - max(row)
        return (1 - epsilon) * max(row) + epsilon * others / max(1, len(row) - 1)

    return mean


def bootstrap_past_the_end(q_table, visits, text, bootstrap, *, gamma, power):
    for t, (state, word, reward, following) in enumerate(text):
        after = -1 if following is None else following  # Python reads the last row
        next_word = text[(t + 1) % len(text)][1]
        target = reward + gamma * bootstrap(q_table[after], next_word, after)
        visits[state][word] += 1
        step = visits[state][word] ** -power
        q_table[state][word] += step * (target - q_table[state][word])


def q_learning_without_gamma(q_table, visits, text, bootstrap, *, gamma, power):
    ORIGINAL["update_q"](q_table, visits, text, bootstrap, gamma=1.0, power=power)


def td_without_gamma(record, num_states, *, gamma=1.0, power=1.0, at=None):
    return ORIGINAL["temporal_difference"](record, num_states, gamma=1.0, power=power, at=at)


def monte_carlo_of_the_first_word_only(record, num_states, *, gamma=1.0, power=1.0, at=None):
    value, visits = torch.zeros(num_states).double(), [0] * num_states
    for text in record:
        total = sum(gamma**t * step[2] for t, step in enumerate(text))
        visits[text[0][0]] += 1
        value[text[0][0]] += (total - value[text[0][0]]) / visits[text[0][0]] ** power
    return value.unsqueeze(0).expand(len(at or [0]), -1)


def monte_carlo_forwards(record, num_states, *, gamma=1.0, power=1.0, at=None):
    turned = [text[::-1] for text in record]
    return ORIGINAL["monte_carlo"](turned, num_states, gamma=gamma, power=power, at=at)


def epsilon_greedy_without_the_share_of_the_best(row, epsilon, u):
    best = row.index(max(row))
    others = [word for word in range(len(row)) if word != best]
    return others[int(u / epsilon * len(others))] if u < epsilon else best


def drafts_where_none_were_asked_for(tree, probabilities, count, *, generator, anywhere=False):
    return ORIGINAL["write_texts"](
        tree, probabilities, count, generator=generator, anywhere=not anywhere
    )


def limit_without_the_uniform_share(world, prompt, *, epsilon, gamma=1.0, rewards=None):
    return values.optimal_values(world, prompt, gamma=gamma, rewards=rewards)


# -------------------------------------------------------------------------- importance sampling


def log_ratio_for_ratio(log_ratios):
    return log_ratios.sum(-1)


def ratio_of_logprobs(target_logprobs, behavior_logprobs, completion_mask):
    target = target_logprobs.masked_fill(~completion_mask, -1.0)
    return target / behavior_logprobs.masked_fill(~completion_mask, -1.0)


def ratio_inverted(target_logprobs, behavior_logprobs, completion_mask):
    return -ORIGINAL["log_ratios"](target_logprobs, behavior_logprobs, completion_mask)


def last_word_dropped(target_logprobs, behavior_logprobs, completion_mask):
    found = ORIGINAL["log_ratios"](target_logprobs, behavior_logprobs, completion_mask)
    last = completion_mask & ~torch.cat(
        [completion_mask[:, 1:], torch.zeros_like(completion_mask[:, :1])], dim=1
    )
    return found.masked_fill(last, 0.0)


def mask_by_multiplying(target_logprobs, behavior_logprobs, completion_mask):
    return (target_logprobs - behavior_logprobs) * completion_mask


def prefix_without_the_word_itself(log_ratios):
    before = log_ratios.cumsum(-1)[:, :-1].exp()
    return torch.cat([torch.ones_like(log_ratios[:, :1]), before], dim=1)


def mean_over_words(log_ratios):
    return log_ratios.mean(-1).exp()


def discount_one_word_late(prefix_ratios, token_rewards, completion_mask, *, gamma=1.0):
    original = ORIGINAL["per_decision_returns"]
    return gamma * original(prefix_ratios, token_rewards, completion_mask, gamma=gamma)


def self_normalised_divided_by_n(ratios, returns):
    return (ratios * returns).mean()


def ordinary_divided_by_the_sum(ratios, returns):
    return (ratios * returns).sum() / ratios.sum()


def sample_size_of_normalised_squares(ratios):
    return ratios.sum() / (ratios**2).sum()


def sample_size_that_overflows(ratios):
    return ratios.sum() ** 2 / (ratios**2).sum()


# ------------------------------------------------------------------------------- exact moments


def variance_of_one_term(probability, terms, *, count, truth):
    return ORIGINAL["of_mean"](probability, terms, count=1, truth=truth)


def second_moment_for_variance(probability, terms, *, count, truth):
    mean = float(probability @ terms)
    return off_policy.Moments(mean, truth, float(probability @ terms**2) / count)


def ratio_of_means(probability, ratios, returns, *, count, truth, step=0.1):
    mean = float((probability @ (ratios * returns)) / (probability @ ratios))
    found = ORIGINAL["of_self_normalised"](probability, ratios, returns, count=count, truth=truth)
    return off_policy.Moments(mean, truth, found.variance)


def only_one_text_counts(probability, ratios, returns, *, count, truth, step=0.1):
    """The cross terms of two texts are missing in the square."""
    found = ORIGINAL["of_self_normalised"](probability, ratios, returns, count=count, truth=truth)
    second = float(probability @ (ratios * returns) ** 2) / count
    return off_policy.Moments(found.mean, truth, second - found.mean**2)


def truth_of_the_behavior(target, behavior, world, prompt, *, rewards=None, gamma=1.0):
    found = ORIGINAL["off_policy"](target, behavior, world, prompt, rewards=rewards, gamma=gamma)
    truth = float(found.probability @ found.returns)
    return off_policy.OffPolicy(
        found.probability, found.log_ratio, found.mask, found.token_rewards, gamma, truth
    )


LEARNING, IMPORTANCE, MOMENTS = (
    ("exact/test_td.py",),
    ("exact/test_importance.py",),
    ("exact/test_off_policy.py",),
)

MUTANTS = [
    Mutant("course.exact.td.next_word_value", sarsa_takes_the_maximum, LEARNING),
    Mutant("course.exact.td.best_value", q_learning_follows_the_text, LEARNING),
    Mutant(
        "course.exact.td.greedy_mean", expected_sarsa_forgets_that_the_best_is_drawn_too, LEARNING
    ),
    Mutant("course.exact.td.update_q", bootstrap_past_the_end, LEARNING),
    Mutant("course.exact.td.update_q", q_learning_without_gamma, LEARNING),
    Mutant("course.exact.td.temporal_difference", td_without_gamma, LEARNING),
    Mutant("course.exact.td.monte_carlo", monte_carlo_of_the_first_word_only, LEARNING),
    Mutant("course.exact.td.monte_carlo", monte_carlo_forwards, LEARNING),
    Mutant("course.exact.td.greedy_word", epsilon_greedy_without_the_share_of_the_best, LEARNING),
    Mutant("course.exact.td.write_texts", drafts_where_none_were_asked_for, LEARNING),
    Mutant(
        "course.exact.values.epsilon_greedy_values",
        limit_without_the_uniform_share,
        ("exact/test_values.py",),
    ),
    Mutant("course.exact.importance.sequence_ratios", log_ratio_for_ratio, IMPORTANCE),
    Mutant("course.exact.importance.sequence_ratios", mean_over_words, IMPORTANCE),
    Mutant("course.exact.importance.log_ratios", ratio_of_logprobs, IMPORTANCE),
    Mutant("course.exact.importance.log_ratios", ratio_inverted, IMPORTANCE),
    Mutant("course.exact.importance.log_ratios", last_word_dropped, IMPORTANCE),
    Mutant("course.exact.importance.log_ratios", mask_by_multiplying, IMPORTANCE),
    Mutant("course.exact.importance.prefix_ratios", prefix_without_the_word_itself, IMPORTANCE),
    Mutant("course.exact.importance.per_decision_returns", discount_one_word_late, IMPORTANCE),
    Mutant("course.exact.importance.self_normalised", self_normalised_divided_by_n, IMPORTANCE),
    Mutant("course.exact.importance.ordinary", ordinary_divided_by_the_sum, IMPORTANCE),
    Mutant(
        "course.exact.importance.effective_sample_size",
        sample_size_of_normalised_squares,
        IMPORTANCE,
    ),
    Mutant("course.exact.importance.effective_sample_size", sample_size_that_overflows, IMPORTANCE),
    Mutant("course.exact.off_policy.of_mean", variance_of_one_term, MOMENTS),
    Mutant("course.exact.off_policy.of_mean", second_moment_for_variance, MOMENTS),
    Mutant("course.exact.off_policy.of_self_normalised", ratio_of_means, MOMENTS),
    Mutant("course.exact.off_policy.of_self_normalised", only_one_text_counts, MOMENTS),
    Mutant("course.exact.off_policy.off_policy", truth_of_the_behavior, MOMENTS),
]
