"""V, Q and A by backward induction, against hand tables, policy enumeration and brute force."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from course.exact import oracle, tables, values
from course.worlds import tiny_models, word_world
from helpers import models

# Two words, two steps. Written `a` or `.`; a completion is one of  `.`  `a .`  `a a`.
PAYS = {".": 1.0, "a .": 3.0, "a a": -2.0}
SMALL = word_world.TokenWorld(
    ("a", "."), ("p",), 2, lambda prompts, texts: [PAYS[x] for x in texts]
)


def small_policy() -> tables.TablePolicy:
    """π(a) = 0.25 at the start, π(a | a) = 0.4."""
    return tables.table_policy(torch.tensor([[0.25, 0.75], [0.4, 0.6]], dtype=torch.float64), SMALL)


def same(got, expected, tolerance=1e-12) -> None:
    assert len(got) == len(expected)
    for level, truth in zip(got, expected, strict=True):
        truth = torch.as_tensor(truth, dtype=torch.float64)
        assert_close(level.detach(), truth, rtol=0, atol=tolerance)


def test_the_two_word_two_step_world_by_hand():
    rewards = values.transition_rewards(SMALL, "p")
    same(rewards, [[[0, 1]], [[-2, 3]]])
    # V(a) = 0.4 · (−2) + 0.6 · 3 = 1.0; Q(start, a) = γ V(a) = 0.5; V(start) = 0.25 · 0.5 + 0.75
    found = values.policy_values(small_policy(), SMALL, "p", gamma=0.5)
    same(found.q_value, [[[0.5, 1]], [[-2, 3]]])
    same(found.value, [[0.875], [1.0]])
    same(found.advantage, [[[-0.375, 0.125]], [[-3, 2]]])
    assert float(found.start.detach()) == pytest.approx(0.875)
    # V*(a) = 3; Q*(start, a) = γ · 3: 1.5 beats the 1 of stopping, at γ = 0.2 it does not
    best = values.optimal_values(SMALL, "p", gamma=0.5)
    same(best.q_value, [[[1.5, 1]], [[-2, 3]]])
    same(best.value, [[1.5], [3]])
    assert values.optimal_values(SMALL, "p", gamma=0.2).start == 1.0
    same(values.reach_probabilities(small_policy(), SMALL, "p"), [[1.0], [0.25]])


def test_shaping_the_small_world_by_hand():
    rewards = values.transition_rewards(SMALL, "p")
    potential = values.stopping_rewards(rewards, SMALL)
    same(potential, [[1.0], [3.0]])
    # r' = r + γ Φ(s') − Φ(s), Φ(end) = 0: 0 + 0.5 · 3 − 1; 1 + 0 − 1; −2 + 0 − 3; 3 + 0 − 3
    same(values.shape_rewards(rewards, potential, gamma=0.5), [[[0.5, 0]], [[-5, 0]]])


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_the_epsilon_greedy_limit_is_the_q_of_its_own_policy(world, epsilon):
    """A fixed point: Q_ε is Q^π of the policy that is ε-greedy with respect to Q_ε."""
    for prompt, gamma in (("praise", 1.0), ("pan", 0.7)):
        found = values.epsilon_greedy_values(world, prompt, epsilon=epsilon, gamma=gamma)
        policy = tables.epsilon_greedy(torch.cat(found.q_value), world, epsilon=epsilon)
        with torch.no_grad():
            own = values.policy_values(policy, world, prompt, gamma=gamma)
        same(found.q_value, own.q_value)
        same(found.value, own.value)
        best = values.optimal_values(world, prompt, gamma=gamma)
        if epsilon == 0:
            same(found.q_value, best.q_value)
        assert epsilon == 0 or found.start < best.start
    with pytest.raises(ValueError, match="epsilon"):
        values.epsilon_greedy_values(world, "praise", epsilon=1.1)
    with pytest.raises(ValueError, match="gamma"):
        values.epsilon_greedy_values(world, "praise", epsilon=0.1, gamma=2.0)


def brute_force(policy, world, prompt, gamma, prefix=()):
    """E[γ^(steps left) R] by recursion over texts, one call of the policy a state."""
    ids = torch.tensor([[world.prompt_id(prompt), *prefix]])
    probs = policy(ids)[0, -1].softmax(-1)
    q_values = []
    for word in range(world.num_actions):
        longer = (*prefix, word)
        if word in world.eos_ids or len(longer) == world.max_length:
            q_values.append(world.reward([prompt], [world.decode(longer)])[0])
        else:
            q_values.append(gamma * float(brute_force(policy, world, prompt, gamma, longer)[0]))
    return probs @ torch.tensor(q_values, dtype=torch.float64), q_values


@pytest.mark.parametrize("gamma", [1.0, 0.7, 0.0])
def test_against_recursion_over_texts(world, table, gamma):
    with torch.no_grad():
        for prompt in world.prompts:
            found = values.policy_values(table, world, prompt, gamma=gamma)
            for prefix in ((), (2,), (0, 1), (0, 1, 3), (3, 3, 0)):
                rank = sum(w * 4 ** (len(prefix) - 1 - i) for i, w in enumerate(prefix))
                value, q_values = brute_force(table, world, prompt, gamma, prefix)
                assert_close(found.value[len(prefix)][rank], value)
                assert found.q_value[len(prefix)][rank].tolist() == pytest.approx(q_values)


def test_a_transformer_and_worlds_of_other_shapes(other_world):
    policy = models.as_policy(tiny_models.word_transformer(other_world, seed=2))
    with torch.no_grad():
        for gamma in (1.0, 0.6):
            found = values.policy_values(policy, other_world, "p", gamma=gamma)
            assert_close(found.start, brute_force(policy, other_world, "p", gamma)[0])


def test_the_start_value_is_the_objective_and_has_its_gradient(world):
    model = tiny_models.word_transformer(world, seed=3)
    for prompt in world.prompts:
        found = values.policy_values(models.as_policy(model), world, prompt)
        expected = oracle.objective(models.as_policy(model), world, prompt)
        assert_close(found.start, expected, rtol=0, atol=1e-12)
        gradient = torch.autograd.grad(found.start, model.transformer.wte.weight)[0]
        truth = oracle.objective_gradient(
            models.as_policy(model), [model.transformer.wte.weight], world, prompt
        )
        assert_close(gradient.reshape(-1), truth, rtol=0, atol=1e-10)


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.3])
def test_optimal_values_against_the_enumeration_of_policies(gamma):
    """Every deterministic policy of a world with 3 words and 3 steps: 3^7 of them."""
    world = word_world.TokenWorld(
        ("a", "b", "."),
        ("p",),
        3,
        lambda prompts, texts: [len(x) - 3.0 * x.count("b a") + x.count("a b ") for x in texts],
    )
    rewards = values.transition_rewards(world, "p")
    flat = torch.cat(rewards)  # 1 + 2 + 4 states
    best = values.optimal_values(world, "p", gamma=gamma)
    choices = torch.tensor(list(itertools.product(range(3), repeat=7)))  # (2187, 7)
    value = torch.zeros(len(choices), 7, dtype=torch.float64)
    for state in reversed(range(7)):
        word = choices[:, state]
        onward = torch.zeros(len(choices), dtype=torch.float64)
        if state < 3:
            child = (2 * state + 1 + word).clamp(max=6)
            onward = value.gather(1, child[:, None])[:, 0].masked_fill(word == 2, 0.0)
        value[:, state] = flat[state][word] + gamma * onward
    assert_close(torch.cat(best.value), value.max(dim=0).values, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 10_000), gamma=st.floats(0.0, 1.0))
def test_bellman_shaping_and_zero_mean_advantages(seed, gamma):
    world = word_world.WORD_WORLD
    generator = torch.Generator().manual_seed(seed)
    policy = tables.TablePolicy(world, std=1.0, generator=generator)
    rewards = [torch.randn(4**k, 5, generator=generator).double() for k in range(4)]
    potential = [torch.randn(4**k, generator=generator).double() for k in range(4)]
    before = [level.clone() for level in (*rewards, *potential)]
    with torch.no_grad():
        plain = values.policy_values(policy, world, "pan", gamma=gamma, rewards=rewards)
        shaped_rewards = values.shape_rewards(rewards, potential, gamma=gamma)
        shaped = values.policy_values(policy, world, "pan", gamma=gamma, rewards=shaped_rewards)
        probs = [p.exp() for p in oracle.state_logprobs(policy, world, "pan")]
    for p, advantage in zip(probs, plain.advantage, strict=True):
        assert_close((p * advantage).sum(-1), torch.zeros(len(p)).double(), rtol=0, atol=1e-10)
    same(shaped.advantage, plain.advantage, 1e-10)
    same(shaped.value, [v - p for v, p in zip(plain.value, potential, strict=True)], 1e-10)
    best = values.optimal_values(world, "pan", gamma=gamma, rewards=rewards)
    shaped_best = values.optimal_values(world, "pan", gamma=gamma, rewards=shaped_rewards)
    assert all((b >= v - 1e-12).all() for b, v in zip(best.value, plain.value, strict=True))
    same(shaped_best.advantage, best.advantage, 1e-10)
    assert all(torch.equal(a, b) for a, b in zip(before, (*rewards, *potential), strict=True))


def test_reach_is_the_probability_of_the_prefix(world, table):
    every = oracle.enumerate_completions(world)
    with torch.no_grad():
        probs = oracle.completion_logprobs(table, world, "pan").exp()
        reach = values.reach_probabilities(table, world, "pan")
    for prefix in ([], [3], [1, 0], [2, 2, 1]):
        begins = [world.encode(text)[: len(prefix)] == prefix for text in every.texts]
        longer = torch.tensor(begins) & (every.lengths > len(prefix))
        assert_close(reach[len(prefix)][oracle.rank(prefix, 4)], probs[longer].sum())


def test_nonsense_is_refused(world, table):
    for gamma in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            values.policy_values(table, world, "praise", gamma=gamma)
    rewards = values.transition_rewards(world, "praise")
    with pytest.raises(ValueError, match="rewards must"):
        values.policy_values(table, world, "praise", rewards=rewards[:-1])
    with pytest.raises(ValueError, match="potential must"):
        values.shape_rewards(rewards, values.stopping_rewards(rewards, world)[:-1])
    endless = word_world.TokenWorld(("a", "b"), ("p",), 2, lambda p, c: [0.0] * len(c), ends=False)
    with pytest.raises(ValueError, match="no ending word"):
        values.stopping_rewards(values.transition_rewards(endless, "p"), endless)
