"""Seeded bugs in values, shaping and the tables that act on them."""

import torch

from course.exact import oracle, tables, values
from tests.mutant import Mutant

ORIGINAL = {
    "policy_values": values.policy_values,
    "optimal_values": values.optimal_values,
    "q_values": values._q_values,
    "shape_rewards": values.shape_rewards,
    "transition_rewards": values.transition_rewards,
    "reach": values.reach_probabilities,
}


def gamma_forgotten(reward, following, gamma):
    return ORIGINAL["q_values"](reward, following, 1.0)


def gamma_on_the_reward_too(reward, following, gamma):
    scaled = reward if following is None else gamma * reward
    return ORIGINAL["q_values"](scaled, following, gamma)


def bootstraps_past_the_end(reward, following, gamma):
    q_value = ORIGINAL["q_values"](reward, following, gamma)
    if following is not None:
        n = len(following) // len(reward)
        q_value = torch.cat(
            [q_value[:, :n], q_value[:, n:] + gamma * following.view(-1, n).mean(-1, True)], dim=1
        )
    return q_value


def optimal_values_are_the_uniform_policys(world, prompt, *, gamma=1.0, rewards=None):
    uniform = tables.TablePolicy(world)
    with torch.no_grad():
        return ORIGINAL["policy_values"](uniform, world, prompt, gamma=gamma, rewards=rewards)


def values_of_the_best_policy(policy, world, prompt, *, gamma=1.0, rewards=None):
    return ORIGINAL["optimal_values"](world, prompt, gamma=gamma, rewards=rewards)


def values_of_the_first_prompt(policy, world, prompt, *, gamma=1.0, rewards=None):
    return ORIGINAL["policy_values"](policy, world, world.prompts[0], gamma=gamma, rewards=rewards)


def advantage_is_q(self):
    return self.q_value


def advantage_turned(self):
    pairs = zip(self.q_value, self.value, strict=True)
    return [v.unsqueeze(1) - q for q, v in pairs]


def cut_texts_are_not_paid(world, prompt, *, reward=None):
    levels = ORIGINAL["transition_rewards"](world, prompt, reward=reward)
    levels[-1][:, : world.num_continuing] = 0.0
    return levels


def potential_kept_at_the_end(rewards, potential, *, gamma=1.0):
    shaped = ORIGINAL["shape_rewards"](rewards, potential, gamma=gamma)
    last = shaped[-1] + gamma * potential[-1].unsqueeze(1)
    return [*shaped[:-1], last]


def potential_not_discounted(rewards, potential, *, gamma=1.0):
    return ORIGINAL["shape_rewards"](rewards, potential, gamma=1.0)


def shaping_turned(rewards, potential, *, gamma=1.0):
    return ORIGINAL["shape_rewards"](rewards, [-p for p in potential], gamma=gamma)


def reach_of_the_uniform_policy(policy, world, prompt):
    return ORIGINAL["reach"](tables.TablePolicy(world), world, prompt)


def epsilon_spares_the_greedy_word(q_table, world, *, epsilon=0.0):
    best = torch.nn.functional.one_hot(q_table.argmax(-1), q_table.shape[-1]).double()
    others = (1 - best) / (q_table.shape[-1] - 1)
    return tables.table_policy((1 - epsilon) * best + epsilon * others, world)


def first_word_forgotten(levels, path):
    return [levels[k][oracle.rank(path[1:k], 4), word] for k, word in enumerate(path)]


def digits_read_backwards(path, num_continuing):
    return sum(word * num_continuing**k for k, word in enumerate(path))


MUTANTS = [
    Mutant("course.exact.values._q_values", gamma_forgotten, ("exact/test_values.py",)),
    Mutant("course.exact.values._q_values", gamma_on_the_reward_too, ("exact/test_values.py",)),
    Mutant("course.exact.values._q_values", bootstraps_past_the_end, ("exact/test_values.py",)),
    Mutant(
        "course.exact.values.optimal_values",
        optimal_values_are_the_uniform_policys,
        ("exact/test_values.py",),
    ),
    Mutant(
        "course.exact.values.policy_values", values_of_the_best_policy, ("exact/test_values.py",)
    ),
    Mutant(
        "course.exact.values.policy_values", values_of_the_first_prompt, ("exact/test_values.py",)
    ),
    Mutant(
        "course.exact.values.Values.advantage", property(advantage_is_q), ("exact/test_values.py",)
    ),
    Mutant(
        "course.exact.values.Values.advantage",
        property(advantage_turned),
        ("exact/test_values.py",),
    ),
    Mutant(
        "course.exact.values.transition_rewards", cut_texts_are_not_paid, ("exact/test_values.py",)
    ),
    Mutant(
        "course.exact.values.shape_rewards", potential_kept_at_the_end, ("exact/test_values.py",)
    ),
    Mutant(
        "course.exact.values.shape_rewards", potential_not_discounted, ("exact/test_values.py",)
    ),
    Mutant("course.exact.values.shape_rewards", shaping_turned, ("exact/test_values.py",)),
    Mutant(
        "course.exact.values.reach_probabilities",
        reach_of_the_uniform_policy,
        ("exact/test_values.py",),
    ),
    Mutant(
        "course.exact.tables.epsilon_greedy",
        epsilon_spares_the_greedy_word,
        ("exact/test_tables.py",),
    ),
    Mutant("course.exact.oracle.along", first_word_forgotten, ("exact/test_oracle.py",)),
    Mutant("course.exact.oracle.rank", digits_read_backwards, ("exact/test_oracle.py",)),
]
