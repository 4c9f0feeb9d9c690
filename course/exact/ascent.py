"""Gradient ascent on a token world: draw completions, score them, step uphill, and see exact J.

Sampling is one draw from the list of all completions: chapter 01 shows that the word-by-word
loop draws from the same distribution. Left out on purpose: optimizers with a
memory, clipping. A step is θ + η ĝ and nothing else, so that theory and run can be compared.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from course.exact import baselines, gradients, oracle
from course.exact.gradients import GradientMoments, GradientProblem
from course.exact.oracle import Policy
from course.exact.tables import TablePolicy
from course.worlds.word_world import RewardFunction, TokenWorld
from helpers import contract, logprobs, losses


@torch.no_grad()
def draw(
    policy: Policy, world: TokenWorld, prompt: str, count: int, *, generator: torch.Generator
) -> Tensor:
    """Sample completions, as their numbers in the list of all of them.

    Args:
        policy: token ids → logits: who writes.
        world: what to enumerate.
        prompt: one of the world's prompts.
        count: ≥ 1, how many, independent of each other.
        generator: the only source of chance.
    Returns:
        (count,) int64: rows of `oracle.enumerate_completions`.
    Raises:
        ValueError: count is below 1.
    """
    probs = oracle.completion_logprobs(policy, world, prompt).exp()
    return torch.multinomial(probs, count, replacement=True, generator=generator)


def score(policy: Policy, world: TokenWorld, prompt: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each word of some completions, by one teacher-forced call.

    Args:
        policy: token ids → logits, causal.
        world: what to enumerate.
        prompt: one of the world's prompts.
        rows: (B,) int64 in [0, N), B ≥ 1, as `draw` returns them.
    Returns:
        token_logprobs: (B, T) float, nats: log π(x_t | s_t); differentiable. 0 after the end.
        completion_mask: (B, T) bool, True on the words of a completion, the ending word included.
    Source: chapter 01, eq. (1.5): the logits before a word score it.
    """
    every = oracle.enumerate_completions(world)
    completion_ids = every.completion_ids[rows]  # (B, T)
    first = torch.full((len(rows), 1), world.prompt_id(prompt))
    logits = policy(torch.cat([first, completion_ids[:, :-1]], dim=1))  # (B, T, A)
    mask = logprobs.mask_from_lengths(every.lengths[rows], world.max_length)
    return logprobs.token_logprobs(logits, completion_ids).masked_fill(~mask, 0.0), mask


def estimate(
    policy: Policy,
    parameters: Iterable[Tensor],
    world: TokenWorld,
    prompt: str,
    rows: Tensor,
    *,
    reward: RewardFunction | None = None,
) -> Tensor:
    """The REINFORCE estimate of ∇L(c) from one batch, by differentiating the surrogate.

    Args:
        policy: token ids → logits: who wrote, and who learns.
        parameters: tensors that require gradients, D numbers in all: the derivative is with
            respect to them.
        world: what to enumerate.
        prompt: one of the world's prompts.
        rows: (B,) int64 in [0, N), B ≥ 1, as `draw` returns them.
        reward: None takes the world's own.
    Returns:
        (D,) float, uphill: (1/B) Σ_i R(c, x_i) ∇ log p(x_i | c).
    Source: Williams (1992); chapter 05, eqs. (5.5) and (5.7).
    """
    rewards = oracle.rewards(world, prompt, reward=reward)[rows]
    return _uphill(policy, list(parameters), world, prompt, rows, rewards)


def moments_of_loss(
    loss_function: Callable[[Tensor, Tensor, Tensor], Tensor],
    policy: Policy,
    problem: GradientProblem,
    world: TokenWorld,
    prompt: str,
    *,
    batch_size: int,
) -> GradientMoments:
    """What the gradient of any loss is on average, over every batch that can be drawn.

    Args:
        loss_function: (token_logprobs (B, T), rewards (B,), completion_mask (B, T)) → () loss.
        policy: who writes, and who learns.
        problem: its `gradients.gradient_problem`, with N completions.
        world: small: N^batch_size batches are differentiated.
        prompt: that of `problem`.
        batch_size: B ≥ 1, completions a batch.
    Returns:
        Moments of −∇loss against ∇L(c).
    Raises:
        ValueError: there are more than 10,000 batches.
    Source: chapter 05, exercise 5.5.
    """
    number = len(problem.rewards)
    if number**batch_size > 10_000:
        raise ValueError(f"{number}^{batch_size} batches are too many; take a smaller world.")
    with torch.no_grad():
        logps, mask = score(policy, world, prompt, torch.arange(number))
    batches = list(itertools.product(range(number), repeat=batch_size))
    weights: list[Tensor] = []
    for batch in batches:
        rows = list(batch)
        leaf = logps[rows].requires_grad_()
        loss = loss_function(leaf, problem.rewards[rows], mask[rows])
        [slope] = torch.autograd.grad(loss, [leaf], allow_unused=True, materialize_grads=True)
        weights.append(-slope.masked_fill(~mask[rows], 0.0))
    drawn = torch.tensor(batches)  # (M, B)
    place = torch.zeros(len(drawn), len(problem.word_scores), dtype=problem.word_scores.dtype)
    moves = problem.moves[drawn].reshape(len(drawn), -1).clamp(min=0)
    place.scatter_add_(1, moves, torch.stack(weights).reshape(len(drawn), -1))
    estimates = place @ problem.word_scores  # (M, D)
    chance, truth = problem.probability[drawn].prod(-1), problem.truth
    mean = chance @ estimates
    along = (estimates - mean) @ (truth / truth.norm().clamp(min=1e-300))
    spread = chance @ (estimates - mean).pow(2).sum(-1)
    return GradientMoments(mean, truth, float(spread), float(chance @ along**2))


@dataclass(frozen=True)
class Settings:
    """How to climb: which gradient, how far, how often, and what is paid."""

    lr: float  # η ≥ 0, the learning rate of plain gradient ascent
    steps: int  # ≥ 0; the first record is the start, before any step
    group_size: int | None = None  # K ≥ 1 completions a prompt and step; None: the exact gradient
    baseline: str = "none"  # a name in `baselines.FAMILY`; what remembers, starts at 0
    constant: float = 1.0  # of the baseline "constant", reward units
    temperature: float = 1.0  # > 0: the policy is softmax(logits / temperature), also scored so
    prompts: tuple[str, ...] | None = None  # not empty; None: all of the world, equally
    reward: RewardFunction | None = None  # None takes the world's own


def climb(
    policy: Policy,
    parameters: Iterable[Tensor],
    world: TokenWorld,
    settings: Settings,
    *,
    generator: torch.Generator | None = None,
) -> Iterator[dict[str, float]]:
    """Plain gradient ascent, θ ← θ + η ĝ, with a new batch at every step; the exact J of each.

    Args:
        policy: token ids → logits; its parameters are written to.
        parameters: tensors that require gradients: what learns.
        world: whose completions are listed.
        settings: how to climb.
        generator: the source of chance; needed if completions are drawn.
    Returns:
        An iterator of steps + 1 records: step, objective (exact J of the sampling policy, mean
        over the prompts), and of the batch that is drawn from it reward (mean) and spread
        (standard deviation of its advantages); nan where none is drawn.
    Raises:
        ValueError: a setting cannot work, or the gradient is not finite.
    Source: chapter 05, eq. (5.9).
    """
    if settings.group_size is None:
        return _climb(policy, list(parameters), world, settings, None, None)
    if generator is None:
        raise ValueError("sampled steps need a generator: pass torch.Generator().manual_seed(0).")
    chosen = baselines.member(settings.baseline, settings.group_size)
    return _climb(policy, list(parameters), world, settings, chosen, generator)


def _climb(
    policy: Policy,
    theta: list[Tensor],
    world: TokenWorld,
    settings: Settings,
    chosen: baselines.Member | None,
    generator: torch.Generator | None,
) -> Iterator[dict[str, float]]:
    """Follow the exact gradient, or with a baseline the estimate from drawn completions."""
    prompts = settings.prompts or world.prompts
    memory: dict[str, Tensor] = {}  # what a prompt's past batches have taught

    def tempered(token_ids: Tensor) -> Tensor:
        return policy(token_ids) / settings.temperature

    for step in range(settings.steps + 1):
        total, records, batches = torch.zeros(()), [], {}
        for prompt in prompts:
            problem = _listed(policy, theta, world, prompt, settings, chosen)
            record = {"objective": float(problem.probability @ problem.rewards)}
            if chosen is None or settings.group_size is None:
                if step < settings.steps:
                    total = total + oracle.objective_gradient(
                        tempered, theta, world, prompt, reward=settings.reward
                    )
            else:
                rows = torch.multinomial(
                    problem.probability, settings.group_size, replacement=True, generator=generator
                )  # one text in 341, as word after word would give it (chapter 01)
                known = baselines.Known(world.num_actions, settings.constant, memory.get(prompt))
                judged = chosen.judged(problem, rows, known)
                record["reward"] = float(problem.rewards[rows].mean())
                record["spread"] = float(judged.std(correction=0))
                total = total + _uphill(tempered, theta, world, prompt, rows, judged)
                batches[prompt] = (problem, rows)
            records.append(record)
        yield {"step": float(step), **_means(records)}
        if step == settings.steps:
            return
        if not bool(total.isfinite().all()):
            raise ValueError(
                f"the gradient is not finite at step {step}; lower lr ({settings.lr})."
            )
        _step(theta, total * (settings.lr / len(prompts)))
        for prompt, (problem, rows) in batches.items():  # a batch is judged by what came before
            if chosen is not None and chosen.learn is not None:
                memory[prompt] = chosen.learn(problem, memory.get(prompt), rows, world.num_actions)


def _means(records: list[dict[str, float]]) -> dict[str, float]:
    """Over the prompts; nan where nothing was drawn."""
    names = ("objective", "reward", "spread")
    return {name: sum(r.get(name, math.nan) for r in records) / len(records) for name in names}


def _listed(
    policy: Policy,
    theta: list[Tensor],
    world: TokenWorld,
    prompt: str,
    settings: Settings,
    chosen: baselines.Member | None,
) -> GradientProblem:
    """The list of completions, with the scores only if the baseline looks at them."""
    temperature, reward = settings.temperature, settings.reward
    if chosen is not None and chosen.needs_scores:
        if isinstance(policy, TablePolicy):
            return baselines.table_problem(policy, prompt, temperature=temperature, reward=reward)
        tempered = lambda token_ids: policy(token_ids) / temperature  # noqa: E731
        return gradients.gradient_problem(tempered, theta, world, prompt, reward=reward)
    with torch.no_grad():
        logp = oracle.completion_logprobs(lambda ids: policy(ids) / temperature, world, prompt)
    moves = oracle.word_moves(world)
    return GradientProblem(
        probability=logp.exp(),
        rewards=oracle.rewards(world, prompt, reward=reward),
        word_scores=logp.new_zeros(1 + int(moves.max()), 0),
        moves=moves,
    )


def _uphill(
    policy: Policy,
    theta: list[Tensor],
    world: TokenWorld,
    prompt: str,
    rows: Tensor,
    judged: Tensor,
) -> Tensor:
    """(D,) float: the estimate from drawn completions and their judgements."""
    with torch.enable_grad():
        token_logprobs, mask = score(policy, world, prompt, rows)
        loss = losses.reinforce_loss(token_logprobs, judged.to(token_logprobs.dtype), mask)
        grads = torch.autograd.grad(loss, theta, allow_unused=True, materialize_grads=True)
    return -torch.cat([grad.reshape(-1) for grad in grads])


@torch.no_grad()
def _step(theta: list[Tensor], change: Tensor) -> None:
    """Add a flat vector to the parameters, in place."""
    start = 0
    for tensor in theta:
        tensor += change[start : start + tensor.numel()].view_as(tensor)
        start += tensor.numel()


def bandit(rewards: Mapping[str, float], *, prompt: str = "taste") -> TokenWorld:
    """A world whose texts have one word each: nothing but a choice.

    Args:
        rewards: word → its reward, reward units; not empty.
        prompt: the only one.
    Returns:
        A token world with a limit of one word and no ending word.
    """
    paid = dict(rewards)
    return TokenWorld(
        words=tuple(paid),
        prompts=(prompt,),
        max_length=1,
        ends=False,
        reward=lambda prompts, texts: [paid[text] for text in texts],
    )


contract.hold(globals())
