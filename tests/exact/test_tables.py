"""The table policy: its numbering of states, its errors, and tabulating another policy."""

import pytest
import torch
from torch.testing import assert_close

from course.exact import oracle, tables
from course.worlds import tiny_models
from helpers import models


def test_every_state_has_its_own_row_in_the_oracles_order(world):
    table = tables.TablePolicy(world)
    assert table.logits.shape == (2, 85, 5)
    with torch.no_grad():
        numbers = torch.arange(2 * 85.0).view(2, 85, 1) * torch.arange(5.0)
        table.logits.copy_(numbers)
    for row, prompt in enumerate(world.prompts):
        levels = torch.cat(oracle.state_logprobs(table, world, prompt))
        assert_close(levels, table.logits[row].log_softmax(-1), rtol=0, atol=1e-12)


def test_by_hand_one_prefix(world):
    # "very good" (ids 1, 2) is the 1 + 4 + (1·4 + 2) = 11th state
    table = tables.TablePolicy(world)
    with torch.no_grad():
        table.logits[1, 11, 3] = 7.0
    logits = table(torch.tensor([[6, 1, 2]]))
    assert logits.shape == (1, 3, 5) and logits[0, 2, 3] == 7.0
    assert logits.abs().sum() == 7.0


def test_a_random_table_is_reproducible_and_needs_a_generator(world):
    draw = lambda: tables.TablePolicy(  # noqa: E731
        world, std=0.5, generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(draw().logits, draw().logits)
    assert 0.4 < draw().logits.std() < 0.6
    with pytest.raises(ValueError, match="generator"):
        tables.TablePolicy(world, std=0.5)


def test_prefixes_that_are_not_in_the_table_are_refused(world):
    table = tables.TablePolicy(world)
    with pytest.raises(ValueError, match="L ≤ T|L ≥ 1"):
        table(torch.zeros(1, 5, dtype=int) + 5)
    with pytest.raises(ValueError, match="prompt id"):
        table(torch.tensor([[0, 1]]))


def test_tabulate_keeps_every_conditional(world):
    policy = models.as_policy(tiny_models.word_transformer(world, seed=2))
    table = tables.tabulate(policy, world)
    for prompt in world.prompts:
        with torch.no_grad():
            expected = oracle.completion_logprobs(policy, world, prompt)
        assert_close(oracle.completion_logprobs(table, world, prompt), expected)


def test_other_worlds(other_world):
    policy = models.as_policy(tiny_models.word_transformer(other_world, seed=2))
    table = tables.tabulate(policy, other_world)
    with torch.no_grad():
        expected = oracle.completion_logprobs(policy, other_world, "p")
    assert_close(oracle.completion_logprobs(table, other_world, "p"), expected)


def test_epsilon_greedy_by_hand(world):
    q_table = torch.zeros(85, 5, dtype=torch.float64)
    q_table[0] = torch.tensor([0.0, 3.0, 1.0, 3.0, -1.0])  # a tie: the first of the best
    with torch.no_grad():
        probs = tables.epsilon_greedy(q_table, world, epsilon=0.2).logits.exp()
    # ε/5 = 0.04 for each word, and 1 − ε = 0.8 more for the best one
    by_hand = torch.tensor([0.04, 0.84, 0.04, 0.04, 0.04], dtype=torch.float64)
    assert_close(probs[0, 0], by_hand, rtol=0, atol=1e-12)
    assert_close(probs[1], probs[0])  # one table for both prompts
    with torch.no_grad():
        greedy = oracle.completion_logprobs(tables.epsilon_greedy(q_table, world), world, "pan")
    assert greedy.exp().max() == 1.0 and greedy.exp().sum() == 1.0
    with pytest.raises(ValueError, match="epsilon"):
        tables.epsilon_greedy(q_table, world, epsilon=1.5)


def test_table_policy_keeps_probabilities_and_refuses_what_is_none(world):
    probs = torch.rand(2, 85, 5, generator=torch.Generator().manual_seed(3)).double()
    probs = probs / probs.sum(-1, keepdim=True)
    with torch.no_grad():
        for row, prompt in enumerate(world.prompts):
            table = tables.table_policy(probs, world)
            levels = torch.cat(oracle.state_logprobs(table, world, prompt))
            assert_close(levels.exp(), probs[row])
    for wrong, message in (
        (probs[0, :84], r"shape \(S, A\) or \(P, S, A\)"),
        (2 * probs, "must be ≤ 1|sum to 1"),
        (probs - 0.5, "must be ≥ 0|sum to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            tables.table_policy(wrong, world)


def test_exploring_by_hand(world, table):
    flat = tables.exploring(table, world, temperature=2.0, epsilon=1.0)
    assert_close(flat.logits.exp(), torch.full_like(flat.logits, 0.2))
    mixed = tables.exploring(table, world, temperature=0.5, epsilon=0.25)
    sharp = table.logits.exp() ** 2  # e^(z / 0.5)
    expected = 0.75 * sharp / sharp.sum(-1, keepdim=True) + 0.25 / 5
    assert_close(mixed.logits.exp(), expected)
    same = tables.exploring(table, world)
    assert_close(same.logits, table.logits.log_softmax(-1))
    for bad in ({"temperature": 0.0}, {"epsilon": 1.2}, {"epsilon": -0.1}):
        with pytest.raises(ValueError, match="temperature must be|epsilon must be"):
            tables.exploring(table, world, **bad)
