"""Scalars to descend on. Tensors in, one number out.

The number itself means nothing: it is made so that its gradient is an estimate of −∇J.
"""

import torch
from torch import Tensor

from helpers import contract, logprobs


def reinforce_loss(token_logprobs: Tensor, advantages: Tensor, completion_mask: Tensor) -> Tensor:
    """Surrogate whose gradient is minus the REINFORCE estimate of ∇J.

    Args:
        token_logprobs: (B, T) float, nats: log π(x_t | s_t); carries the gradient; outside the
            mask stands anything.
        advantages: (B,) or (B, T) float, reward units: one judgement a completion, or one a word
            with anything outside the mask. A constant: detached here.
        completion_mask: (B, T) bool, True on completion tokens, EOS included: no row is empty.
    Returns:
        () float: the mean over B of −Σ_t Â·log π. Divided by B only, never by length.
    Raises:
        ValueError: shapes disagree, a row of the mask is empty, or an advantage is not finite.
    Source: Williams (1992); chapter 05, eq. (5.7); chapter 07, eq. (7.3).
    """
    if advantages.shape == completion_mask.shape[:1]:
        advantages = advantages.unsqueeze(1).expand_as(completion_mask)
    judged = advantages.detach().masked_fill(~completion_mask, 0.0)
    scores = torch.where(completion_mask, token_logprobs, torch.zeros_like(token_logprobs))
    return -logprobs.sequence_logprobs(scores * judged, completion_mask).mean()


contract.hold(globals())
