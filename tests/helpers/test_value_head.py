"""The learned V(s) by hand: what is kept, what is forgotten, and what the fit says."""

import pytest
import torch
from torch.testing import assert_close

from helpers import models, rollout, value_head
from tests.helpers import example_loops


@pytest.fixture(scope="module")
def sampled():
    lm = models.load(models.REVIEWS_MODEL)
    batch = rollout.sample(
        lm.model,
        *lm.encode(example_loops.PROMPTS[:3]),
        rollout.SamplingSettings(lm.eos_ids, 12, group_size=3),
        generator=torch.Generator().manual_seed(0),
    )
    return lm.model, batch


def test_features_are_the_states_that_the_tokens_were_predicted_from(sampled):
    model, batch = sampled
    found = value_head.features(model, batch)
    assert found.shape == (*batch.completion_ids.shape, model.config.n_embd + 1)
    assert bool((found[..., -1] == 1)[batch.completion_mask].all()), "the last feature is a 1"
    for row in range(len(batch.lengths)):  # each text alone, without padding
        prompt = batch.prompt_ids[row][batch.prompt_mask[row]]
        text = batch.completion_ids[row, : int(batch.lengths[row])]
        with torch.no_grad():
            states = model(
                input_ids=torch.cat([prompt, text])[None], output_hidden_states=True
            ).hidden_states[-1][0]
            # What the state says through the head is what the token was drawn from.
            logits = model.lm_head(found[row, : len(text), :-1])
        assert_close(found[row, : len(text), :-1], states[len(prompt) - 1 : -1], atol=1e-5, rtol=0)
        scores = logits.log_softmax(-1).gather(-1, text[:, None])[:, 0]
        assert_close(scores, batch.old_logprobs[row, : len(text)], atol=1e-5, rtol=0)


@pytest.mark.parametrize("budget", [1, 20, 41, 10_000])
def test_a_budget_changes_no_feature(sampled, budget):
    model, batch = sampled
    whole, parts = (
        value_head.features(model, batch),
        value_head.features(model, batch, budget=budget),
    )
    mask = batch.completion_mask
    assert_close(parts[mask], whole[mask], atol=1e-5, rtol=0)


STATES = torch.tensor([[[1.0, 1.0], [2.0, 1.0]], [[3.0, 1.0], [9.0, 1.0]]])  # (B, T, D + 1)
RETURNS = torch.tensor([[1.0, 2.0], [3.0, 100.0]])
MASK = torch.tensor([[True, True], [True, False]])


def test_the_sums_of_least_squares_by_hand():
    # h = 1, 2, 3 with G = 1, 2, 3 (the fourth is outside): Σ h² = 14, Σ h = 6, Σ 1 = 3,
    # Σ h G = 14, Σ G = 6.
    wanted = torch.tensor([[14.0, 6.0, 14.0], [6.0, 3.0, 6.0]], dtype=torch.float64)
    found = value_head.normal_equations(STATES, RETURNS, MASK)
    assert found.dtype == torch.float64 and torch.equal(found, wanted)


def test_a_line_through_the_returns_is_found_up_to_the_ridge():
    # G = h: slope 1 and level 0, but for the ridge ρ = 0.001 · (14 + 3) / 2 on the slope alone.
    # With it (14 + ρ) w + 6 b = 14 and 6 w + 3 b = 6, so b = 2 − 2 w and w = 2 / (2 + ρ).
    ridge = 1e-3 * (14 + 3) / 2
    slope = 2 / (2 + ridge)
    level = 2 - 2 * slope
    memory = value_head.normal_equations(STATES, RETURNS, MASK)
    found = value_head.predict(memory, STATES)
    assert found.dtype == torch.float64
    assert_close(found, slope * STATES[..., 0].double() + level, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_a_feature_that_is_always_zero_leaves_the_fit_solvable(scale):
    states = torch.stack(
        [scale * STATES[..., 0].double(), torch.zeros(2, 2).double(), torch.ones(2, 2).double()], -1
    )
    memory = value_head.normal_equations(states, RETURNS.double(), MASK)
    found = value_head.predict(memory, states)
    assert_close(found[MASK], RETURNS.double()[MASK], rtol=0, atol=0.01)


def test_what_always_pays_the_same_is_worth_that_and_not_less():
    memory = value_head.normal_equations(STATES, torch.full((2, 2), 3.0), MASK)
    assert_close(value_head.predict(memory, STATES), torch.full((2, 2), 3.0).double())


def test_without_a_memory_everything_is_worth_nothing():
    found = value_head.predict(None, STATES)
    assert found.dtype == torch.float64 and torch.equal(found, torch.zeros(2, 2).double())


def test_a_tenth_is_forgotten_at_each_batch():
    first = torch.ones(2, 3, dtype=torch.float64)
    assert torch.equal(value_head.learn(None, first), first)
    assert_close(value_head.learn(10 * first, 2 * first), 11 * first)  # 0.9 · 10 + 2


def test_advantages_use_the_v_of_before_and_teach_the_next(sampled):
    model, batch = sampled
    mask = batch.completion_mask
    rewards = mask.double() * torch.arange(mask.shape[1]).double()
    judged, sums = value_head.compare(model, batch, rewards, None, lam=1.0)
    togo = (rewards.flip(1).cumsum(1).flip(1)).masked_fill(~mask, 0.0)
    assert_close(judged, togo)  # V is 0 at first, so the advantage is the reward to go
    states = value_head.features(model, batch)
    assert_close(sums, value_head.normal_equations(states, togo, mask))
    again, _ = value_head.compare(model, batch, rewards, sums, lam=1.0)
    value = value_head.predict(sums, states)
    assert_close(again, (togo - value).masked_fill(~mask, 0.0))
    one_step, _ = value_head.compare(model, batch, rewards, sums, lam=0.0)
    following = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], 1)
    ends = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    delta = rewards + following.masked_fill(~ends, 0.0) - value
    assert_close(one_step, delta.masked_fill(~mask, 0.0))


def test_states_have_no_graph_and_a_memory_may_be_float32(sampled):
    model, batch = sampled[:2]
    states = value_head.features(model, batch)
    assert not states.requires_grad
    sums = value_head.normal_equations(states, batch.old_logprobs, batch.completion_mask)
    exact, rounded = (value_head.predict(memory, states) for memory in (sums, sums.float()))
    assert exact.dtype == rounded.dtype == torch.float64
    assert torch.allclose(exact, rounded, rtol=0, atol=0.05)
