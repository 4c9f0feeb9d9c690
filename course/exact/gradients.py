"""Exact mean, bias and variance of gradient estimators, by listing every completion.

A REINFORCE estimate is a random vector: it depends on which completions were sampled. Its mean
and its variance are sums over what can be sampled. Where the judgement of a completion depends
on nothing but that completion, one sum over the list does it. Where it depends on the rewards
of its whole group, the sum runs over how many completions of the group earn how much: rewards
take few values, so there are few such counts, and given them the completions are independent.

N completions, S states, A words, D parameters, K completions in a group, V different rewards.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from course.exact import oracle
from course.exact.oracle import Policy
from course.worlds.word_world import RewardFunction, TokenWorld
from helpers import contract

MOST_COUNTS = 300_000  # ways to share K completions among V rewards; about half a second


@dataclass(frozen=True)
class GradientMoments:
    """What a gradient estimate is on average, and how far it strays."""

    mean: Tensor  # (D,) float, E[ĝ]
    truth: Tensor  # (D,) float, ∇L of one prompt; ∇J where several are averaged
    variance: float  # E‖ĝ − E ĝ‖², the trace of the covariance matrix
    variance_along: float  # of the component of ĝ along the truth, the direction that helps

    @property
    def bias(self) -> float:
        """‖E[ĝ] − truth‖."""
        return float((self.mean - self.truth).norm())

    @property
    def scale(self) -> float:
        """Length of E[ĝ] along the truth, as a share of its length: 1 if it is unbiased."""
        return float(self.mean @ self.truth / (self.truth @ self.truth))

    @property
    def cosine(self) -> float:
        """Cosine of the angle between E[ĝ] and the truth: 1 if only the length is wrong."""
        return float(torch.cosine_similarity(self.mean, self.truth, dim=0))

    @property
    def angle(self) -> float:
        """Angle between E[ĝ] and the truth, degrees."""
        return math.degrees(math.acos(max(-1.0, min(1.0, self.cosine))))


@dataclass(frozen=True)
class GradientProblem:
    """Every completion of one prompt, with what an estimator can see of it."""

    probability: Tensor  # (N,) float in [0, 1], p(x | c), N ≥ 1; they sum to 1
    rewards: Tensor  # (N,) float, R(c, x)
    word_scores: Tensor  # (E, D) float, ∇ log π(a | s), E = S·A: row s·A + a, states breadth first
    moves: Tensor  # (N, T) int64 in [−1, E), the row of each word, E − 1 is one; −1: none

    @property
    def sizes(self) -> dict[str, int]:
        """N, T, D, A, S and E = S·A, for what is said of other arguments (`helpers.contract`)."""
        (count, length), (pairs, parameters) = self.moves.shape, self.word_scores.shape
        actions = int(self.moves[:, 0].max()) + 1  # each is the first word of some text
        sizes = {"N": count, "T": length, "D": parameters, "E": pairs}
        return sizes | {"A": actions, "S": pairs // actions}

    @cached_property
    def truth(self) -> Tensor:
        """(D,) ∇L = Σ_x p(x) R(x) ∇ log p(x)."""
        return (self.probability * self.rewards) @ self.scores

    @cached_property
    def scores(self) -> Tensor:
        """(N, D) ∇ log p(x | c): the sum of the scores of its words."""
        return self.combine(torch.ones_like(self.moves, dtype=self.word_scores.dtype))

    def turned(self) -> "GradientProblem":
        """The same problem in at most S·A coordinates: every length and angle stays.

        All estimates lie in the span of the S·A word scores. For a network with many more
        weights than that, one rotation makes everything that follows cheap.

        Returns:
            The problem with word_scores of shape (S·A, min(S·A, D)).
        """
        corner = torch.linalg.qr(self.word_scores.T, mode="r").R  # W Wᵀ = cornerᵀ corner
        return replace(self, word_scores=corner.T.contiguous())

    def at_states(self, values: Tensor) -> Tensor:
        """Read one number a state, such as V(s), along every completion.

        Args:
            values: (S,) number, states breadth first.
        Returns:
            (N, T) float or integer, like them: of the state in which each word is chosen; 0 after
            the end.
        Raises:
            ValueError: the number of states is not this problem's.
        """
        pairs = len(self.word_scores)
        if values.ndim != 1 or pairs % len(values):
            raise ValueError(
                f"values {tuple(values.shape)} do not fit {pairs} pairs of state and word."
            )
        states = self.moves.clamp(min=0) // (pairs // len(values))
        return values[states].masked_fill(self.moves < 0, 0)

    def at_moves(self, values: Tensor) -> Tensor:
        """Read one number a state and word, such as Q(s, a), along every completion.

        Args:
            values: (S, A) number, states breadth first.
        Returns:
            (N, T) float: the number of each word that was chosen; 0 after the end.
        """
        return oracle.read_moves([values], self.moves)

    def combine(self, weights: Tensor) -> Tensor:
        """Σ_t w_t ∇ log π(x_t | s_t) of every completion.

        Args:
            weights: (N, T) float, such as advantages; after the end may stand what is ignored.
        Returns:
            (N, D) float.
        """
        kept = weights.to(self.word_scores.dtype).masked_fill(self.moves < 0, 0.0)
        total = torch.zeros(len(kept), self.word_scores.shape[1], dtype=kept.dtype)
        for weight, move in zip(kept.unbind(1), self.moves.clamp(min=0).unbind(1), strict=True):
            total.addcmul_(weight.unsqueeze(1), self.word_scores[move])
        return total


def gradient_problem(
    policy: Policy,
    parameters: Iterable[Tensor],
    world: TokenWorld,
    prompt: str,
    *,
    reward: RewardFunction | None = None,
) -> GradientProblem:
    """List the completions of one prompt with their probabilities, rewards and scores.

    Args:
        policy: token ids → logits.
        parameters: tensors that require gradients, D numbers in all: the derivative is with
            respect to them.
        world: what to enumerate.
        prompt: one of the world's prompts.
        reward: None takes the world's own.
    Returns:
        The enumeration, detached.
    """
    theta = list(parameters)
    levels = oracle.state_logprobs(policy, world, prompt)
    flat = torch.cat(levels).reshape(-1)  # (S·A,)
    rows = torch.autograd.grad(
        flat,
        theta,
        grad_outputs=torch.eye(len(flat), dtype=flat.dtype),
        is_grads_batched=True,
        allow_unused=True,
        materialize_grads=True,
    )
    logp = oracle.completion_logprobs(policy, world, prompt)
    return GradientProblem(
        probability=logp.exp().detach(),
        rewards=oracle.rewards(world, prompt, reward=reward).to(flat.dtype),
        word_scores=torch.cat([row.reshape(len(flat), -1) for row in rows], dim=1),
        moves=oracle.word_moves(world),
    )


def of_terms(
    problem: GradientProblem, terms: Tensor, *, count: int = 1, probability: Tensor | None = None
) -> GradientMoments:
    """Moments of the mean of independent terms, one a completion.

    Args:
        problem: the list of completions.
        terms: (N, D) float, what each completion would contribute, such as
            `problem.combine(advantages)`.
        count: ≥ 1, how many completions are averaged.
        probability: (N,) float in [0, 1], who sampled, that sum to 1; None takes the policy itself.
    Returns:
        The moments: exact up to rounding.
    Source: chapter 05, eq. (5.6).
    """
    sampled = problem.probability if probability is None else probability
    truth = problem.truth
    mean = sampled @ terms
    direction = truth / truth.norm().clamp(min=1e-300)
    spread = sampled @ (terms - mean).pow(2).sum(-1)
    along = sampled @ ((terms - mean) @ direction) ** 2
    return GradientMoments(mean, truth, float(spread) / count, float(along) / count)


def of_groups(
    problem: GradientProblem, compare: Callable[[Tensor], Tensor], *, group_size: int
) -> GradientMoments:
    """Moments of (1/K) Σ_i Â_i ∇ log p(x_i), where Â depends on all rewards of the group.

    Args:
        problem: the list of completions.
        compare: rewards (M, K) → advantages (M, K), each row a group; the order of a row must not
            matter, as in `advantages.leave_one_out`.
        group_size: K ≥ 1.
    Returns:
        The moments: exact up to rounding.
    Raises:
        ValueError: there are too many ways to share K completions among the rewards, or the
            comparison treats equal rewards differently.
    Source: chapter 06, eq. (6.9).
    """
    rewards, kind = problem.rewards.unique(return_inverse=True)  # (V,), (N,)
    counts = share_out(group_size, len(rewards)).to(problem.scores.dtype)  # (M, V)
    share = torch.zeros_like(rewards).index_add_(0, kind, problem.probability)  # (V,)
    given = problem.probability / share[kind]  # p(x | R = r)
    means = torch.zeros(len(rewards), problem.scores.shape[1], dtype=rewards.dtype)
    means.index_add_(0, kind, given.unsqueeze(1) * problem.scores)  # (V, D) E[score | R = r]
    chance = (
        torch.lgamma(torch.tensor(group_size + 1.0, dtype=rewards.dtype))
        - torch.lgamma(counts + 1).sum(-1)
        + torch.special.xlogy(counts, share).sum(-1)
    ).exp()  # (M,) multinomial
    weights = counts * _compare_counts(compare, rewards, counts) / group_size  # (M, V)
    truth, mean = problem.truth, (chance @ weights) @ means
    variances = []
    for axes in (None, truth / truth.norm().clamp(min=1e-300)):
        scores = problem.scores if axes is None else problem.scores @ axes.unsqueeze(1)
        centre = means if axes is None else means @ axes.unsqueeze(1)
        within = torch.zeros_like(rewards)
        within.index_add_(0, kind, given * (scores - centre[kind]).pow(2).sum(-1))
        shifted = weights - chance @ weights  # E ĝ is the mean over the counts
        between = ((shifted @ (centre @ centre.T)) * shifted).sum(-1)
        each = weights**2 / counts.clamp(min=1)  # n (w/K)², with w n / K at hand
        variances.append(float(chance @ (between + each @ within)))
    return GradientMoments(mean, truth, variances[0], variances[1])


def share_out(group_size: int, kinds: int) -> Tensor:
    """Every way to share K completions among V kinds.

    Args:
        group_size: K ≥ 1.
        kinds: V ≥ 1.
    Returns:
        (M, V) int64, rows that sum to K; M = (K+V−1 choose V−1).
    Raises:
        ValueError: M is too large, or K below 1.
    """
    ways = 1
    for k in range(1, kinds):
        ways = ways * (group_size + k) // k
    if group_size < 1 or ways > MOST_COUNTS:
        raise ValueError(
            f"{ways:,} ways to share {group_size} completions among {kinds} different rewards: "
            f"the exact moments stop at {MOST_COUNTS:,}. Take smaller groups, or round the rewards."
        )
    bars = torch.tensor(list(itertools.combinations(range(group_size + kinds - 1), kinds - 1)))
    bars = bars.view(ways, kinds - 1)
    left = torch.full((ways, 1), -1)
    right = torch.full((ways, 1), group_size + kinds - 1)
    return torch.cat([left, bars, right], dim=1).diff(dim=1) - 1


def _compare_counts(compare: Callable[[Tensor], Tensor], rewards: Tensor, counts: Tensor) -> Tensor:
    """(M, V): the advantage of a completion that earns the v-th reward, in each group."""
    size = int(counts[0].sum())
    kinds = torch.arange(len(rewards)).expand(counts.shape).reshape(-1)
    groups = rewards[kinds.repeat_interleave(counts.long().reshape(-1))].view(-1, size)  # (M, K)
    judged = compare(groups)
    if judged.shape != groups.shape:
        raise ValueError(
            f"the comparison returned {tuple(judged.shape)} for {tuple(groups.shape)}."
        )
    first = (counts.cumsum(-1) - counts).long()  # where each kind begins in its row
    last = (counts.cumsum(-1) - 1).clamp(min=0).long()
    picked = judged.gather(1, first.clamp(max=size - 1))
    same = torch.isclose(picked, judged.gather(1, last)) | (counts == 0)
    if not bool(same.all()):
        raise ValueError("the comparison gives equal rewards of one group different advantages.")
    return picked.masked_fill(counts == 0, 0.0)


def widest_across(problem: GradientProblem, terms: Tensor) -> Tensor:
    """The direction at a right angle to ∇L in which the terms vary most.

    Args:
        problem: the list of completions.
        terms: (N, D) float, what each completion would contribute.
    Returns:
        (D,) float, of length 1.
    """
    ahead = problem.truth / problem.truth.norm()
    wanders = terms - (terms @ ahead).unsqueeze(1) * ahead
    weighted = problem.probability.sqrt().unsqueeze(1) * wanders
    return torch.linalg.svd(weighted, full_matrices=False).Vh[0]


def best_constant(problem: GradientProblem) -> float:
    """The constant baseline of least variance: b* = E[R ‖∇ log p‖²] / E[‖∇ log p‖²].

    Args:
        problem: the list of completions.
    Returns:
        b*, reward units.
    Source: Greensmith, Bartlett and Baxter (2004); chapter 06, eq. (6.5).
    """
    weight = problem.probability * problem.scores.pow(2).sum(-1)
    return float(weight @ problem.rewards / weight.sum())


contract.hold(globals())
