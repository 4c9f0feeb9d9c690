"""The REINFORCE surrogate, against hand numbers, the oracle's gradient and its own contract."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from course.exact import ascent, oracle, tables
from course.worlds import tiny_models
from helpers import logprobs, losses, models

ROWS = torch.arange(341)


def policies(world):
    generator = torch.Generator().manual_seed(2)
    table = tables.TablePolicy(world, std=0.7, generator=generator)
    transformer = tiny_models.word_transformer(world, seed=7)
    yield table, [table.logits]
    yield models.as_policy(transformer), list(transformer.parameters())


def flat_gradient(loss, weights):
    grads = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return torch.cat([grad.reshape(-1) for grad in grads])


def test_by_hand():
    half, fifth = math.log(0.5), math.log(0.2)
    token_logprobs = torch.tensor([[half, fifth], [fifth, 0.0]], requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    judged = torch.tensor([2.0, -3.0])
    loss = losses.reinforce_loss(token_logprobs, judged, mask)
    # −(2 · (log ½ + log ⅕) − 3 · log ⅕) / 2: two texts, and no division by their lengths
    assert float(loss.detach()) == pytest.approx(-(2 * (half + fifth) - 3 * fifth) / 2)
    loss.backward()
    # −Â/B on every word inside the mask: −2/2 twice, +3/2 once
    assert_close(token_logprobs.grad, torch.tensor([[-1.0, -1.0], [1.5, 0.0]]))


def test_one_number_a_word():
    token_logprobs = torch.zeros(1, 3, requires_grad=True)
    mask = torch.ones(1, 3, dtype=torch.bool)
    losses.reinforce_loss(token_logprobs, torch.tensor([[1.0, -2.0, 0.5]]), mask).backward()
    assert_close(token_logprobs.grad, torch.tensor([[-1.0, 2.0, -0.5]]))


def test_every_completion_once_gives_the_exact_gradient(world):
    """The batch of all texts, each weighted with its probability: no chance is left."""
    for policy, weights in policies(world):
        for prompt in world.prompts:
            token_logprobs, mask = ascent.score(policy, world, prompt, ROWS)
            probability = oracle.completion_logprobs(policy, world, prompt).exp()
            judged = 341 * probability * oracle.rewards(world, prompt)  # not detached: the loss is
            found = -flat_gradient(losses.reinforce_loss(token_logprobs, judged, mask), weights)
            truth = oracle.objective_gradient(policy, weights, world, prompt)
            assert_close(found, truth, rtol=0, atol=1e-10)


def test_a_constant_reward_has_no_expected_gradient(world):
    """EGLP."""
    for policy, weights in policies(world):
        token_logprobs, mask = ascent.score(policy, world, "pan", ROWS)
        probability = token_logprobs.sum(-1).exp().detach()
        loss = losses.reinforce_loss(token_logprobs, 341 * 7.0 * probability, mask)
        found = flat_gradient(loss, weights)
        assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-10)


def test_finite_differences(world):
    """The gradient of the loss itself: nudge one logit at a time."""
    table = tables.TablePolicy(world, std=0.7, generator=torch.Generator().manual_seed(2))
    rows, judged = torch.tensor([0, 9, 9, 200, 340]), torch.tensor([1.0, -2.0, 0.5, 2.0, -1.0])

    def loss_at(nudge):
        with torch.no_grad():
            table.logits[0, 0, 3] += nudge
            token_logprobs, mask = ascent.score(table, world, "praise", rows)
            value = float(losses.reinforce_loss(token_logprobs, judged.double(), mask))
            table.logits[0, 0, 3] -= nudge
        return value

    token_logprobs, mask = ascent.score(table, world, "praise", rows)
    loss = losses.reinforce_loss(token_logprobs, judged.double(), mask)
    slope = flat_gradient(loss, [table.logits]).view_as(table.logits)[0, 0, 3]
    assert float(slope) == pytest.approx((loss_at(1e-6) - loss_at(-1e-6)) / 2e-6, abs=1e-7)


def test_advantages_are_constants():
    token_logprobs = torch.zeros(2, 2, requires_grad=True)
    baseline = torch.tensor(0.3, requires_grad=True)
    mask = torch.ones(2, 2, dtype=torch.bool)
    loss = losses.reinforce_loss(token_logprobs - 1.0, torch.ones(2) - baseline, mask)
    loss.backward()
    assert baseline.grad is None, "the baseline must not be trained by this loss"


def test_what_is_outside_the_mask_counts_nothing_even_nan():
    mask = torch.tensor([[True, False]])
    for filler in (torch.nan, torch.inf, -torch.inf, 5.0):
        token_logprobs = torch.tensor([[-1.0, filler]], requires_grad=True)
        judged = torch.tensor([[2.0, filler]])
        loss = losses.reinforce_loss(token_logprobs, judged, mask)
        loss.backward()
        assert float(loss.detach()) == 2.0
        assert_close(token_logprobs.grad, torch.tensor([[-2.0, 0.0]]))


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    scale=st.floats(-3, 3),
    seed=st.integers(0, 1000),
)
def test_linear_in_the_advantages_and_a_mean_over_texts(lengths, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    token_logprobs = torch.randn(len(lengths), 5, generator=generator, dtype=torch.float64)
    judged = torch.randn(len(lengths), generator=generator, dtype=torch.float64)
    mask = logprobs.mask_from_lengths(torch.tensor(lengths), 5)
    kept = token_logprobs.clone(), judged.clone(), mask.clone()
    loss = losses.reinforce_loss(token_logprobs, judged, mask)
    assert_close(losses.reinforce_loss(token_logprobs, scale * judged, mask), scale * loss)
    each = [
        losses.reinforce_loss(token_logprobs[k : k + 1], judged[k : k + 1], mask[k : k + 1])
        for k in range(len(lengths))
    ]
    assert_close(torch.stack(each).mean(), loss)
    by_word = losses.reinforce_loss(token_logprobs, judged[:, None].expand(-1, 5), mask)
    assert_close(by_word, loss)
    for before, after in zip(kept, (token_logprobs, judged, mask), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("judged", "mask", "message"),
    [
        (torch.ones(3), torch.ones(2, 2, dtype=torch.bool), "shape (B,) or (B, T)"),
        (torch.ones(2, 3), torch.ones(2, 2, dtype=torch.bool), "or (B, T)"),
        (torch.ones(2), torch.tensor([[True, True], [False, False]]), "no row is empty"),
        (
            torch.tensor([1.0, torch.nan]),
            torch.ones(2, 2, dtype=torch.bool),
            "advantages must be finite",
        ),
        (torch.ones(2), torch.ones(2, 2), "bool"),
    ],
)
def test_what_is_refused(judged, mask, message):
    with pytest.raises((ValueError, TypeError, RuntimeError)) as caught:
        losses.reinforce_loss(torch.zeros(2, 2), judged, mask)
    if mask.dtype == torch.bool:
        assert caught.type is ValueError and message in str(caught.value)
