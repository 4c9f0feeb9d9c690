"""Advantages of groups and GAE: hand numbers, properties, and the oracle."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from course.exact import baselines, gradients, tables
from helpers import advantages, logprobs

NUMBERS = st.lists(st.floats(-5, 5), min_size=4, max_size=4)
PAIR_OF_GROUPS = st.lists(NUMBERS, min_size=2, max_size=2)


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_leave_one_out_by_hand():
    # 4 − (1+1+0)/3 = 10/3; 1 − (4+1+0)/3 = −2/3; 0 − 6/3 = −2. The second row is 100 higher.
    rewards = tensor([[4, 1, 1, 0], [104, 101, 101, 100]])
    expected = tensor([[10 / 3, -2 / 3, -2 / 3, -2]] * 2)
    assert_close(advantages.leave_one_out(rewards), expected)
    assert_close(advantages.leave_one_out(tensor([5, 3])), tensor([2, -2]))


def test_minus_group_mean_by_hand():
    # means 1.5 and 2
    found = advantages.minus_group_mean(tensor([[4, 1, 1, 0], [2, 2, 2, 2]]))
    assert_close(found, tensor([[2.5, -0.5, -0.5, -1.5], [0, 0, 0, 0]]))
    assert advantages.minus_group_mean(tensor([7])).tolist() == [0.0]


def test_group_z_score_by_hand():
    # mean 2, deviations 2, 0, −2; variance (4+0+4)/2 = 4; std 2, plus ε = 0.5
    found = advantages.group_z_score(tensor([4, 2, 0]), epsilon=0.5)
    assert_close(found, tensor([0.8, 0.0, -0.8]))
    # a row with ten times the spread has the same z-scores, up to ε
    both = advantages.group_z_score(tensor([[4, 2, 0], [140, 120, 100]]), epsilon=1e-9)
    assert_close(both, tensor([[1, 0, -1], [1, 0, -1]]))
    assert advantages.group_z_score(tensor([3, 3, 3])).tolist() == [0, 0, 0]


@given(PAIR_OF_GROUPS, st.floats(-50, 50))
def test_properties_of_groups(rows, shift):
    rewards = tensor(rows)
    for judge in advantages.GROUP_COMPARISONS.values():
        kept, found = rewards.clone(), judge(rewards)
        assert torch.equal(rewards, kept), "the argument was changed"
        assert float(found.sum(-1).abs().max()) < 1e-6, "a group sums to 0"
        moved = torch.stack([rewards[0] + shift, rewards[1]])
        assert_close(judge(moved)[1], found[1], msg="another prompt's rewards matter")
        if judge is not advantages.group_z_score:  # ε and rounding of tiny spreads
            assert_close(judge(moved), found, rtol=0, atol=1e-9)
            assert_close(judge(2 * rewards), 2 * found)
        assert_close(judge(rewards.flip(-1)), found.flip(-1))
    assert_close(
        advantages.minus_group_mean(rewards), (1 - 1 / 4) * advantages.leave_one_out(rewards)
    )


def test_what_cannot_be_compared_is_refused():
    for judge in (advantages.leave_one_out, advantages.group_z_score):
        with pytest.raises(ValueError, match="K ≥ 2"):
            judge(torch.ones(3, 1))
    for rewards in (torch.tensor(1.0), torch.ones(2, 0)):
        with pytest.raises(ValueError, match=r"K ≥ 1|shape \(\.\.\., K\)"):
            advantages.minus_group_mean(rewards)
    with pytest.raises(ValueError, match="epsilon"):
        advantages.group_z_score(torch.ones(4), epsilon=0.0)


def test_gae_by_hand():
    # γ = 1/2, λ = 1/2. V = (1, 2, 3), rewards (0, 0, 4), end after three words:
    # δ = (0 + 1 − 1, 0 + 1.5 − 2, 4 − 3) = (0, −0.5, 1); trace γλ = 1/4:
    # A_3 = 1, A_2 = −0.5 + 0.25 = −0.25, A_1 = 0 − 0.0625
    rewards, values = tensor([[0, 0, 4, 9], [4, 9, 9, 9]]), tensor([[1, 2, 3, 8], [3, 8, 8, 8]])
    mask = logprobs.mask_from_lengths(torch.tensor([3, 1]), 4)
    found = advantages.gae(rewards, values, mask, gamma=0.5, lam=0.5)
    assert_close(found, tensor([[-0.0625, -0.25, 1, 0], [1, 0, 0, 0]]))
    # γ = 1/2, λ = 1: return minus V: (4/4 − 1, 4/2 − 2, 4 − 3)
    found = advantages.gae(rewards, values, mask, gamma=0.5, lam=1.0)
    assert_close(found, tensor([[0, 0, 1, 0], [1, 0, 0, 0]]))
    # γ = 1, λ = 0: δ alone: (2 − 1, 3 − 2, 4 − 3)
    found = advantages.gae(rewards, values, mask, gamma=1.0, lam=0.0)
    assert_close(found, tensor([[1, 1, 1, 0], [1, 0, 0, 0]]))


@given(NUMBERS, NUMBERS, st.integers(1, 4), st.floats(0, 1), st.floats(0, 1))
def test_gae_against_its_definition(rewards, values, length, gamma, lam):
    mask = logprobs.mask_from_lengths(torch.tensor([length]), 4)
    found = advantages.gae(tensor([rewards]), tensor([values]), mask, gamma=gamma, lam=lam)[0]
    v = [*values[:length], 0.0]
    errors = [rewards[t] + gamma * v[t + 1] - v[t] for t in range(length)]
    for t in range(length):
        expected = sum((gamma * lam) ** (k - t) * errors[k] for k in range(t, length))
        assert float(found[t]) == pytest.approx(expected, abs=1e-9)
    assert found[length:].tolist() == [0.0] * (4 - length)


def test_gae_refuses_what_does_not_fit():
    mask = torch.ones(2, 3, dtype=torch.bool)
    numbers = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="lam"):
        advantages.gae(numbers, numbers, mask, lam=1.5)
    with pytest.raises(ValueError, match="shape"):
        advantages.gae(numbers, numbers[:, :2], mask)
    with pytest.raises(ValueError, match="bool"):
        advantages.gae(numbers, numbers, mask.long())


def test_the_oracle_knows_what_is_unbiased(world, table):
    """E[ĝ] is ∇J for leave-one-out, (1 − 1/K) ∇J with the own reward, for GAE with exact V."""
    problem = baselines.table_problem(table, "praise")
    for size in (2, 5):
        found = gradients.of_groups(problem, advantages.leave_one_out, group_size=size)
        assert_close(found.mean, problem.truth, rtol=0, atol=1e-10)
        found = gradients.of_groups(problem, advantages.minus_group_mean, group_size=size)
        assert_close(found.mean, (1 - 1 / size) * problem.truth, rtol=0, atol=1e-10)
    mask = problem.moves >= 0
    rewards = torch.zeros(341, 4, dtype=torch.float64)
    rewards[torch.arange(341), mask.sum(-1) - 1] = problem.rewards
    exact_v, _ = baselines.exact_values(problem, 5)
    wrong = exact_v + torch.randn(85, generator=torch.Generator().manual_seed(1)).double()
    for values, lam, unbiased in (
        (exact_v, 0.0, True),
        (exact_v, 0.6, True),
        (wrong, 1.0, True),
        (wrong, 0.6, False),
    ):
        along = values[problem.moves.clamp(min=0) // 5]
        judged = advantages.gae(rewards, along, mask, lam=lam)
        bias = gradients.of_terms(problem, problem.combine(judged)).bias
        assert (bias < 1e-10) == unbiased, (lam, bias)


def test_an_expert_is_hurt_by_comparing(world):
    """The table policy that writes “.” at once with probability 0.97, paid 1 for it."""
    table = tables.TablePolicy(world)
    with torch.no_grad():
        table.logits[0, 0] = torch.tensor([0.0075] * 4 + [0.97]).log()
    paid = lambda prompts, texts: [float(text == ".") for text in texts]  # noqa: E731
    problem = baselines.table_problem(table, "praise", reward=paid)
    none, loo = (
        gradients.of_groups(problem, judge, group_size=4).variance
        for judge in (lambda r: r, advantages.leave_one_out)
    )
    assert loo > 10 * none


def test_compare_by_hand():
    groups = tensor([[4, 1], [2, 2]])
    assert torch.equal(advantages.compare("none", groups), groups)
    assert advantages.compare("constant", groups, level=1.5).tolist() == [[2.5, -0.5], [0.5, 0.5]]
    level = tensor(3)
    assert advantages.compare("running_mean", groups, level=level).tolist() == [[1, -2], [-1, -1]]
    assert advantages.compare("leave_one_out", groups, level=99.0).tolist() == [[3, -3], [0, 0]]
    assert advantages.compare("group_mean", groups).tolist() == [[1.5, -1.5], [0, 0]]


def test_the_running_mean_keeps_nine_tenths():
    assert float(advantages.running_mean(None, tensor([[1, 3], [5, 7]]))) == 4
    assert float(advantages.running_mean(tensor(10), tensor([1, 3]))) == pytest.approx(9.2)


def test_the_z_score_adds_a_ten_thousandth():
    found = advantages.group_z_score(tensor([4, 2, 0]))
    assert_close(found, tensor([2 / 2.0001, 0, -2 / 2.0001]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_is_what_differs_by_eight_units_in_the_last_place(dtype):
    unit = torch.finfo(dtype).eps
    rows = [[1, 1 + 8 * unit, 1], [1, 1 + 9 * unit, 1], [-3, -3, -3], [0, 0, 0], [7, 7, 6]]
    rewards = torch.tensor([rows, rows[::-1]], dtype=dtype)  # (2, 5, 3): any number of dimensions
    found = advantages.zero_where_equal(torch.full_like(rewards, 5.0), rewards)
    assert found[..., 0].tolist() == [[0, 5, 0, 0, 5], [5, 0, 0, 5, 0]]
    assert torch.equal(found, found[..., :1].expand_as(found))


def test_one_word_and_padding_on_the_left():
    one = advantages.rewards_to_go(tensor([[3]]), torch.ones(1, 1, dtype=torch.bool))
    assert one.tolist() == [[3]]
    late = torch.tensor([[False, True, True]])
    assert advantages.rewards_to_go(tensor([[9, 1, 2]]), late).tolist() == [[0, 3, 2]]


def test_gae_is_the_reward_to_go_minus_v_unless_it_is_told_otherwise():
    rewards, values = tensor([[1, 2, 4]]), tensor([[0.5, 0.25, 1]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = advantages.gae(rewards, values, mask)
    assert torch.equal(found, advantages.rewards_to_go(rewards, mask) - values)


def test_each_group_is_measured_by_itself():
    unit = torch.finfo(torch.float64).eps
    rewards = tensor([[1, 1 + 9 * unit, 1], [1e9, 1e9, 1e9], [7, 7, 7], [1, 2, 3]])
    found = advantages.zero_where_equal(torch.full_like(rewards, 5.0), rewards)
    assert found[:, 0].tolist() == [5, 0, 0, 5]
