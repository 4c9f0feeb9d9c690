"""Exact KL against hand numbers, PyTorch and its defining properties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from helpers import kl

P = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
Q = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)


def test_by_hand_in_both_directions():
    # KL(p‖q) = 0.6 log 3 + 0 + 0.1 log 0.2;  KL(q‖p) = 0.2 log(1/3) + 0 + 0.5 log 5
    assert_close(kl.kl_divergence(P.log(), Q.log()).item(), 0.6 * math.log(3) + 0.1 * math.log(0.2))
    assert_close(
        kl.kl_divergence(Q.log(), P.log()).item(), 0.2 * math.log(1 / 3) + 0.5 * math.log(5)
    )


def test_impossible_outcomes():
    one = torch.tensor([0.0, -math.inf])
    half = torch.tensor([0.5, 0.5]).log()
    assert_close(kl.kl_divergence(one, half).item(), math.log(2))
    assert kl.kl_divergence(half, one) == math.inf
    assert kl.kl_divergence(one, one) == 0.0


@given(seed=st.integers(0, 300))
def test_agrees_with_pytorch_and_is_not_negative(seed):
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64).log_softmax(-1)
    ours = kl.kl_divergence(p, q)
    theirs = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    assert_close(ours, theirs)
    assert (ours >= 0).all() and (kl.kl_divergence(p, p) == 0).all()


def test_refuses_different_shapes():
    with pytest.raises(ValueError, match="same order"):
        kl.kl_divergence(P.log(), Q[:2].log())
