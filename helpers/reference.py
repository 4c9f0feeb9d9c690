"""The KL term: how far the policy has gone from a frozen reference, and what that costs.

J = E[R] − β KL(π ‖ π_ref) is the expectation of one reward, R − β Σ_t log(π/π_ref), under the
policy itself. Its gradient needs no other estimator: the logarithms are noted down as numbers,
like R, because the gradient that they carry themselves is zero on average (chapter 05, EGLP).
"""

import torch
from torch import Tensor, nn

from helpers import caches, kl, microbatches
from helpers.rollout import RolloutBatch


@torch.no_grad()
def measure(
    policy: nn.Module,
    ref_policy: nn.Module,
    batch: RolloutBatch,
    *,
    group_size: int,
    temperature: float = 1.0,
    budget: int = 4096,
    share_prompts: bool = True,
) -> tuple[Tensor, Tensor]:
    """What the reference thinks of a batch, and the exact KL in each state that was met.

    Args:
        policy: who wrote the batch.
        ref_policy: π_ref, with the same vocabulary.
        batch: sampled; rows of one prompt are neighbours.
        group_size: completions a prompt.
        temperature: both policies are softmax(logits / temperature).
        budget: tokens a micro-batch.
        share_prompts: read each prompt once.
    Returns:
        ref_logprobs: (B, T) float, nats: log π_ref(x_t | s_t), 0 outside the mask.
        divergences: (B, T) float, nats: KL(π(·|s_t) ‖ π_ref(·|s_t)) ≥ 0, 0 outside the mask.
            Their sum over a completion has the mean KL(π(·|c) ‖ π_ref(·|c)): chapter 01's chain
            rule for log-probabilities, for divergences.
    Source: chapter 07, eq. (7.5).
    """
    rows = torch.arange(len(batch.lengths), device=batch.lengths.device)
    scored = [
        microbatches.score(
            model, batch, rows, group_size=group_size, budget=budget, temperature=temperature,
            share_prompts=share_prompts and all(map(caches.has_plain_cache, (policy, ref_policy))),
        )
        for model in (policy, ref_policy)
    ]  # fmt: skip
    ref_logprobs = torch.zeros_like(batch.old_logprobs)
    divergences = torch.zeros_like(ref_logprobs)
    for (rows, part, logits, _), (_, _, ref_logits, scores) in zip(*scored, strict=True):
        between = kl.kl_divergence(logits.log_softmax(-1), ref_logits.log_softmax(-1))
        width = part.completion_ids.shape[1]
        ref_logprobs[rows, :width] = scores
        divergences[rows, :width] = between.masked_fill(~part.completion_mask, 0.0)
    return ref_logprobs, divergences


def token_rewards(rewards: Tensor, penalties: Tensor, completion_mask: Tensor) -> Tensor:
    """r_t: the KL penalty of each token, and the reward of the text on its last one.

    Args:
        rewards: (B,) float, reward units.
        penalties: (B, T) float, reward units, 0 outside the mask; subtracted.
        completion_mask: (B, T) bool.
    Returns:
        (B, T) float, reward units.
    """
    last = completion_mask.sum(-1, keepdim=True) - 1  # (B, 1)
    return (-penalties).scatter_add(1, last, rewards.unsqueeze(1))
