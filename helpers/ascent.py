"""Gradient ascent on a token world: draw completions, score them, step uphill, and see exact J.

Sampling is one draw from the list of all completions: chapter 01 shows that the word-by-word
loop draws from the same distribution. Left out on purpose: optimizers with a memory, baselines,
clipping. A step is θ + η ĝ and nothing else, so that theory and run can be compared.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from helpers import exact, logprobs, losses
from helpers.estimators import GradientMoments, GradientProblem
from helpers.exact import Policy
from helpers.worlds import RewardFunction, TokenWorld


@torch.no_grad()
def draw(
    policy: Policy, world: TokenWorld, prompt: str, count: int, *, generator: torch.Generator
) -> Tensor:
    """Sample completions, as their numbers in the list of all of them.

    Args:
        policy: token ids → logits: who writes.
        world: what to enumerate.
        prompt: one of the world's prompts.
        count: how many, independent of each other.
        generator: the only source of chance.
    Returns:
        (count,) int64: rows of `exact.enumerate_completions`.
    Raises:
        ValueError: count is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}.")
    probs = exact.completion_logprobs(policy, world, prompt).exp()
    return torch.multinomial(probs, count, replacement=True, generator=generator)


def score(policy: Policy, world: TokenWorld, prompt: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each word of some completions, by one teacher-forced call.

    Args:
        policy: token ids → logits, causal.
        world: what to enumerate.
        prompt: one of the world's prompts.
        rows: (B,) int64, as `draw` returns them.
    Returns:
        token_logprobs: (B, T) float, nats: log π(x_t | s_t); differentiable. 0 after the end.
        completion_mask: (B, T) bool, True on the words of a completion, the ending word included.
    Source: chapter 01, eq. (1.5): the logits before a word score it.
    """
    every = exact.enumerate_completions(world)
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
        parameters: the D numbers to differentiate with respect to, as tensors.
        world: what to enumerate.
        prompt: one of the world's prompts.
        rows: (B,) int64, as `draw` returns them.
        reward: None takes the world's own.
    Returns:
        (D,) float, uphill: (1/B) Σ_i R(c, x_i) ∇ log p(x_i | c).
    Source: Williams (1992); chapter 05, eqs. (5.5) and (5.7).
    """
    token_logprobs, mask = score(policy, world, prompt, rows)
    rewards = exact.rewards(world, prompt, reward=reward)[rows].to(token_logprobs.dtype)
    loss = losses.reinforce_loss(token_logprobs, rewards, mask)
    grads = torch.autograd.grad(
        loss, list(parameters), allow_unused=True, materialize_grads=True
    )  # fmt: skip
    return -torch.cat([grad.reshape(-1) for grad in grads])


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
        problem: its `estimators.gradient_problem`, with N completions.
        world: small: N^batch_size batches are differentiated.
        prompt: that of `problem`.
        batch_size: B, completions a batch.
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


def climb(
    policy: Policy,
    parameters: Iterable[Tensor],
    world: TokenWorld,
    *,
    lr: float,
    steps: int,
    count: int | None = None,
    generator: torch.Generator | None = None,
    reward: RewardFunction | None = None,
) -> Iterator[float]:
    """Plain gradient ascent, θ ← θ + η ĝ, with a new batch at every step.

    Args:
        policy: token ids → logits; its parameters are written to.
        parameters: the tensors to learn.
        world: every prompt of it counts equally.
        lr: η, the learning rate.
        steps: how many.
        count: completions a prompt and step; None follows the exact gradient.
        generator: the source of chance; needed if count is given.
        reward: None takes the world's own.
    Yields:
        steps + 1 numbers: exact J before the first step and after each one, reward units.
    Raises:
        ValueError: a count without a generator, or a gradient that is not finite.
    Source: chapter 05, eq. (5.9).
    """
    theta = list(parameters)
    if count is not None and generator is None:
        raise ValueError("sampled steps need a generator: pass torch.Generator().manual_seed(0).")
    for step in range(steps + 1):
        with torch.no_grad():
            values = [exact.objective(policy, world, c, reward=reward) for c in world.prompts]
        yield float(sum(values)) / len(values)
        if step == steps:
            return
        total = torch.zeros(())
        for prompt in world.prompts:
            if count is None or generator is None:
                total = total + exact.objective_gradient(
                    policy, theta, world, prompt, reward=reward
                )
            else:
                rows = draw(policy, world, prompt, count, generator=generator)
                total = total + estimate(policy, theta, world, prompt, rows, reward=reward)
        if not bool(total.isfinite().all()):
            raise ValueError(f"the gradient is not finite at step {step}; lower lr ({lr}).")
        _step(theta, total * (lr / len(world.prompts)))


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
        rewards: word → its reward, reward units.
        prompt: the only one.
    Returns:
        A token world with a limit of one word and no ending word.
    """
    paid = dict(rewards)
    return TokenWorld(
        words=tuple(paid), prompts=(prompt,), max_length=1, ends=False,
        reward=lambda prompts, texts: [paid[text] for text in texts],
    )  # fmt: skip
