"""Importance sampling: hand numbers, enumeration of every text, masks and refusals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from course.exact import importance, oracle, tables
from helpers import logprobs

NAN, INF = torch.nan, torch.inf
TARGET = torch.tensor([[0.5, 0.2, 0.4], [0.1, 0.5, NAN]]).double().log()
BEHAVIOR = torch.tensor([[0.25, 0.4, 0.8], [0.2, 0.125, NAN]]).double().log()
MASK = torch.tensor([[True, True, True], [True, True, False]])
REWARDS = torch.tensor([[1.0, 0.0, -2.0], [0.0, 3.0, NAN]]).double()


def test_ratios_by_hand():
    log_ratio = importance.log_ratios(TARGET, BEHAVIOR, MASK)
    # 0.5/0.25 = 2, 0.2/0.4 = 0.5, 0.4/0.8 = 0.5;   0.1/0.2 = 0.5, 0.5/0.125 = 4
    assert_close(log_ratio.exp(), torch.tensor([[2, 0.5, 0.5], [0.5, 4, 1]]).double())
    prefix = importance.prefix_ratios(log_ratio)
    assert_close(prefix, torch.tensor([[2, 1, 0.5], [0.5, 2, 2]]).double())
    assert_close(importance.sequence_ratios(log_ratio), torch.tensor([0.5, 2]).double())


def test_estimates_by_hand():
    log_ratio = importance.log_ratios(TARGET, BEHAVIOR, MASK)
    rho, prefix = importance.sequence_ratios(log_ratio), importance.prefix_ratios(log_ratio)
    returns = importance.discounted_returns(REWARDS, MASK, gamma=0.5)
    assert_close(returns, torch.tensor([1 - 2 * 0.25, 3 * 0.5]).double())  # 0.5 and 1.5
    terms = importance.per_decision_returns(prefix, REWARDS, MASK, gamma=0.5)
    # 2·1 + 0.25·0.5·(−2) = 1.75;   0.5·2·3 = 3
    assert_close(terms, torch.tensor([1.75, 3]).double())
    # (0.5·0.5 + 2·1.5) / 2 = 1.625; the same sum over 2.5 = 1.3; 2.5² / (0.25 + 4) = 25/17
    assert float(importance.ordinary(rho, returns)) == pytest.approx(1.625)
    assert float(importance.self_normalised(rho, returns)) == pytest.approx(1.3)
    assert float(importance.effective_sample_size(rho)) == pytest.approx(25 / 17)


def test_arguments_stay_as_they_are_and_nan_stays_outside():
    given = [x.clone() for x in (TARGET, BEHAVIOR, REWARDS)]
    log_ratio = importance.log_ratios(TARGET, BEHAVIOR, MASK)
    importance.per_decision_returns(importance.prefix_ratios(log_ratio), REWARDS, MASK)
    assert_close([TARGET, BEHAVIOR, REWARDS], given, equal_nan=True)
    assert log_ratio.isfinite().all() and log_ratio[1, 2] == 0


def test_the_gradient_of_a_ratio_is_the_ratio_times_that_of_the_logprob():
    target = TARGET.clone().nan_to_num(0.0).requires_grad_(True)
    rho = importance.sequence_ratios(importance.log_ratios(target, BEHAVIOR, MASK))
    rho.sum().backward()
    assert_close(target.grad, rho.detach()[:, None] * MASK)


def test_what_the_target_cannot_write_has_ratio_zero():
    target = TARGET.clone()
    target[0, 1] = -INF
    log_ratio = importance.log_ratios(target, BEHAVIOR, MASK)
    rho, prefix = importance.sequence_ratios(log_ratio), importance.prefix_ratios(log_ratio)
    assert rho[0] == 0 and prefix[0].tolist() == pytest.approx([2, 0, 0])
    assert importance.per_decision_returns(prefix, REWARDS, MASK)[0] == pytest.approx(2.0)
    none = torch.zeros(3).double()
    assert importance.self_normalised(none, torch.ones(3).double()) == 0
    assert importance.effective_sample_size(none) == 0


def test_expectations_over_all_texts_are_those_of_the_target(world, generator):
    target, behavior = (tables.TablePolicy(world, std=1.0, generator=generator) for _ in range(2))
    every = oracle.enumerate_completions(world)
    mask = logprobs.mask_from_lengths(every.lengths, 4)
    column = torch.full((341, 1), world.prompt_id("pan"))
    ids = torch.cat([column, every.completion_ids], dim=1)
    with torch.no_grad():
        scored = [
            logprobs.next_token_logprobs(torch.cat([p(ids[:, :4]), p(ids[:, :4])[:, -1:]], 1), ids)
            for p in (target, behavior)
        ]
        mu = oracle.completion_logprobs(behavior, world, "pan").exp()
        truth = oracle.objective(target, world, "pan")
    log_ratio = importance.log_ratios(*scored, mask)
    rho, prefix = importance.sequence_ratios(log_ratio), importance.prefix_ratios(log_ratio)
    reward = oracle.rewards(world, "pan")
    assert float(mu @ rho) == pytest.approx(1.0, abs=1e-10)
    assert_close(mu @ (rho * reward), truth, rtol=0, atol=1e-10)
    # a reward for each word, drawn at random for each state: the same for both estimators
    at_end = torch.arange(4) == every.lengths[:, None] - 1
    terms = importance.per_decision_returns(prefix, at_end * reward[:, None], mask)
    assert_close(terms, rho * reward, rtol=0, atol=1e-12)
    lasting = torch.where(ids[:, 1:] == 2, 1.0, 0.0).double()  # 1 for each `good`
    by_word = importance.per_decision_returns(prefix, lasting, mask, gamma=0.7)
    whole = rho * importance.discounted_returns(lasting, mask, gamma=0.7)
    assert_close(mu @ by_word, mu @ whole, rtol=0, atol=1e-12)
    assert (by_word - whole).abs().max() > 0.1


POSSIBLE = st.just(0.0) | st.floats(1e-6, 1e6)  # squares of much smaller ones are 0


@given(
    ratios=st.lists(POSSIBLE, min_size=1, max_size=20),
    seed=st.integers(0, 100),
)
def test_the_self_normalised_estimate_stays_in_range(ratios, seed):
    rho = torch.tensor(ratios, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    returns = torch.randn(len(rho), generator=generator).double()
    size = float(importance.effective_sample_size(rho))
    if rho.sum() == 0:
        assert size == 0
        return
    estimate = importance.self_normalised(rho, returns)
    assert returns.min() - 1e-9 <= estimate <= returns.max() + 1e-9
    assert 1 - 1e-9 <= size <= len(rho) + 1e-9
    assert_close(importance.self_normalised(3 * rho, returns), estimate)


def test_effective_size_of_equal_and_of_lonely_weights_without_overflow():
    for scale in (1.0, 1e-30, 1e30):
        equal = torch.full((8,), scale)  # float32: 1e60 would be infinite
        assert float(importance.effective_sample_size(equal)) == pytest.approx(8)
        lonely = torch.tensor([scale, 0.0, 0.0])
        assert float(importance.effective_sample_size(lonely)) == pytest.approx(1)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r"shape \(B, T\)"):
        importance.log_ratios(TARGET[:1], BEHAVIOR, MASK)
    with pytest.raises(ValueError, match="bool"):
        importance.log_ratios(TARGET, BEHAVIOR, MASK.long())
    with pytest.raises(ValueError, match="empty"):
        importance.log_ratios(TARGET, BEHAVIOR, torch.zeros_like(MASK))
    with pytest.raises(ValueError, match="must be finite"):
        importance.log_ratios(TARGET, BEHAVIOR, torch.ones_like(MASK))
    impossible = BEHAVIOR.clone()
    impossible[0, 1] = -INF
    with pytest.raises(ValueError, match="word 1 of completion 0"):
        importance.log_ratios(TARGET, impossible, MASK)
    with pytest.raises(ValueError, match=r"shape \(B, T\)"):
        importance.per_decision_returns(torch.ones(2), REWARDS, MASK)
    with pytest.raises(ValueError, match=r"shape \(B, T\)"):
        importance.discounted_returns(REWARDS[:, :2], MASK)
    for bad in (
        (torch.ones(2), torch.ones(3)),
        (torch.ones(0), torch.ones(0)),
        (torch.ones(2, 2), torch.ones(2, 2)),
    ):
        for estimate in (importance.ordinary, importance.self_normalised):
            with pytest.raises(ValueError, match=r"shape \(B,\)|B ≥ 1"):
                estimate(*bad)
    with pytest.raises(ValueError, match=r"shape \(B,\)|B ≥ 1"):
        importance.effective_sample_size(torch.ones(0))
