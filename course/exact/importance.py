"""Importance sampling: what would have come out if somebody else had written?

Texts come from a behaviour policy μ, and the question is about a target policy π. Every ratio
here is π / μ, a ratio of probabilities: exp(log π − log μ), never log π / log μ. The prompt and
the (deterministic) transitions are the same for both and cancel.

Dimensions: B completions, T words. Entries outside a mask may hold anything, nan included.
"""

import torch
from torch import Tensor

from helpers import contract


def log_ratios(
    target_logprobs: Tensor, behavior_logprobs: Tensor, completion_mask: Tensor
) -> Tensor:
    """log π(x_t | s_t) − log μ(x_t | s_t) of every word that was written.

    Args:
        target_logprobs: (B, T) float ≤ 0, nats; −inf where the target cannot write the word, and
            anything outside the mask.
        behavior_logprobs: (B, T) float ≤ 0, nats, −inf outside the support, anything outside
            the mask; noted down when the text was sampled; a constant
            in every use that differentiates.
        completion_mask: (B, T) bool, True on completion words, the ending word included: no row is
            empty.
    Returns:
        (B, T) float, nats: 0 outside the mask, −inf where the target cannot follow.
    Raises:
        ValueError: shapes or types disagree, a number is nan or +inf, a row of the mask is
            empty, or a sampled word has probability 0 under the policy that sampled it.
    Source: chapter 04, eq. (4.9).
    """
    target = target_logprobs.masked_fill(~completion_mask, 0.0)
    behavior = behavior_logprobs.masked_fill(~completion_mask, 0.0)
    if (behavior == -torch.inf).any():
        row, step = (behavior == -torch.inf).nonzero()[0].tolist()
        raise ValueError(
            f"word {step} of completion {row} has behaviour probability 0, so μ did not write it: "
            "are these the log-probabilities of the policy, and of the settings, that sampled?"
        )
    return target - behavior


def sequence_ratios(log_ratios: Tensor) -> Tensor:
    """ρ = π(x | c) / μ(x | c), one number a completion.

    Args:
        log_ratios: (B, T) float, nats, −inf too, from `log_ratios`: 0 outside the completion.
    Returns:
        (B,) float ≥ 0: the product of the words' ratios.
    Source: chapter 04, eq. (4.9).
    """
    return log_ratios.sum(-1).exp()


def prefix_ratios(log_ratios: Tensor) -> Tensor:
    """ρ_{1:t}, the ratio of everything up to word t, word t included.

    Args:
        log_ratios: (B, T) float, nats, −inf too, from `log_ratios`.
    Returns:
        (B, T) float ≥ 0; the last column is the ratio of the whole completion.
    Source: chapter 04, eq. (4.12).
    """
    return log_ratios.cumsum(-1).exp()


def discounted_returns(
    token_rewards: Tensor, completion_mask: Tensor, *, gamma: float = 1.0
) -> Tensor:
    """G = Σ_t γ^(t−1) r_t of each completion: what the ratio of the whole text multiplies.

    Args:
        token_rewards: (B, T) float, reward units: r_t, paid for word t, anything outside the mask.
        completion_mask: (B, T) bool.
        gamma: discount in [0, 1]; the first word is not discounted.
    Returns:
        (B,) float, reward units.
    Raises:
        ValueError: the shapes disagree.
    """
    return _discounted(token_rewards, completion_mask, gamma).sum(-1)


def per_decision_returns(
    prefix_ratios: Tensor, token_rewards: Tensor, completion_mask: Tensor, *, gamma: float = 1.0
) -> Tensor:
    """Σ_t γ^(t−1) ρ_{1:t} r_t: each reward weighted by the words up to it, and no later ones.

    Args:
        prefix_ratios: (B, T) float ≥ 0, anything outside the mask, from `prefix_ratios`.
        token_rewards: (B, T) float, reward units, anything outside the mask.
        completion_mask: (B, T) bool.
        gamma: discount in [0, 1].
    Returns:
        (B,) float, reward units: one estimate a completion; their mean estimates the objective.
    Raises:
        ValueError: the shapes disagree.
    Source: Precup, Sutton and Singh (2000); chapter 04, eq. (4.12).
    """
    rewards = _discounted(token_rewards, completion_mask, gamma)
    return (prefix_ratios.masked_fill(~completion_mask, 0.0) * rewards).sum(-1)


def _discounted(token_rewards: Tensor, completion_mask: Tensor, gamma: float) -> Tensor:
    steps = torch.arange(token_rewards.shape[-1], dtype=token_rewards.dtype)
    discounts = torch.pow(torch.tensor(gamma, dtype=token_rewards.dtype), steps)
    return token_rewards.masked_fill(~completion_mask, 0.0) * discounts.to(token_rewards.device)


def ordinary(ratios: Tensor, returns: Tensor) -> Tensor:
    """The mean of ρ G: unbiased if μ can write everything that π is paid for.

    Args:
        ratios: (B,) float ≥ 0, B ≥ 1, of whole completions.
        returns: (B,) float, reward units.
    Returns:
        () float, reward units.
    Raises:
        ValueError: the shapes disagree, or there is nothing to average.
    Source: chapter 04, eq. (4.10).
    """
    return (ratios * returns).mean()


def self_normalised(ratios: Tensor, returns: Tensor) -> Tensor:
    """Σ ρ G / Σ ρ, also called weighted importance sampling: biased, and never out of range.

    Args:
        ratios: (B,) float ≥ 0, B ≥ 1.
        returns: (B,) float, reward units.
    Returns:
        () float, reward units: between the least and the largest return; 0 if all ratios are 0.
    Raises:
        ValueError: the shapes disagree, or there is nothing to average.
    Source: Sutton and Barto (2018), eq. (5.6); chapter 04, eq. (4.13).
    """
    total = ratios.sum()
    return (ratios * returns).sum() / torch.where(total > 0, total, torch.ones_like(total))


def effective_sample_size(ratios: Tensor) -> Tensor:
    """(Σ ρ)² / Σ ρ²: how many equally weighted texts these are about worth.

    Args:
        ratios: (B,) float ≥ 0, B ≥ 1.
    Returns:
        () float, completions: from 1 (one ratio dwarfs all) to B (all equal); 0 if all are 0.
    Raises:
        ValueError: there are no ratios, or they are not one number a completion.
    Source: Kong (1992); chapter 04, eq. (4.14).
    """
    largest = ratios.max()
    if largest == 0:
        return torch.zeros_like(largest)
    scaled = ratios / largest  # squares of large ratios overflow
    return scaled.sum() ** 2 / (scaled**2).sum()


contract.hold(globals())
