"""Log-probabilities against hand numbers, properties and the library of samplers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from helpers import logprobs

# softmax(log 1, log 2, log 5) = 1/8, 2/8, 5/8, a number for each word and easy by hand.
LOGITS = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64).log()


def random_logits(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * 3


def test_token_logprobs_by_hand():
    logits = LOGITS.expand(2, 3, 3)
    ids = torch.tensor([[0, 1, 2], [2, 2, 0]])
    expected = torch.tensor([[1 / 8, 2 / 8, 5 / 8], [5 / 8, 5 / 8, 1 / 8]], dtype=torch.float64)
    assert_close(logprobs.token_logprobs(logits, ids), expected.log())


def test_token_logprobs_normalise_over_the_vocabulary():
    # Rows of different size: a softmax over any other dimension would mix them.
    logits = random_logits(0, 2, 4, 5)
    for t in range(4):
        each = [
            logprobs.token_logprobs(logits, torch.full((2, 4), v))[:, t].exp() for v in range(5)
        ]
        assert_close(sum(each), torch.ones(2, dtype=torch.float64))


def test_token_logprobs_of_one_token_and_of_a_vocabulary_of_one():
    assert logprobs.token_logprobs(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=int)) == 0.0


def test_token_logprobs_refuses_logits_that_are_not_aligned():
    with pytest.raises(ValueError, match="one for each row of logits"):
        logprobs.token_logprobs(torch.zeros(2, 4, 5), torch.zeros(2, 3, dtype=int))


def test_next_token_logprobs_scores_a_token_with_the_logits_before_it():
    # Position 0 predicts token 1 for sure, position 1 predicts token 0 for sure.
    sure = 50.0
    logits = torch.tensor([[[0.0, sure], [sure, 0.0], [0.0, 0.0]]])
    scores = logprobs.next_token_logprobs(logits, torch.tensor([[0, 1, 0]]))
    assert scores.shape == (1, 2)
    assert_close(scores, torch.zeros(1, 2))
    wrong_text = logprobs.next_token_logprobs(logits, torch.tensor([[0, 0, 1]]))
    assert (wrong_text < -40).all()


def test_next_token_logprobs_needs_two_tokens():
    with pytest.raises(ValueError, match="L ≥ 2"):
        logprobs.next_token_logprobs(torch.zeros(1, 1, 5), torch.zeros(1, 1, dtype=int))


def test_sequence_logprobs_is_a_sum_over_the_mask():
    scores = torch.tensor([[-1.0, -2.0, 9.0], [-3.0, math.nan, -math.inf]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    before = scores.clone()
    assert logprobs.sequence_logprobs(scores, mask).tolist() == [-3.0, -3.0]
    assert torch.equal(scores.nan_to_num(), before.nan_to_num()), "the argument was written to"


def test_sequence_logprobs_passes_no_gradient_to_what_is_masked():
    scores = torch.tensor([[-1.0, -2.0, -5.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    logprobs.sequence_logprobs(scores, mask).sum().backward()
    assert scores.grad.tolist() == [[1.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 2, dtype=torch.bool), r"shape \(B, T\)"),
        (torch.ones(2, 3), "must be bool"),
        (torch.tensor([[True, False, False], [False, False, False]]), "no row is empty"),
    ],
)
def test_sequence_logprobs_refuses_bad_masks(mask, message):
    with pytest.raises(ValueError, match=message):
        logprobs.sequence_logprobs(torch.zeros(2, 3), mask)


def test_completion_lengths_take_the_first_eos_and_include_it():
    ids = torch.tensor([[5, 9, 9, 9], [9, 1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 9], [8, 1, 9, 1]])
    lengths, finished = logprobs.completion_lengths(ids, (9,))
    assert lengths.tolist() == [2, 1, 4, 4, 3]
    assert finished.tolist() == [True, True, False, True, True]
    lengths, finished = logprobs.completion_lengths(ids, (8, 9))
    assert lengths.tolist() == [2, 1, 4, 4, 1]
    lengths, finished = logprobs.completion_lengths(ids, ())
    assert lengths.tolist() == [4] * 5 and not finished.any()


def test_masks_are_made_from_positions():
    mask = logprobs.mask_from_lengths(torch.tensor([1, 3, 2]), 3)
    assert mask.tolist() == [[True, False, False], [True, True, True], [True, True, False]]
    for bad in ([0, 1], [2, 4]):
        with pytest.raises(ValueError, match=r"lengths must be (≥ 1|≤ T = 3)"):
            logprobs.mask_from_lengths(torch.tensor(bad), 3)


def test_entropy_by_hand():
    # H(1/8, 2/8, 5/8) = (1/8) log 8 + (2/8) log 4 + (5/8) log(8/5)
    expected = math.log(8) / 8 + math.log(4) / 4 + 5 / 8 * math.log(8 / 5)
    assert_close(logprobs.entropy(LOGITS).item(), expected)
    assert_close(logprobs.entropy(torch.zeros(4, 7)), torch.full((4,), math.log(7)))
    assert logprobs.entropy(torch.tensor([0.0, -math.inf, -math.inf])) == 0.0


def test_entropy_has_a_finite_gradient_at_impossible_tokens():
    logits = torch.tensor([0.3, -0.1, -math.inf], requires_grad=True)
    logprobs.entropy(logits).backward()
    assert logits.grad[:2].isfinite().all()


@given(seed=st.integers(0, 200), temperature=st.floats(0.2, 4))
def test_temperature_agrees_with_the_library(seed, temperature):
    logits = random_logits(seed, 3, 6)
    ours = logprobs.sampling_logits(logits, temperature=temperature).softmax(-1)
    assert_close(ours, TemperatureLogitsWarper(temperature)(None, logits).softmax(-1))
    assert_close(ours, (logits / temperature).softmax(-1))


@given(seed=st.integers(0, 200), k=st.integers(1, 9))
def test_top_k_agrees_with_the_library(seed, k):
    logits = random_logits(seed, 3, 6)
    before = logits.clone()
    ours = logprobs.sampling_logits(logits, top_k=k).softmax(-1)
    assert_close(ours, TopKLogitsWarper(k)(None, logits).softmax(-1))
    assert ((ours > 0).sum(-1) == min(k, 6)).all() and torch.equal(logits, before)


@given(seed=st.integers(0, 200), p=st.floats(0.05, 0.99))
def test_top_p_agrees_with_the_library(seed, p):
    logits = random_logits(seed, 3, 6)
    ours = logprobs.sampling_logits(logits, top_p=p).softmax(-1)
    assert_close(ours, TopPLogitsWarper(p)(None, logits).softmax(-1))


def test_truncation_by_hand():
    # 5/8, 2/8, 1/8: two words reach 0.7, and 7/8 is left to renormalise by.
    kept = torch.tensor([0, 2 / 7, 5 / 7], dtype=torch.float64)
    assert_close(logprobs.sampling_logits(LOGITS, top_p=0.7).softmax(-1), kept)
    assert_close(logprobs.sampling_logits(LOGITS, top_k=2).softmax(-1), kept)
    assert_close(logprobs.sampling_logits(LOGITS, top_p=0.01).softmax(-1)[2].item(), 1.0)
    # at temperature 1/2: 1, 4, 25 of 30; then top-2: 4/29 and 25/29
    both = logprobs.sampling_logits(LOGITS, temperature=0.5, top_k=2).softmax(-1)
    assert_close(both, torch.tensor([0, 4 / 29, 25 / 29], dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be > 0, not 0.0"),
        ({"temperature": -1.0}, "temperature must be > 0"),
        ({"temperature": math.nan}, "temperature must be finite"),
        ({"top_k": 0}, "top_k must be ≥ 1"),
        ({"top_p": 0.0}, r"\(0, 1\]"),
        ({"top_p": 1.1}, r"\(0, 1\]"),
    ],
)
def test_sampling_refuses_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        logprobs.sampling_logits(LOGITS, **settings)


def test_the_edges_of_top_p():
    logits = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()
    kept = logprobs.sampling_logits(logits, top_p=0.5)
    assert torch.isfinite(kept).tolist() == [True, False, False], "0.5 is reached by the first"
    rare = torch.tensor([0.0, -60.0], dtype=torch.float64)  # a sum of 1 before the second
    assert torch.equal(logprobs.sampling_logits(rare, top_p=1.0), rare), "1 leaves out nothing"
