"""From rewards to advantages: what each completion, or each word, is judged by.

A group is what one policy wrote to one prompt: K completions. Everything is a pure function of
tensors; nothing here carries a gradient, and the loss detaches what it gets.
Dimensions: P prompts, K completions a prompt, B = P·K completions, T words.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from helpers import contract

MEMORY = 0.9  # of a running mean, and of sums that forget: how much a new batch leaves


def leave_one_out(rewards: Tensor) -> Tensor:
    """Reward minus the mean of the *other* rewards of its group: unbiased.

    Args:
        rewards: (..., K) number, reward units; a row is a group, K ≥ 2.
    Returns:
        (..., K) float, reward units. Sums to 0 over a group, up to rounding.
    Raises:
        ValueError: a group has fewer than two completions.
    Source: Kool, van Hoof and Welling (2019); chapter 06, eq. (6.6).
    """
    others = (rewards.sum(-1, keepdim=True) - rewards) / (rewards.shape[-1] - 1)
    return rewards - others


def minus_group_mean(rewards: Tensor) -> Tensor:
    """Reward minus the mean of its group, its own reward included: (1 − 1/K) times too small.

    Args:
        rewards: (..., K) float, reward units; a row is a group, K ≥ 1.
    Returns:
        (..., K) float, reward units: (1 − 1/K) times `leave_one_out`.
    Raises:
        ValueError: a group is empty.
    Source: chapter 06, eq. (6.7).
    """
    return rewards - rewards.mean(-1, keepdim=True)


def group_z_score(rewards: Tensor, *, epsilon: float = 1e-4) -> Tensor:
    """Reward minus the group's mean, divided by the group's standard deviation: GRPO's.

    The standard deviation divides by K − 1, as most implementations do. A group of equal
    rewards gets zeros.

    Args:
        rewards: (..., K) float, reward units; a row is a group, K ≥ 2.
        epsilon: > 0, added to the standard deviation, reward units.
    Returns:
        (..., K) float, standard deviations.
    Raises:
        ValueError: a group has fewer than two completions, or epsilon is not above 0.
    Source: Shao et al. (2024), arXiv:2402.03300, section 4.1.2; chapter 06, eq. (6.8).
    """
    return minus_group_mean(rewards) / (rewards.std(-1, keepdim=True) + epsilon)


def compare(name: str, groups: Tensor, *, level: Tensor | float = 0.0) -> Tensor:
    """Judge each completion: against the others of its group, or against a known level.

    Args:
        name: of a baseline. One of `GROUP_COMPARISONS` looks at the group, and gives exactly 0
            where all its rewards are equal; for any other name the level is subtracted.
        groups: (..., K) float, reward units; a row is a group, K ≥ 1.
        level: a number or more, what was known before these rewards: 0, a constant, a running mean.
    Returns:
        (..., K) float, reward units.
    Raises:
        ValueError: a group is too small to be compared within.
    Source: chapter 06, eqs. (6.2) and (6.6) to (6.8).
    """
    if name not in GROUP_COMPARISONS:
        return groups - level
    return zero_where_equal(GROUP_COMPARISONS[name](groups), groups)


def running_mean(past: Tensor | None, new: Tensor) -> Tensor:
    """An exponential moving average: `MEMORY` of the past, the rest of the new mean.

    Args:
        past: () float, what was returned before; None at first.
        new: float, any shape, not empty: the newest rewards.
    Returns:
        () float, reward units.
    """
    return new.mean() if past is None else MEMORY * past + (1 - MEMORY) * new.mean()


def zero_where_equal(advantages: Tensor, rewards: Tensor) -> Tensor:
    """Exactly 0 where a whole group has one reward, whatever rounding has left there.

    Three rewards of 0.1 have a mean that is not 0.1 in binary. What differs by at most 8 units
    in the last place is taken for equal.

    Args:
        advantages: (..., K) float, reward units; a row is a group, K ≥ 1.
        rewards: (..., K) float, reward units: what they come from.
    Returns:
        (..., K) float, reward units.
    """
    rounding = 8 * torch.finfo(rewards.dtype).eps * rewards.abs().amax(-1, keepdim=True)
    spread = rewards.amax(-1, keepdim=True) - rewards.amin(-1, keepdim=True)
    return advantages.masked_fill(spread <= rounding, 0.0)


def rewards_to_go(token_rewards: Tensor, completion_mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """G_t = Σ_{k ≥ 0} γ^k r_{t+k}: what is still paid from each word on.

    Args:
        token_rewards: (B, T) float, reward units: r_t, paid for word t; outside the mask stands
            anything.
        completion_mask: (B, T) bool, T ≥ 1.
        gamma: discount in [0, 1].
    Returns:
        (B, T) float, reward units; 0 outside the mask.
    Raises:
        ValueError: the shapes disagree.
    Source: chapter 03, eq. (3.3); chapter 05, eq. (5.8).
    """
    paid = token_rewards.masked_fill(~completion_mask, 0.0)
    following = torch.zeros_like(paid[:, 0])
    columns = []
    for t in reversed(range(paid.shape[1])):
        following = paid[:, t] + gamma * following
        columns.append(following)
    return torch.stack(columns[::-1], dim=1).masked_fill(~completion_mask, 0.0)


def gae(
    token_rewards: Tensor,
    values: Tensor,
    completion_mask: Tensor,
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
) -> Tensor:
    """Generalised advantage estimates: Σ_k (γλ)^k δ_{t+k}, δ_t = r_t + γ V(s_{t+1}) − V(s_t).

    A text that is over has no value left, whatever `values` holds there.

    Args:
        token_rewards: (B, T) float, reward units: r_t, paid for word t; outside the mask stands
            anything.
        values: (B, T) float, reward units: V(s_t), before word t is written; outside the mask
            stands anything.
        completion_mask: (B, T) bool, T ≥ 1.
        gamma: discount in [0, 1].
        lam: λ in [0, 1]. 1 is the reward-to-go minus V, and biased by no V if γ = 1 and V has
            not seen the text; 0 is δ alone, biased by what is wrong in V. The variance need not
            be least at 0: δ hangs on one V(s_{t+1}), with all that is wrong in it.
    Returns:
        (B, T) float, reward units; 0 outside the mask.
    Raises:
        ValueError: the shapes disagree, or λ is outside [0, 1].
    Source: Schulman et al. (2016), arXiv:1506.02438, eq. (16); chapter 06, eq. (6.11).
    """
    before = values.masked_fill(~completion_mask, 0.0)  # V = 0 once the text is over
    after = torch.cat([before[:, 1:], torch.zeros_like(before[:, :1])], dim=1)
    errors = token_rewards.masked_fill(~completion_mask, 0.0) + gamma * after - before
    return rewards_to_go(errors, completion_mask, gamma=gamma * lam)


contract.hold(globals())
GROUP_COMPARISONS: dict[str, Callable[[Tensor], Tensor]] = {
    "group_mean": minus_group_mean,
    "leave_one_out": leave_one_out,
    "group_z_score": group_z_score,
}
