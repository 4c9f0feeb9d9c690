"""The family of baselines, each with its exact moments, in one table: `FAMILY`.

A baseline is what is subtracted from a reward before it judges a text, or a word. Here every
member is a function of the same list of completions (`gradients.GradientProblem`), so that
their exact means and variances can be compared. `ascent.climb` learns with any of them.

Those that need no list of all texts are the training loop's too (`settings.BASELINES`), with one
difference: the running mean here is one for each prompt, there one for all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from course.exact import gradients, oracle
from course.exact.gradients import GradientMoments, GradientProblem
from course.exact.tables import TablePolicy
from course.worlds.word_world import RewardFunction
from helpers import advantages, contract, settings

VALUE_RATE = 0.2  # of the learned V: how far one visit moves it


def table_problem(
    table: TablePolicy,
    prompt: str,
    *,
    temperature: float = 1.0,
    reward: RewardFunction | None = None,
) -> GradientProblem:
    """`gradients.gradient_problem` for a table, by formula: fast enough for a slider.

    ∂ log π(b | s) / ∂z_{s,a} = (1[a = b] − π(a | s)) / temperature, and nothing across states.

    Args:
        table: its logits at this prompt are the D = S·A parameters.
        prompt: one of its world's prompts.
        temperature: > 0; the policy is softmax(z / temperature): it samples and is scored like
            that.
        reward: None takes the world's own.
    Returns:
        The enumeration, float64.
    """
    world = table.world
    row = world.prompts.index(prompt)
    with torch.no_grad():
        probs = (table.logits[row] / temperature).softmax(-1)  # (S, A)
        logp = oracle.completion_logprobs(lambda ids: table(ids) / temperature, world, prompt)
    blocks = (torch.eye(world.num_actions, dtype=probs.dtype) - probs.unsqueeze(1)) / temperature
    return GradientProblem(
        probability=logp.exp(),
        rewards=oracle.rewards(world, prompt, reward=reward),
        word_scores=torch.block_diag(*blocks),
        moves=oracle.word_moves(world),
    )


def exact_values(problem: GradientProblem, num_actions: int) -> tuple[Tensor, Tensor]:
    """V and Q (γ = 1) as averages of R over the completions that pass by.

    Args:
        problem: the list of completions.
        num_actions: A, A ≥ 1.
    Returns:
        V (S,) and Q (S, A) float, reward units; states breadth first.
    """
    inside = problem.moves >= 0
    flat = problem.moves.clamp(min=0)
    count = problem.word_scores.shape[0]
    chance = (problem.probability.unsqueeze(1) * inside).reshape(-1)
    reach = torch.zeros(count, dtype=chance.dtype).index_add_(0, flat.reshape(-1), chance)
    paid = chance * problem.rewards.unsqueeze(1).expand_as(inside).reshape(-1)
    total = torch.zeros_like(reach).index_add_(0, flat.reshape(-1), paid)
    reach, total = reach.view(-1, num_actions), total.view(-1, num_actions)
    tiny = torch.finfo(reach.dtype).tiny
    return total.sum(-1) / reach.sum(-1).clamp(min=tiny), total / reach.clamp(min=tiny)


def excess(problem: GradientProblem, values: Tensor) -> Tensor:
    """R − V(s_t) of every word of every completion: the judgement with a state's baseline.

    Args:
        problem: the list of completions.
        values: (S,) float, any number for each state, breadth first.
    Returns:
        (N, T) float, reward units; 0 after the end.
    Raises:
        ValueError: the number of states is not this problem's.
    """
    judged = problem.rewards.unsqueeze(1) - problem.at_states(values)
    return judged.masked_fill(problem.moves < 0, 0.0)


def best_state_baseline(problem: GradientProblem, num_actions: int) -> Tensor:
    """The b(s) of least variance among all baselines that look at the state only.

    The variance is a quadratic function of the S numbers b(s); its minimum solves a linear
    system. For a table, whose states share no parameters, the system is diagonal.

    Args:
        problem: the list of completions.
        num_actions: A, A ≥ 1.
    Returns:
        (S,) float, reward units; states breadth first.
    Source: Greensmith, Bartlett and Baxter (2004); chapter 06, exercise 6.7.
    """
    states = problem.word_scores.shape[0] // num_actions
    gram = problem.word_scores @ problem.word_scores.T  # (S·A, S·A)
    visits = torch.zeros(len(problem.moves), len(gram), dtype=gram.dtype)
    visits.scatter_add_(1, problem.moves.clamp(min=0), (problem.moves >= 0).to(gram.dtype))

    def expected(weight: Tensor) -> Tensor:  # Σ_x weight(x) of scores met together
        met = visits.T @ (weight.unsqueeze(1) * visits) * gram
        return met.view(states, num_actions, states, num_actions).sum((1, 3))  # (S, S)

    system = expected(problem.probability)
    wanted = expected(problem.probability * problem.rewards).sum(-1)
    return torch.linalg.lstsq(system, wanted.unsqueeze(1), driver="gelsd").solution.squeeze(1)


def sampled_values(
    problem: GradientProblem, num_actions: int, *, count: int, generator: torch.Generator
) -> Tensor:
    """V(s) as the mean return of sampled texts that pass by: regression on returns.

    Args:
        problem: the list of completions, sampled by its own policy.
        num_actions: A, A ≥ 1.
        count: ≥ 1, how many texts are sampled.
        generator: the source of chance.
    Returns:
        (S,) float, reward units. A state that no text passed gets the mean of all texts.
    """
    drawn = torch.multinomial(problem.probability, count, replacement=True, generator=generator)
    states = problem.word_scores.shape[0] // num_actions
    inside = problem.moves[drawn] >= 0
    passed = (problem.moves[drawn] // num_actions)[inside]  # (visits,)
    paid = problem.rewards[drawn].unsqueeze(1).expand_as(inside)[inside]
    visits = torch.zeros(states, dtype=paid.dtype).index_add_(0, passed, torch.ones_like(paid))
    total = torch.zeros_like(visits).index_add_(0, passed, paid)
    mean = problem.rewards[drawn].mean()
    return torch.where(visits > 0, total / visits.clamp(min=1), mean)


def with_independent(
    problem: GradientProblem, *, mean: float, variance: float, count: int
) -> GradientMoments:
    """Moments with a baseline that is random, but independent of the batch it judges.

    Args:
        problem: the list of completions.
        mean: of the baseline, reward units.
        variance: ≥ 0, of the baseline, reward units squared.
        count: ≥ 1, completions that are averaged; they share one draw of the baseline.
    Returns:
        The moments. Each draw is unbiased, so the variance is the mean of the parabola (6.4).
    Source: chapter 06, eq. (6.4).
    """
    scores = problem.scores
    fixed = gradients.of_terms(problem, (problem.rewards - mean).unsqueeze(1) * scores, count=count)
    truth = problem.truth
    direction = truth / truth.norm().clamp(min=1e-300)
    spread = float(problem.probability @ scores.pow(2).sum(-1))
    along = float(problem.probability @ (scores @ direction) ** 2)
    return GradientMoments(
        fixed.mean,
        truth,
        fixed.variance + variance * spread / count,
        fixed.variance_along + variance * along / count,
    )


@dataclass(frozen=True)
class Known:
    """What a baseline may look at, besides the list of completions."""

    num_actions: int  # A ≥ 1
    constant: float = 1.0  # of the member "constant", reward units
    memory: Tensor | None = None  # () or (S,) float, what past batches have taught


Judge = Callable[[GradientProblem, Known], Tensor]  # → (N,) or (N, T) float, reward units


@dataclass(frozen=True)
class Member(settings.Baseline):
    """A baseline with what the oracle needs to know of it.

    A member judges each completion by itself (`judge`), or compares the completions of a group
    (`group`), and may remember past batches (`learn`).
    """

    judge: Judge | None = None
    group: str = ""  # which of `advantages.GROUP_COMPARISONS`
    learn: Callable[[GradientProblem, Tensor | None, Tensor, int], Tensor] | None = None
    needs_scores: bool = False  # or is the list of probabilities and rewards enough?

    def judged(self, problem: GradientProblem, rows: Tensor, known: Known) -> Tensor:
        """The judgement of some completions that were drawn together.

        Args:
            problem: the list of completions.
            rows: (K,) int64 in [0, N), K ≥ 1, those that were drawn.
            known: what the baseline may look at.
        Returns:
            (K,) float, one for each completion, or (K, T), one for each word; reward units.
        """
        if self.judge is None:
            return advantages.compare(self.group, problem.rewards[rows])
        return self.judge(problem, known)[rows]


def _minus(level: Callable[[GradientProblem, Known], Tensor | float]) -> Judge:
    """A judge of whole texts: the reward minus one number."""
    return lambda problem, known: problem.rewards - level(problem, known)


def _past_mean(problem: GradientProblem, known: Known) -> Tensor | float:
    return 0.0 if known.memory is None else known.memory


def _exact_value(problem: GradientProblem, known: Known) -> Tensor:
    return excess(problem, exact_values(problem, known.num_actions)[0])


def _exact_advantage(problem: GradientProblem, known: Known) -> Tensor:
    state_values, q_values = exact_values(problem, known.num_actions)
    return problem.at_moves(q_values - state_values.unsqueeze(1))


def _learned_value(problem: GradientProblem, known: Known) -> Tensor:
    states = problem.word_scores.shape[0] // known.num_actions
    zeros = torch.zeros(states, dtype=problem.rewards.dtype)
    return excess(problem, zeros if known.memory is None else known.memory)


def _learn_mean(
    problem: GradientProblem, memory: Tensor | None, rows: Tensor, num_actions: int
) -> Tensor:
    return advantages.running_mean(memory, problem.rewards[rows])


def _learn_values(
    problem: GradientProblem, memory: Tensor | None, rows: Tensor, num_actions: int
) -> Tensor:
    """Each visit of a state moves its value a little towards what the text was paid."""
    states = problem.word_scores.shape[0] // num_actions
    rewards, moves = problem.rewards[rows], problem.moves[rows]
    guess = torch.zeros(states, dtype=rewards.dtype) if memory is None else memory.clone()
    for visited, reward in zip(moves, rewards.tolist(), strict=True):
        passed = visited[visited >= 0] // num_actions
        guess[passed] += VALUE_RATE * (reward - guess[passed])
    return guess


def _shared(name: str, **what: Any) -> Member:
    """A member that the training loop has as well."""
    return Member(**vars(settings.BASELINES[name]), **what)


FAMILY: dict[str, Member] = {
    "none": _shared("none", judge=_minus(lambda problem, known: 0.0)),
    "constant": _shared("constant", judge=_minus(lambda problem, known: known.constant)),
    "expected_reward": Member(
        "E[R]", judge=_minus(lambda problem, known: problem.probability @ problem.rewards)
    ),
    "prompt_running_mean": Member("running mean", judge=_minus(_past_mean), learn=_learn_mean),
    **{name: _shared(name, group=name) for name in advantages.GROUP_COMPARISONS},
    "best_constant": Member(
        "best constant b*",
        judge=_minus(lambda problem, known: gradients.best_constant(problem)),
        needs_scores=True,
    ),
    "learned_value": _shared("learned_value", judge=_learned_value, learn=_learn_values),
    "exact_value": Member("exact V(s)", judge=_exact_value),
    "exact_advantage": Member("exact Q − V", judge=_exact_advantage),
}


contract.PHRASES["name in `baselines.FAMILY`"] = lambda name, _: (
    name in FAMILY or name in [each.label for each in FAMILY.values()]
)


def member(name: str, group_size: int) -> Member:
    """A member of the family, if it can judge groups of this size.

    Args:
        name: a slug of `FAMILY`; its label, the old name, is taken with a warning.
        group_size: K ≥ 1.
    Raises:
        ValueError: there is no such member, or K is too small for it.
    """
    name = settings.new_name(name, FAMILY)
    settings.check_baseline(name, group_size, FAMILY)
    return FAMILY[name]


def moments(
    problem: GradientProblem,
    name: str,
    *,
    num_actions: int,
    group_size: int,
    constant: float = 1.0,
    learned: Tensor | None = None,
) -> GradientMoments:
    """Exact moments of one member of the family, for K completions of one prompt.

    Args:
        problem: the list of completions.
        name: a slug of `FAMILY`.
        num_actions: A, A ≥ 1.
        group_size: K ≥ 1.
        constant: of the member "constant", reward units.
        learned: (S,) float, of the member "learned_value"; None draws one from 100 sampled texts.
    Returns:
        The moments.
    Raises:
        ValueError: there is no such member, or K is too small for it.
    """
    chosen = member(name, group_size)
    if chosen.judge is None:
        compare = advantages.GROUP_COMPARISONS[chosen.group]
        return gradients.of_groups(problem, compare, group_size=group_size)
    if chosen.learn is _learn_mean:  # random, but of past batches: the mean over all of them
        return _of_running_mean(problem, group_size)
    if chosen.learn is _learn_values and learned is None:
        source = torch.Generator().manual_seed(0)
        learned = sampled_values(problem, num_actions, count=100, generator=source)
    judged = chosen.judge(problem, Known(num_actions, constant, learned))
    terms = judged.unsqueeze(1) * problem.scores if judged.ndim == 1 else problem.combine(judged)
    return gradients.of_terms(problem, terms, count=group_size)


def _of_running_mean(problem: GradientProblem, group_size: int) -> GradientMoments:
    """Σ_k (1−m) m^k of batch means: mean E[R], variance Var(R)/K · (1−m)/(1+m)."""
    mean = float(problem.probability @ problem.rewards)
    spread = float(problem.probability @ (problem.rewards - mean) ** 2) / group_size
    spread *= (1 - advantages.MEMORY) / (1 + advantages.MEMORY)
    return with_independent(problem, mean=mean, variance=spread, count=group_size)


def average(parts: Sequence[GradientMoments]) -> GradientMoments:
    """Moments of the mean of independent estimates, one a prompt, side by side.

    Args:
        parts: not empty, one for each prompt; their parameters are different ones, as a table's
            are.
    Returns:
        The moments of the mean, over all parameters joined.
    """
    count = len(parts)
    truth = torch.cat([part.truth for part in parts]) / count
    squares = torch.stack([part.truth @ part.truth for part in parts])
    shares = squares / squares.sum().clamp(min=1e-300)  # ∇J's direction has these parts
    along = sum(float(w) * p.variance_along for w, p in zip(shares, parts, strict=True))
    return GradientMoments(
        torch.cat([part.mean for part in parts]) / count,
        truth,
        sum(part.variance for part in parts) / count**2,
        along / count**2,
    )


contract.hold(globals())
