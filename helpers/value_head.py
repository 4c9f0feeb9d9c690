"""A learned V(s) for language models: a linear function of the state that the model itself keeps.

The last hidden state of a causal model is what it predicts the next token from, so it knows the
prefix. V(s) = w · (h(s), 1) is fitted to the returns of past batches by least squares, which
needs no learning rate: two sums, which forget a tenth at each step, are all that is kept.
"""

import torch
from torch import Tensor, nn

from helpers import advantages, contract, rollout, scoring
from helpers.advantages import MEMORY
from helpers.rollout import RolloutBatch

RIDGE = 1e-3  # keeps the system solvable while few states were seen; share of the mean diagonal


@torch.no_grad()
def features(model: nn.Module, batch: RolloutBatch, *, budget: int = 4096) -> Tensor:
    """The hidden state that each token was predicted from, and a 1.

    Args:
        model: the policy.
        batch: sampled by it.
        budget: tokens a micro-batch, ≥ 1.
    Returns:
        (B, T, D + 1) float: entry t belongs to s_t, before token t is written.
    """
    found: Tensor | None = None
    prompt_tokens = batch.prompt_ids.shape[1]
    for rows in scoring.split(batch.lengths, budget=budget, prompt_tokens=prompt_tokens):
        part = scoring.select(batch, rows)
        width = part.completion_ids.shape[1]
        states = rollout.read(model, part, states=True).to(batch.old_logprobs.dtype)
        states = torch.cat([states, torch.ones_like(states[..., :1])], dim=-1)
        if found is None:
            found = states.new_zeros(*batch.completion_ids.shape, states.shape[-1])
        found[rows, :width] = states
    assert found is not None  # a batch has at least one row
    return found


def predict(memory: Tensor | None, states: Tensor) -> Tensor:
    """V(s) of the least-squares fit to what was learned so far.

    Args:
        memory: (D + 1, D + 2) float, what `learn` returned; None before the first batch.
        states: (B, T, D + 1) float, on any device.
    Returns:
        (B, T) float64, reward units, on the CPU; zeros without a memory.
    """
    states = states.cpu().double()
    if memory is None:
        return torch.zeros_like(states[..., 0])
    normal_equations = memory.cpu().double()
    square, target = normal_equations[:, :-1], normal_equations[:, -1:]  # Σ h hᵀ and Σ h G
    ridge = RIDGE * square.diagonal().mean() * torch.ones(len(square), dtype=square.dtype)
    ridge[-1] = 0.0  # the level is not shrunk: what always pays 3 is worth 3
    weights = torch.linalg.solve(square + ridge.diag(), target)  # (D + 1, 1)
    return (states @ weights).squeeze(-1)


def compare(
    model: nn.Module,
    batch: RolloutBatch,
    token_rewards: Tensor,
    memory: Tensor | None,
    *,
    lam: float,
    budget: int = 4096,
) -> tuple[Tensor, Tensor]:
    """Advantages with the V of past batches, and what this batch teaches V for the next one.

    Args:
        model: the policy.
        batch: sampled by it.
        token_rewards: (B, T) float64, reward units, 0 outside the mask, on the CPU.
        memory: (D + 1, D + 2) float, what `learn` returned, or None.
        lam: λ in [0, 1] of `advantages.gae`; 1 is the reward still to go minus V.
        budget: tokens a micro-batch, ≥ 1.
    Returns:
        advantages: (B, T) float64, reward units, 0 outside the mask, on the CPU.
        sums: (D + 1, D + 2) float64, for `learn`; add them up over processes.
    Source: chapter 06, eq. (6.11).
    """
    states, mask = features(model, batch, budget=budget), batch.completion_mask.cpu()
    judged = advantages.gae(token_rewards, predict(memory, states), mask, lam=lam)
    return judged, normal_equations(states, advantages.rewards_to_go(token_rewards, mask), mask)


def normal_equations(states: Tensor, returns: Tensor, completion_mask: Tensor) -> Tensor:
    """The two sums of least squares over a batch: Σ h hᵀ and Σ h G.

    Args:
        states: (B, T, D + 1) float, on any device.
        returns: (B, T) float, reward units: what was still paid from each token on, on any device.
        completion_mask: (B, T) bool, on any device.
    Returns:
        (D + 1, D + 2) float64, on the CPU: a sum of squares in float32 would lose what differs.
    """
    mask = completion_mask.cpu()
    seen, paid = states.cpu().double()[mask], returns.cpu().double()[mask]
    return seen.T @ torch.cat([seen, paid.unsqueeze(1)], dim=1)


def learn(memory: Tensor | None, of_batch: Tensor) -> Tensor:
    """Old sums, partly forgotten, plus the new ones.

    Args:
        memory: (D + 1, D + 2) float, what was returned before; None at first.
        of_batch: (D + 1, D + 2) float, `normal_equations` of the new batch, over all processes.
    Returns:
        (D + 1, D + 2) float.
    """
    return of_batch if memory is None else MEMORY * memory + of_batch


contract.hold(globals())
