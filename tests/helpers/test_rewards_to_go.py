"""Reward-to-go, against hand numbers, the values of the tree, and the past that drops out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from course.exact import gradients, tables, values
from helpers import advantages, logprobs


def test_by_hand():
    rewards = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, 99.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    # γ = ½: 3 · −2 + 3/2 = −½ · 1 − ¼ = ¾; and 5 · 4 + 5/2 = 6½; the 99 is padding
    expected = torch.tensor([[0.75, -0.5, 3.0], [6.5, 5.0, 0.0]])
    assert_close(advantages.rewards_to_go(rewards, mask, gamma=0.5), expected)
    # γ = 1: 3 · 1 · 2, and 5 · 9
    whole = torch.tensor([[2.0, 1.0, 3.0], [9.0, 5.0, 0.0]])
    assert_close(advantages.rewards_to_go(rewards, mask), whole)


def test_a_reward_at_the_end_is_the_same_for_every_word():
    rewards = torch.tensor([[0.0, 0.0, 2.0, torch.nan]])
    mask = torch.tensor([[True, True, True, False]])
    assert_close(advantages.rewards_to_go(rewards, mask), torch.tensor([[2.0, 2.0, 2.0, 0.0]]))


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    gamma=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_it_is_the_double_sum(lengths, gamma, seed):
    rewards = torch.randn(len(lengths), 5, generator=torch.Generator().manual_seed(seed)).double()
    mask = logprobs.mask_from_lengths(torch.tensor(lengths), 5)
    kept = rewards.clone()
    found = advantages.rewards_to_go(rewards, mask, gamma=gamma)
    for i, length in enumerate(lengths):
        for t in range(5):
            terms = (gamma ** (k - t) * float(rewards[i, k]) for k in range(t, length))
            assert float(found[i, t]) == pytest.approx(sum(terms) if t < length else 0.0)
    assert torch.equal(rewards, kept)


@pytest.mark.parametrize("gamma", [1.0, 0.6])
def test_its_mean_given_state_and_word_is_q(world, gamma):
    """E[G_t | s, a] = Q(s, a): by sums over all texts through s and a."""
    table = tables.TablePolicy(world, std=0.8, generator=torch.Generator().manual_seed(1))
    problem = gradients.gradient_problem(table, [table.logits], world, "praise")
    rewards = values.transition_rewards(world, "praise")
    paid = values.shape_rewards(rewards, values.stopping_rewards(rewards, world), gamma=gamma)
    with torch.no_grad():
        q_value = values.policy_values(table, world, "praise", gamma=gamma, rewards=paid).q_value
    inside = problem.moves >= 0
    to_go = advantages.rewards_to_go(problem.at_moves(torch.cat(paid)), inside, gamma=gamma)
    weight = problem.probability[:, None].expand_as(to_go)[inside]
    total = torch.zeros(425, dtype=torch.float64)
    reach = total.index_add(0, problem.moves[inside], weight)
    total = total.index_add(0, problem.moves[inside], weight * to_go[inside])
    assert_close(total / reach, torch.cat(q_value).reshape(-1), rtol=0, atol=1e-10)


def test_the_past_drops_out_of_the_mean_and_only_of_the_mean(world):
    table = tables.TablePolicy(world)
    problem = gradients.gradient_problem(table, [table.logits], world, "praise")
    count = torch.tensor([0.0, 0.0, 1.0, -1.0, 0.0], dtype=torch.float64)
    paid = problem.at_moves(torch.cat([count.expand(4**k, 5) for k in range(4)]))
    to_go = advantages.rewards_to_go(paid, problem.moves >= 0)
    whole = paid.sum(1, keepdim=True).expand(-1, 4)
    pair = [gradients.of_terms(problem, problem.combine(w)) for w in (whole, to_go)]
    assert_close(pair[0].mean, pair[1].mean, rtol=0, atol=1e-12)
    assert pair[1].variance < 0.7 * pair[0].variance


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"shape \(B, T\)"):
        advantages.rewards_to_go(torch.ones(2, 3), torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="must be bool"):
        advantages.rewards_to_go(torch.ones(2, 2), torch.ones(2, 2))
