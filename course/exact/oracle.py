"""The oracle: exact answers on a token world, by listing every completion.

A *policy* is any function from token ids (B, L) to logits (B, L, A) that is causal: the logits
at a position depend only on the ids up to it. A table, a transformer, or either of them behind
a temperature: the same lines serve all.

How it is fast: the deepest prefixes (64 in the word world) contain all shorter ones, so one
batched call of the policy gives the next-word distribution of every state. From there on
it is addition along the levels of the tree. In large worlds a transformer reads each prefix once,
from the keys and values of the one before. N counts completions, S states, A actions.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from scipy import stats
from torch import Tensor
from torch.utils import checkpoint

from course.worlds.word_world import RewardFunction, TokenWorld
from helpers import contract, decoding, kl, logprobs, probe

Policy = Callable[[Tensor], Tensor]
LARGE = 500  # deepest prefixes from which reading each prefix once pays
MANY = 20_000  # prefixes of a level from which activations are not kept,
PIECE = 1000  # and the children of so many are read at once


@dataclass(frozen=True)
class Completions:
    """Every completion of a world, in the order that all functions here use.

    First those that end after one word, then after two, …; last the ones that never end and
    are cut at the limit. Within one length: word ids read as digits.
    """

    completion_ids: Tensor  # (N, T) int64 ≥ 0; padded with 0, a word like any other: use `lengths`
    lengths: Tensor  # (N,) int64 ≥ 1, the ending word included
    finished: Tensor  # (N,) bool, False where the limit cut it
    texts: tuple[str, ...]  # N strings


@cache
def enumerate_completions(world: TokenWorld) -> Completions:
    """List every completion of a prompt: 341 in the word world.

    Args:
        world: N = Σ_k n^k over the lengths that end, plus n^T, with n continuing words.
    Returns:
        The completions; do not write into its tensors, they are cached.
    """
    depth, eos_ids = world.max_length, world.eos_ids
    texts, ids, ended = [], [], []
    written = [""]  # all unfinished prefixes of one length, as texts
    for length in range(depth + 1):
        prefixes = _prefixes(world, length)
        if length == depth:
            ends, new = prefixes, written
        else:
            last = torch.tensor(eos_ids, dtype=torch.int64).repeat(len(prefixes)).unsqueeze(1)
            ends = torch.cat([prefixes.repeat_interleave(len(eos_ids), 0), last], dim=1)
            new = [f"{text} {world.words[eos]}".lstrip() for text in written for eos in eos_ids]
            words = world.words[: world.num_continuing]
            written = [f"{text} {word}".lstrip() for text in written for word in words]
        texts += new
        ids.append(torch.nn.functional.pad(ends, (0, depth - ends.shape[1])))
        ended.append(torch.full((len(ends),), ends.shape[1]))
    lengths = torch.cat(ended)
    completion_ids = torch.cat(ids)
    last = completion_ids.gather(1, lengths.unsqueeze(1) - 1).squeeze(1)
    finished = torch.isin(last, torch.tensor(eos_ids, dtype=torch.int64))
    return Completions(completion_ids, lengths, finished, tuple(texts))


def _prefixes(world: TokenWorld, length: int) -> Tensor:
    """All unfinished prefixes of one length: (n^length, length), in digit order."""
    n = world.num_continuing
    ranks = torch.arange(n**length).unsqueeze(1)  # (n^length, 1)
    return ranks // n ** torch.arange(length - 1, -1, -1) % n


def state_logprobs(policy: Policy, world: TokenWorld, prompt: str) -> list[Tensor]:
    """log π(a | s) at every state that is not terminal, level by level.

    Args:
        policy: token ids → logits, causal.
        world: what to enumerate.
        prompt: one of the world's prompts.
    Returns:
        T tensors; the k-th is (n^k, A): one row for each prefix of k words, in digit order.
        Nats; differentiable in the policy's parameters.
    Raises:
        ValueError: the logits are not (B, L, A).
    """
    depth, n = world.max_length, world.num_continuing
    model = getattr(policy, "model", None)
    if model is not None and n ** (depth - 1) >= LARGE and probe.reading(model).shared:
        return _along_the_tree(model, world, prompt)
    deepest = _prefixes(world, depth - 1)  # (n^(T−1), T−1)
    prompt_column = torch.full((len(deepest), 1), world.prompt_id(prompt))
    token_ids = torch.cat([prompt_column, deepest], dim=1)  # (n^(T−1), T)
    logits = policy(token_ids)
    expected = (*token_ids.shape, world.num_actions)
    if tuple(logits.shape) != expected:
        raise ValueError(
            f"the policy returned {tuple(logits.shape)} for ids {tuple(token_ids.shape)}, "
            f"expected {expected}: one logit for each of the {world.num_actions} words. "
            "A Hugging Face model needs helpers.models.as_policy around it."
        )
    # Level k: one deep row for every prefix of k words, read at position k.
    return [logits[:: n ** (depth - 1 - k), k].log_softmax(-1) for k in range(depth)]


def _along_the_tree(model: Any, world: TokenWorld, prompt: str) -> list[Tensor]:
    """As `state_logprobs`, each prefix read once: its last word, with what its parent has kept.

    Of a very large deepest level no activations are kept: they are computed again.
    """
    cache = decoding.new_cache(model)
    token_ids = torch.tensor([[world.prompt_id(prompt)]])
    logits = model(input_ids=token_ids, past_key_values=cache, use_cache=True).logits
    levels, kept = [logits[:, -1].log_softmax(-1)], decoding.cached_tensors(cache)
    step = partial(_children, model, world.num_continuing)
    for k in range(1, world.max_length):
        if k == world.max_length - 1 and world.num_continuing**k > MANY:
            pieces = zip(*(t.split(PIECE) for t in kept), strict=True)
            last = lambda *some: step(*some)[0]  # noqa: E731
            parts = [checkpoint.checkpoint(last, *some, use_reentrant=False) for some in pieces]
            return [*levels, torch.cat(parts)]
        level, *kept = step(*kept)
        levels.append(level)
    return levels


def _children(model: Any, n: int, *kept: Tensor) -> tuple[Tensor, ...]:
    """log π (rows · n, A) behind each prefix and each of n words, and the keys and values there."""
    cache = decoding.cache_of(model, [t.repeat_interleave(n, 0) for t in kept])
    token_ids = torch.arange(n).repeat(len(kept[0])).unsqueeze(1)
    logits = model(input_ids=token_ids, past_key_values=cache, use_cache=True).logits
    return logits[:, -1].log_softmax(-1), *decoding.cached_tensors(cache)


def along(levels: Sequence[Tensor], path: Sequence[int]) -> list[Tensor]:
    """The entries of a table of states and words on the way down one text.

    Args:
        levels: T tensors (n^k, A), such as log π(a | s), Q or A; nan or −inf where none is.
        path: at most T word ids ≥ 0; all but the last one continue.
    Returns:
        () float each, one a word: levels[k] at the prefix before it, and at that word.
    """
    n = len(levels[1]) if len(levels) > 1 else 1
    rows = [rank(path[:k], n) for k in range(len(path))]
    return [levels[k][rows[k], word] for k, word in enumerate(path)]


def rank(path: Sequence[int], num_continuing: int) -> int:
    """The row of a prefix in its level: its word ids read as digits of base `num_continuing`.

    Args:
        path: word ids ≥ 0.
        num_continuing: N ≥ 1.
    """
    row = 0
    for word in path:
        row = row * num_continuing + word
    return row


@cache
def word_moves(world: TokenWorld) -> Tensor:
    """Which (state, word) each word of each completion is.

    Args:
        world: what to enumerate.
    Returns:
        (N, T) int64: state · A + word, states numbered breadth first; −1 after the end. Do not
        write into it, it is cached.
    """
    every, n = enumerate_completions(world), world.num_continuing
    row = torch.zeros(len(every.texts), dtype=torch.int64)  # of the prefix, in its level
    first, columns = 0, []
    for k in range(world.max_length):
        word, inside = every.completion_ids[:, k], every.lengths > k
        move = (first + row) * world.num_actions + word
        columns.append(torch.where(inside, move, -1))
        first += n**k
        row = row * n + word.clamp(max=n - 1)
    return torch.stack(columns, dim=1)


def read_moves(levels: Sequence[Tensor], moves: Tensor) -> Tensor:
    """Read a table of states and words, such as r, Q or log π, along every completion.

    Args:
        levels: T tensors (n^k, A).
        moves: (N, L) int64 in [−1, E), of E numbers in all, from `word_moves`.
    Returns:
        (N, T) float; 0 after the end.
    """
    flat = torch.cat(list(levels)).reshape(-1)
    return flat[moves.clamp(min=0)].masked_fill(moves < 0, 0.0)


def completion_logprobs(policy: Policy, world: TokenWorld, prompt: str) -> Tensor:
    """log π(x | c) of every completion.

    Args:
        policy: token ids → logits, causal.
        world: what to enumerate.
        prompt: one of the world's prompts.
    Returns:
        (N,) nats, in the order of `enumerate_completions`; their exponentials sum to 1.
    Source: chapter 01, eq. (1.2): the chain rule.
    """
    n = world.num_continuing
    prefix_logprobs: Tensor = torch.zeros(1)
    ended = []
    for level in state_logprobs(policy, world, prompt):
        joint = prefix_logprobs.unsqueeze(1) + level  # (n^k, A)
        ended.append(joint[:, n:].reshape(-1))
        prefix_logprobs = joint[:, :n].reshape(-1)  # (n^(k+1),)
    return torch.cat([*ended, prefix_logprobs])


def rewards(world: TokenWorld, prompt: str, *, reward: RewardFunction | None = None) -> Tensor:
    """R(c, x) of every completion.

    Args:
        world: what to enumerate.
        prompt: one of the world's prompts.
        reward: `(prompts, completions) → floats`; None takes the world's own.
    Returns:
        (N,) float64, in the order of `enumerate_completions`.
    Raises:
        ValueError: the function does not return one finite number for each completion.
    """
    texts = enumerate_completions(world).texts
    values = torch.as_tensor((reward or world.reward)([prompt] * len(texts), texts))
    if values.shape != (len(texts),) or not values.isfinite().all():
        raise ValueError(
            f"the reward function must return {len(texts)} finite numbers, one for each "
            f"completion; got shape {tuple(values.shape)}"
            + (" with nan or inf in it." if values.shape == (len(texts),) else ".")
        )
    return values.double()


def objective(
    policy: Policy, world: TokenWorld, prompt: str, *, reward: RewardFunction | None = None
) -> Tensor:
    """L_θ(c) = E[R(c, x)] under the policy: the exact expected reward of one prompt.

    Args:
        policy: token ids → logits.
        world: what to enumerate.
        prompt: one of the world's prompts.
        reward: None takes the world's own.
    Returns:
        () float in reward units, differentiable: Σ_x p_θ(x | c) R(c, x).
    Source: the objective of chapter 05; Williams (1992).
    """
    logp = completion_logprobs(policy, world, prompt)
    return logp.exp() @ rewards(world, prompt, reward=reward).to(logp.dtype)


def objective_gradient(
    policy: Policy,
    parameters: Iterable[Tensor],
    world: TokenWorld,
    prompt: str,
    *,
    reward: RewardFunction | None = None,
) -> Tensor:
    """∇_θ L_θ(c), by automatic differentiation of the exact expected reward.

    Args:
        policy: token ids → logits.
        parameters: tensors that require gradients, D numbers in all: the derivative is with
            respect to them.
        world: what to enumerate.
        prompt: one of the world's prompts.
        reward: None takes the world's own.
    Returns:
        (D,) float: the gradients of all parameters, flattened and joined. It points uphill.
    """
    theta = list(parameters)
    value = objective(policy, world, prompt, reward=reward)
    grads = torch.autograd.grad(value, theta, allow_unused=True, materialize_grads=True)
    return torch.cat([grad.reshape(-1) for grad in grads])


def entropy(policy: Policy, world: TokenWorld, prompt: str) -> Tensor:
    """Entropy of the distribution over whole completions.

    Args:
        policy: token ids → logits, causal.
        world: what to enumerate.
        prompt: one of the world's prompts.
    Returns:
        () float, nats: −Σ_x p(x | c) log p(x | c).
    """
    return logprobs.entropy(completion_logprobs(policy, world, prompt))


def kl_divergence(sampler: Policy, other: Policy, world: TokenWorld, prompt: str) -> Tensor:
    """KL(sampler ‖ other) between two policies' distributions over whole completions.

    Args:
        sampler: the policy that the expectation is taken over.
        other: the policy it is compared with.
        world: what to enumerate.
        prompt: one of the world's prompts.
    Returns:
        () float, nats; +inf where the sampler writes what the other cannot.
    Source: chapter 01, eq. (1.7).
    """
    return kl.kl_divergence(
        completion_logprobs(sampler, world, prompt), completion_logprobs(other, world, prompt)
    )


def chi_square_p_value(counts: Tensor, probabilities: Tensor) -> float:
    """p-value of Pearson's χ² test; outcomes expected fewer than 5 times are pooled.

    Args:
        counts: (N,) number ≥ 0, how often each outcome was drawn.
        probabilities: (N,) float ≥ 0, some above 0, the distribution that is tested.
    Returns:
        The approximate probability of a misfit at least this large if the distribution is the
        right one; 0 if something was drawn that has probability 0.
    Raises:
        ValueError: too few draws to fill two bins.
    Source: Pearson (1900); the rule of five is in every textbook of statistics.
    """
    probabilities = probabilities.double() / probabilities.double().sum()
    if counts[probabilities == 0].sum() > 0:
        return 0.0  # drew what cannot be drawn
    expected = probabilities * float(counts.sum())
    rare = expected < 5
    observed_bins = [*counts.double()[~rare].tolist(), float(counts[rare].sum())]
    expected_bins = [*expected[~rare].tolist(), float(expected[rare].sum())]
    if expected_bins[-1] == 0:
        observed_bins, expected_bins = observed_bins[:-1], expected_bins[:-1]
    if len(expected_bins) < 2:
        raise ValueError(
            f"{int(counts.sum())} draws are too few: fewer than two outcomes are expected 5 times."
        )
    return float(stats.chisquare(observed_bins, expected_bins).pvalue)


contract.hold(globals())
