"""Logits to log-probabilities: of tokens, of sequences, and of a sampler.

Everything here is a pure function of tensors. Dimensions: B batch, L all tokens of a row,
T completion tokens, V vocabulary. Log-probabilities and entropies are in nats.

The one rule that the whole book rests on: the logits at position t−1 are the model's
prediction *of* token t. Functions that take "aligned" logits expect this shift to be done;
`next_token_logprobs` does it.
"""

import torch
from torch import Tensor

from helpers import contract


def token_logprobs(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Log-probability of each given token under logits that are already aligned with it.

    Args:
        logits: (..., V) float; −inf marks an impossible token. logits[..., t, :] predicts
            token_ids[..., t].
        token_ids: (...) integer, in [0, V), one for each row of logits.
    Returns:
        (...) float, nats, same dtype as `logits`; differentiable in `logits`.
    Raises:
        ValueError: the shapes do not match.
    Source: chapter 01, eq. (1.1).
    """
    return logits.log_softmax(-1).gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)  # (...)


def next_token_logprobs(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Log-probability of every token but the first, each given all tokens before it.

    Args:
        logits: (B, L, V) float, −inf for what is impossible: a causal model's output on
            `token_ids`.
        token_ids: (B, L) integer ≥ 0, L ≥ 2, later tokens below V: the model's input, of which
            the first token has no prediction.
    Returns:
        (B, L−1) float, nats. Entry t scores token_ids[:, t+1] with logits[:, t].
    Raises:
        ValueError: the shapes do not match, or L < 2 leaves nothing to score.
    Source: chapter 01, eq. (1.5).
    """
    return token_logprobs(logits[:, :-1], token_ids[:, 1:])


def sequence_logprobs(token_logprobs: Tensor, completion_mask: Tensor) -> Tensor:
    """Log-probability of each completion: the masked sum over its tokens.

    Args:
        token_logprobs: (B, T) float, nats, −inf for the impossible; outside the mask stands
            anything.
        completion_mask: (B, T) bool, True on completion tokens, EOS included: no row is empty.
    Returns:
        (B,) float, nats: Σ_t m_t log π(x_t | s_t). A sum, never a mean.
    Raises:
        ValueError: shapes disagree, the mask is not bool, or a row of it is empty.
    Source: chapter 01, eq. (1.4).
    """
    return token_logprobs.masked_fill(~completion_mask, 0.0).sum(-1)  # (B,)


def completion_lengths(completion_ids: Tensor, eos_ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Length of each completion, up to and including its first end-of-sequence token.

    Args:
        completion_ids: (B, T) integer, T ≥ 1. What follows the first EOS is padding, whatever its
            id.
        eos_ids: ids ≥ 0 that end a completion; empty when only the limit T does.
    Returns:
        lengths: (B,) integer, in 1..T.
        finished: (B,) bool, False where no EOS was found: the completion was cut at T.
    Source: chapter 01, section 1.6.
    """
    eos = torch.tensor(list(eos_ids), dtype=completion_ids.dtype, device=completion_ids.device)
    is_eos = torch.isin(completion_ids, eos)  # (B, T)
    finished = is_eos.any(-1)
    first = is_eos.int().argmax(-1)  # position of the first EOS, 0 where there is none
    width = torch.full_like(first, completion_ids.shape[-1])
    return torch.where(finished, first + 1, width), finished


def mask_from_lengths(lengths: Tensor, width: int) -> Tensor:
    """True on the first `lengths[i]` positions of row i: a mask by position, never by token id.

    Args:
        lengths: (B,) integer in [1, T], tokens.
        width: T, T ≥ 0, the number of columns.
    Returns:
        (B, T) bool.
    Raises:
        ValueError: a length is below 1 or above `width`.
    """
    return torch.arange(width, device=lengths.device) < lengths.unsqueeze(-1)  # (B, T)


def entropy(logits: Tensor) -> Tensor:
    """Entropy −Σ_v p_v log p_v of each next-token distribution.

    The exact entropy of the full distribution, not the mean surprise of sampled tokens.

    Args:
        logits: (..., V) float; −inf marks an impossible token, which adds nothing.
    Returns:
        (...) float, nats, in [0, log V].
    Source: Shannon (1948), "A Mathematical Theory of Communication".
    """
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0.0)).sum(-1)


def sampling_logits(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Logits of the distribution that a sampler with these settings really draws from.

    Divides by the temperature, then keeps the k most probable tokens, then the smallest set
    whose probability reaches top_p; the others get −inf. The softmax of the result is
    renormalised, and differs from the model's as soon as one setting is on.

    Args:
        logits: (..., V) float, the model's; −inf marks an impossible token.
        temperature: > 0. Below 1 sharpens, above 1 flattens.
        top_k: tokens kept, ≥ 1; those that tie with the k-th stay. None: all.
        top_p: share in (0, 1]. None: all.
    Returns:
        (..., V) float.
    Raises:
        ValueError: a setting is out of its range.
    Source: top-p: Holtzman et al. (2020), "The Curious Case of Neural Text Degeneration".
    """
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        kth_largest = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth_largest, -torch.inf)
    if top_p is not None and top_p < 1:
        probs, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        mass_before = probs.cumsum(-1) - probs  # of the tokens ranked above this one
        drop = (mass_before >= top_p).scatter(-1, order, mass_before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return logits


contract.hold(globals())
