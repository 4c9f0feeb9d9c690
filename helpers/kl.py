"""Kullback–Leibler divergence between distributions that are known in full.

KL(p ‖ q) = Σ p log(p / q) is the price, in nats a draw, of taking q for p when p draws.
It is not symmetric, so the arguments are named by who draws.
"""

import torch
from torch import Tensor

from helpers import contract


def kl_divergence(sampler_logprobs: Tensor, other_logprobs: Tensor) -> Tensor:
    """Exact KL(sampler ‖ other) over the last dimension.

    Args:
        sampler_logprobs: (..., N) float, normalised log-probabilities ≤ 0 of the distribution
            that the expectation is taken over; −inf marks an impossible outcome, which adds
            nothing.
        other_logprobs: (..., N) float, normalised log-probabilities ≤ 0 of the other one, in the
            same order; −inf marks what it cannot do.
    Returns:
        (...) float, nats, ≥ 0; +inf where the sampler can draw what the other cannot.
    Raises:
        ValueError: the shapes differ.
    Source: Kullback and Leibler (1951); chapter 01, eq. (1.7).
    """
    possible = sampler_logprobs > -torch.inf
    log_ratio = (sampler_logprobs - other_logprobs).masked_fill(~possible, 0.0)
    return (sampler_logprobs.exp() * log_ratio).sum(-1)


contract.hold(globals())
