"""Exact bias and variance of off-policy estimators, by listing every completion.

An estimate from N texts is a random number; its mean and its variance are sums over what the
texts can be. A mean of N independent terms needs one sum over the completions. A ratio of sums
does not split like that, and needs one integral on top.

N counts texts in an estimate, M completions of the world (341 in the word world).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from course.exact import importance, oracle, values
from course.exact.oracle import Policy
from course.exact.values import Levels
from course.worlds.word_world import TokenWorld
from helpers import contract, logprobs


@dataclass(frozen=True)
class Moments:
    """What an estimate does on average, and how far it strays."""

    mean: float  # reward units
    truth: float  # reward units: what it should be
    variance: float  # ≥ 0, reward units squared, of the estimate from all N texts

    @property
    def bias(self) -> float:
        """mean − truth, reward units."""
        return self.mean - self.truth

    @property
    def rmse(self) -> float:
        """√(bias² + variance), reward units."""
        return (self.bias**2 + self.variance) ** 0.5


@dataclass(frozen=True)
class OffPolicy:
    """Every completion that μ can write, with what the estimators need to know of it."""

    probability: Tensor  # (M,) float in [0, 1], M ≥ 1, μ(x | c); where it is 0 they are left out
    log_ratio: Tensor  # (M, T) float, nats, −inf too, 0 outside the completion
    mask: Tensor  # (M, T) bool
    token_rewards: Tensor  # (M, T) float, reward units, not discounted
    gamma: float  # in [0, 1]
    truth: float  # E_π[G], reward units, over all completions

    @property
    def sizes(self) -> dict[str, int]:
        """M and T, for what is said of other arguments (`helpers.contract`)."""
        return {"M": len(self.mask), "T": self.mask.shape[1]}

    @property
    def ratio(self) -> Tensor:
        """(M,) ρ = π / μ of the whole completion."""
        return importance.sequence_ratios(self.log_ratio)

    @property
    def returns(self) -> Tensor:
        """(M,) G, reward units."""
        return importance.discounted_returns(self.token_rewards, self.mask, gamma=self.gamma)

    def terms(self) -> dict[str, Tensor]:
        """What one text adds to the mean, for each estimator that is a mean.

        Returns:
            (M,) float a name: "no ratio" uses μ's texts as if π had written them; "token
            ratios" weights each reward by the ratio of its own word only; "ordinary" by that of
            the whole text; "per-decision" by that of the words up to it.
        """
        prefix = importance.prefix_ratios(self.log_ratio)
        weigh = lambda w: importance.per_decision_returns(  # noqa: E731
            w, self.token_rewards, self.mask, gamma=self.gamma
        )
        return {
            "no ratio": self.returns,
            "token ratios": weigh(self.log_ratio.exp()),
            "ordinary": self.ratio * self.returns,
            "per-decision": weigh(prefix),
        }


@torch.no_grad()
def off_policy(
    target: Policy,
    behavior: Policy,
    world: TokenWorld,
    prompt: str,
    *,
    rewards: Levels | None = None,
    gamma: float = 1.0,
) -> OffPolicy:
    """List what a behaviour policy can write, for questions about a target policy.

    Args:
        target: token ids → logits: π.
        behavior: token ids → logits: μ; −inf where it never writes a word.
        world: what to enumerate.
        prompt: one of the world's prompts.
        rewards: T tensors (n^k, A) of r(s, a); None takes the world's, at the end.
        gamma: discount in [0, 1].
    Returns:
        The enumeration.
    Source: chapter 04, section 4.7.
    """
    rewards = values.transition_rewards(world, prompt) if rewards is None else rewards
    lengths = oracle.enumerate_completions(world).lengths
    mask = logprobs.mask_from_lengths(lengths, world.max_length)
    moves = oracle.word_moves(world)
    pays = oracle.read_moves(rewards, moves)
    scored = [
        oracle.read_moves(oracle.state_logprobs(p, world, prompt), moves).double()
        for p in (target, behavior)
    ]
    pi, mu = (s.sum(-1).exp() for s in scored)
    returns = importance.discounted_returns(pays, mask, gamma=gamma)
    can = mu > 0
    return OffPolicy(
        probability=mu[can],
        log_ratio=importance.log_ratios(scored[0][can], scored[1][can], mask[can]),
        mask=mask[can],
        token_rewards=pays[can],
        gamma=gamma,
        truth=float(pi @ returns),
    )


def of_mean(probability: Tensor, terms: Tensor, *, count: int, truth: float) -> Moments:
    """Moments of the mean of N independent terms.

    Args:
        probability: (M,) float in [0, 1] that sum to 1.
        terms: (M,) float, what an outcome adds.
        count: N ≥ 1.
        truth: what the mean should be.
    Returns:
        The moments; the variance is that of one term, divided by N.
    """
    mean = probability @ terms
    return Moments(float(mean), truth, float(probability @ (terms - mean) ** 2) / count)


def of_self_normalised(
    probability: Tensor,
    ratios: Tensor,
    returns: Tensor,
    *,
    count: int,
    truth: float,
    step: float = 0.1,
) -> Moments:
    """Moments of Σ ρ G / Σ ρ from N texts, by one integral instead of M^N sums.

    1/W = ∫ e^(−uW) du and 1/W² = ∫ u e^(−uW) du turn a ratio of sums into products of
    expectations of one text. With u = e^v the trapezoid rule is exact to rounding, because the
    integrand is smooth and vanishes at both ends.

    Args:
        probability: (M,) float in [0, 1] that sum to 1.
        ratios: (M,) float ≥ 0, some above 0.
        returns: (M,) float, reward units.
        count: N ≥ 1.
        truth: what the estimate should be.
        step: > 0, of the trapezoid rule, in v.
    Returns:
        The moments; where all N ratios are 0 the estimate counts as 0.
    Raises:
        ValueError: count is below 1, or no ratio is above 0.
    Source: chapter 04, eqs. (4.15) and (4.16).
    """
    ratios, possible = ratios.double(), probability > 0
    positive = ratios[possible & (ratios > 0)]
    if count < 1 or not len(positive):
        raise ValueError(f"count must be at least 1, got {count}, and some ratio above 0.")
    low = -40.0 - float(torch.log(count * positive.max()))  # below this u all is linear in u
    high = 4.0 - float(torch.log(positive.min()))  # e^(−e^4) is 0 for our purposes
    u = torch.arange(low, high + step, step, dtype=torch.float64).exp()  # (K,)
    decay = torch.exp(-torch.outer(u, ratios)) * probability  # (K, M)
    phi = decay.sum(-1)  # E e^(−uρ)
    first = decay @ (ratios * returns)  # E ρ G e^(−uρ)
    second = decay @ (ratios * returns) ** 2
    mean = step * (u * count * first * phi ** (count - 1)).sum()
    square = count * second * phi ** (count - 1)
    if count > 1:
        square = square + count * (count - 1) * first**2 * phi ** (count - 2)
    square = step * (u**2 * square).sum()
    return Moments(float(mean), truth, max(0.0, float(square - mean**2)))


def expected_sample_size(probability: Tensor, ratios: Tensor, *, count: int) -> float:
    """N (E ρ)² / E ρ²: what `importance.effective_sample_size` is near for many texts.

    Args:
        probability: (M,) float in [0, 1] that sum to 1.
        ratios: (M,) float ≥ 0, some above 0.
        count: N ≥ 1.
    Returns:
        Completions, at most N.
    Source: chapter 04, eq. (4.14).
    """
    return count * float((probability @ ratios) ** 2 / (probability @ ratios**2))


def of_each_kind(problem: OffPolicy, *, count: int) -> Mapping[str, Moments]:
    """Exact moments of every estimator of the chapter, from N texts of the behaviour policy.

    Args:
        problem: from `off_policy`.
        count: N ≥ 1.
    Returns:
        Name → moments: the four means of `OffPolicy.terms`, and "self-normalised".
    Source: chapter 04, section 4.8.
    """
    found = {
        name: of_mean(problem.probability, terms, count=count, truth=problem.truth)
        for name, terms in problem.terms().items()
    }
    found["self-normalised"] = of_self_normalised(
        problem.probability, problem.ratio, problem.returns, count=count, truth=problem.truth
    )
    return found


contract.hold(globals())
