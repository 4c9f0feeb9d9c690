"""The family of baselines, each with its exact moments, and ascent with any of them.

A baseline is what is subtracted from a reward before it judges a text, or a word. Here every
member is a function of the same list of completions (`estimators.GradientProblem`), so that
their exact means and variances can stand in one table. `ascend` learns with any of them.

What is left out: no state of an optimiser, no clipping, one gradient step a batch.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from helpers import advantages, ascent, estimators, exact, losses
from helpers.estimators import GradientMoments, GradientProblem
from helpers.tabular import TablePolicy
from helpers.worlds import RewardFunction, TokenWorld

GROUP_COMPARISONS: dict[str, Callable[[Tensor], Tensor]] = {
    "group mean with self": advantages.minus_group_mean,
    "leave-one-out": advantages.leave_one_out,
    "group z-score": advantages.group_z_score,
}
NAMES = (
    "none", "constant", "E[R]", "running mean", *GROUP_COMPARISONS, "best constant b*",
    "learned V(s)", "exact V(s)", "exact Q − V",
)  # fmt: skip
MEMORY = 0.9  # of the running mean: how much of it a new batch leaves
VALUE_RATE = 0.2  # of the learned V: how far one visit moves it


def table_problem(
    table: TablePolicy, prompt: str, *, temperature: float = 1.0,
    reward: RewardFunction | None = None,
) -> GradientProblem:  # fmt: skip
    """`estimators.gradient_problem` for a table, by formula: fast enough for a slider.

    ∂ log π(b | s) / ∂z_{s,a} = (1[a = b] − π(a | s)) / temperature, and nothing across states.

    Args:
        table: its logits at this prompt are the D = S·A parameters.
        prompt: one of its world's prompts.
        temperature: the policy is softmax(z / temperature): it samples and is scored like that.
        reward: None takes the world's own.
    Returns:
        The enumeration, float64.
    """
    world = table.world
    row = world.prompts.index(prompt)
    with torch.no_grad():
        probs = (table.logits[row] / temperature).softmax(-1)  # (S, A)
        logp = exact.completion_logprobs(lambda ids: table(ids) / temperature, world, prompt)
    blocks = (torch.eye(world.num_actions, dtype=probs.dtype) - probs.unsqueeze(1)) / temperature
    return GradientProblem(
        probability=logp.exp(),
        rewards=exact.rewards(world, prompt, reward=reward),
        word_scores=torch.block_diag(*blocks),
        moves=exact.word_moves(world),
    )


def exact_values(problem: GradientProblem, num_actions: int) -> tuple[Tensor, Tensor]:
    """V and Q (γ = 1) as averages of R over the completions that pass by.

    Args:
        problem: the list of completions.
        num_actions: A.
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
        num_actions: A.
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
        num_actions: A.
        count: how many texts are sampled.
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
        variance: of the baseline, reward units squared.
        count: completions that are averaged; they share one draw of the baseline.
    Returns:
        The moments. Each draw is unbiased, so the variance is the mean of the parabola (6.4).
    Source: chapter 06, eq. (6.4).
    """
    scores = problem.scores
    fixed = estimators.of_terms(
        problem, (problem.rewards - mean).unsqueeze(1) * scores, count=count
    )
    truth = problem.truth
    direction = truth / truth.norm().clamp(min=1e-300)
    spread = float(problem.probability @ scores.pow(2).sum(-1))
    along = float(problem.probability @ (scores @ direction) ** 2)
    return GradientMoments(
        fixed.mean, truth, fixed.variance + variance * spread / count,
        fixed.variance_along + variance * along / count,
    )  # fmt: skip


def moments(
    problem: GradientProblem, name: str, *, num_actions: int, group_size: int,
    constant: float = 1.0, learned: Tensor | None = None,
) -> GradientMoments:  # fmt: skip
    """Exact moments of one member of the family, for K completions of one prompt.

    Args:
        problem: the list of completions.
        name: one of NAMES.
        num_actions: A.
        group_size: K.
        constant: of the member "constant", reward units.
        learned: (S,) of the member "learned V(s)"; None draws one from 100 sampled texts.
    Returns:
        The moments.
    Raises:
        ValueError: there is no such member, or K is too small for it.
    """
    rewards = problem.rewards
    mean = float(problem.probability @ rewards)
    if name in GROUP_COMPARISONS:
        return estimators.of_groups(problem, GROUP_COMPARISONS[name], group_size=group_size)
    if name == "running mean":
        # Σ_k (1−m) m^k of batch means: variance Var(R)/K · (1−m)/(1+m)
        spread = float(problem.probability @ (rewards - mean) ** 2) / group_size
        spread *= (1 - MEMORY) / (1 + MEMORY)
        return with_independent(problem, mean=mean, variance=spread, count=group_size)
    constants = {"none": 0.0, "constant": constant, "E[R]": mean}
    if name == "best constant b*":
        constants[name] = estimators.best_constant(problem)
    if name in constants:
        terms = (rewards - constants[name]).unsqueeze(1) * problem.scores
        return estimators.of_terms(problem, terms, count=group_size)
    if name not in NAMES:
        raise ValueError(f"no baseline {name!r}; there are {list(NAMES)}.")
    state_values, q_values = exact_values(problem, num_actions)
    if name == "learned V(s)":
        if learned is None:
            source = torch.Generator().manual_seed(0)
            learned = sampled_values(problem, num_actions, count=100, generator=source)
        state_values = learned
    judged = excess(problem, state_values)
    if name == "exact Q − V":
        judged = problem.at_moves(q_values - state_values.unsqueeze(1))
    return estimators.of_terms(problem, problem.combine(judged), count=group_size)


def average(parts: Sequence[GradientMoments]) -> GradientMoments:
    """Moments of the mean of independent estimates, one a prompt, side by side.

    Args:
        parts: one for each prompt; their parameters are different ones, as a table's are.
    Returns:
        The moments of the mean, over all parameters joined.
    """
    count = len(parts)
    truth = torch.cat([part.truth for part in parts]) / count
    squares = torch.stack([part.truth @ part.truth for part in parts])
    shares = squares / squares.sum().clamp(min=1e-300)  # ∇J's direction has these parts
    along = sum(float(w) * p.variance_along for w, p in zip(shares, parts, strict=True))
    return GradientMoments(
        torch.cat([part.mean for part in parts]) / count, truth,
        sum(part.variance for part in parts) / count**2, along / count**2,
    )  # fmt: skip


def check(name: str, group_size: int) -> None:
    """Refuse settings that cannot work, in words.

    Args:
        name: one of NAMES.
        group_size: K.
    Raises:
        ValueError: no such baseline, or a group that is too small for it.
    """
    if name not in NAMES:
        raise ValueError(f"no baseline {name!r}; there are {list(NAMES)}.")
    if group_size < 1 or (name in GROUP_COMPARISONS and group_size < 2):
        reason = {
            "leave-one-out": "leaves nobody to compare with",
            "group mean with self": "compares a text with itself, and every advantage is 0",
        }.get(name, "has no standard deviation")
        raise ValueError(f"A group of {group_size} {reason}: take K ≥ 2, or another baseline.")


def ascend(
    table: TablePolicy, *, baseline: str, group_size: int, steps: int, learning_rate: float,
    seed: int, prompts: Sequence[str], temperature: float = 1.0, constant: float = 1.0,
    reward: RewardFunction | None = None,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Climb J with sampled groups and one of the baselines; the exact J at every step.

    Args:
        table: where to start; it is copied.
        baseline: one of NAMES. "running mean" and "learned V(s)" know past batches only, and
            start at 0.
        group_size: K completions a prompt and step.
        steps: how many; the first record is the start, before any step.
        learning_rate: of plain gradient ascent.
        seed: of the completions that are sampled.
        prompts: which to write to.
        temperature: samples from softmax(z / temperature), and is scored like that.
        constant: of the baseline "constant", reward units.
        reward: None takes the world's own.
    Returns:
        An iterator of records: step, objective (exact J of the sampling policy, mean over the
        prompts), reward (mean of the batch), spread (standard deviation of its advantages).
    Raises:
        ValueError: a setting cannot work.
    """
    check(baseline, group_size)
    world = table.world
    policy = TablePolicy(world)
    policy.load_state_dict(table.state_dict())
    generator = torch.Generator().manual_seed(seed)
    memory: dict[str, Tensor] = {}  # what this prompt's past batches have taught
    paid = {p: exact.rewards(world, p, reward=reward) for p in prompts}

    def tempered(token_ids: Tensor) -> Tensor:
        return policy(token_ids) / temperature

    for step in range(steps + 1):
        record = {"step": float(step), "objective": 0.0, "reward": 0.0, "spread": 0.0}
        batches, loss = [], torch.zeros((), dtype=torch.float64)
        for prompt in prompts:
            with torch.no_grad():
                probability = exact.completion_logprobs(tempered, world, prompt).exp()
            record["objective"] += float(probability @ paid[prompt]) / len(prompts)
            rows = torch.multinomial(
                probability, group_size, replacement=True, generator=generator
            )  # one text in 341, as word after word would give it (chapter 01)
            judged = _judge(
                baseline, policy, prompt, rows, paid[prompt], temperature, constant,
                memory.get(prompt), probability,
            )  # fmt: skip
            record["reward"] += float(paid[prompt][rows].mean()) / len(prompts)
            record["spread"] += float(judged.std(correction=0)) / len(prompts)
            with torch.enable_grad():
                logps, mask = ascent.score(tempered, world, prompt, rows)
                loss = loss + losses.reinforce_loss(logps, judged, mask) / len(prompts)
            batches.append((prompt, rows))
        yield record
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss, [policy.logits])
        with torch.no_grad():
            policy.logits.sub_(gradient, alpha=learning_rate)
        for prompt, rows in batches:  # only now: a batch is judged by what came before it
            memory[prompt] = _remember(baseline, memory.get(prompt), rows, paid[prompt], world)


def _judge(
    name: str, policy: TablePolicy, prompt: str, rows: Tensor, paid: Tensor, temperature: float,
    constant: float, memory: Tensor | None, probability: Tensor,
) -> Tensor:  # fmt: skip
    """Advantages of the drawn completions: (K,) one a completion, or (K, T) one a word."""
    rewards, world = paid[rows], policy.world
    if name in GROUP_COMPARISONS:
        return GROUP_COMPARISONS[name](rewards)
    if name in ("none", "constant"):
        return rewards - (constant if name == "constant" else 0.0)
    if name == "E[R]":
        return rewards - probability @ paid
    if name == "running mean":
        return rewards if memory is None else rewards - memory
    moves = exact.word_moves(world)
    if name == "learned V(s)":
        guess = torch.zeros(policy.logits.shape[1]) if memory is None else memory
        return rewards.unsqueeze(1) - guess[moves[rows].clamp(min=0) // world.num_actions]
    problem = table_problem(policy, prompt, temperature=temperature)
    problem = GradientProblem(problem.probability, paid, problem.word_scores, problem.moves)
    if name == "best constant b*":
        return rewards - estimators.best_constant(problem)
    state_values, q_values = exact_values(problem, world.num_actions)
    if name == "exact V(s)":
        return excess(problem, state_values)[rows]
    return (q_values - state_values.unsqueeze(1)).reshape(-1)[moves[rows].clamp(min=0)]


def _remember(
    name: str, memory: Tensor | None, rows: Tensor, paid: Tensor, world: TokenWorld
) -> Tensor:
    """What is kept of this batch for the next ones."""
    rewards = paid[rows]
    if name != "learned V(s)":
        return rewards.mean() if memory is None else MEMORY * memory + (1 - MEMORY) * rewards.mean()
    moves = exact.word_moves(world)
    states = 1 + int(moves.max()) // world.num_actions
    guess = torch.zeros(states, dtype=paid.dtype) if memory is None else memory.clone()
    for row, reward in zip(rows.tolist(), rewards.tolist(), strict=True):
        passed = moves[row][moves[row] >= 0] // world.num_actions
        guess[passed] += VALUE_RATE * (reward - guess[passed])
    return guess
