"""Checkers of chapter 01, continued: a model that hides a bug, and the chain rule of entropy."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helpers import checks, exact, logprobs, models, tabular
from helpers.exact import Policy
from helpers.worlds import WORD_WORLD as WORLD
from helpers.worlds import TokenWorld

NEAR = 1e-5  # float32 is welcome


def exercise_6(hiding_policy: Policy) -> None:
    """A policy, not uniform, on which the shifted scorer is never caught.

    Args:
        hiding_policy: the reader's function from ids (B, L) to logits (B, L, 5).
    Raises:
        AssertionError: the bug shows, or the policy is too simple.
    """
    probe = torch.tensor([[WORLD.prompt_id("praise"), 0, 2, 3], [WORLD.prompt_id("pan"), 1, 2, 0]])
    answer = hiding_policy(probe)
    if checks.is_stub("1.6", answer):
        return
    logits = checks.as_numbers(answer, shape=(2, 4, 5), what="the logits for ids (2, 4)")
    assert bool(logits.isfinite().all()), (
        "a logit is infinite or nan: −inf makes a word impossible. Every word wants a probability "
        "above 0."
    )
    other_end = checks.as_numbers(
        hiding_policy(torch.cat([probe[:, :3], probe[:, :1] * 0 + 1], dim=1)),
        shape=(2, 4, 5), what="the logits",
    )  # fmt: skip
    assert torch.allclose(logits[:, :3], other_end[:, :3]), (
        "the logits at a position depend on a later word: a policy cannot look ahead."
    )
    probs = logits.softmax(-1)[:, 0]  # (2, 5)
    gaps = (probs[:, :, None] - probs[:, None]).abs() + torch.eye(5)
    assert gaps.min() > 1e-6, (
        "two words have the same probability. The uniform policy hides the bug too, but it is too "
        "easy: give all five words different probabilities, under both prompts."
    )
    for prompt in WORLD.prompts:
        right, wrong = _right_and_shifted_totals(hiding_policy, WORLD, prompt)
        worst = float((right - wrong).abs().max())
        assert worst < 1e-9, (
            f"the bug shows under `{prompt}`: some completion's score differs by {worst:.3f} nats. "
            "The two scorers read different positions; what must not depend on the position?"
        )
    checks.passed("1.6", "all 682 scores agree with the bug in place. So test on other policies.")


def _right_and_shifted_totals(
    policy: Policy, world: TokenWorld, prompt: str
) -> tuple[Tensor, Tensor]:
    """Two (N,) tensors, nats: scored with logits[t−1], as is right, and with logits[t].

    The policy must read the prompt and T words: the shifted scorer looks one position too far.
    """
    every = exact.enumerate_completions(world)
    column = torch.full((len(every.lengths), 1), world.prompt_id(prompt))
    ids = torch.cat([column, every.completion_ids], dim=1)  # (N, 1+T)
    with torch.no_grad():
        logits = policy(ids)  # (N, 1+T, A)
    mask = logprobs.mask_from_lengths(every.lengths, world.max_length)
    aligned = logprobs.token_logprobs(logits[:, :-1], every.completion_ids)
    shifted = logprobs.token_logprobs(logits[:, 1:], every.completion_ids)
    return logprobs.sequence_logprobs(aligned, mask), logprobs.sequence_logprobs(shifted, mask)


def exercise_7(entropy_by_steps: Callable[[list[Tensor]], Any]) -> None:
    """`entropy_by_steps(levels)`: the entropy of whole completions, from the conditionals alone.

    Args:
        entropy_by_steps: the reader's function of `exact.state_logprobs(...)`.
    Raises:
        AssertionError: with a diagnosis.
    """
    policies: list[Policy] = [
        tabular.TablePolicy(WORLD, std=1.0, generator=torch.Generator().manual_seed(11)),
        tabular.tabulate(models.as_policy(models.word_transformer(WORLD, seed=7)), WORLD),
    ]
    cases = [(policy, prompt) for policy in policies for prompt in WORLD.prompts]
    with torch.no_grad():
        levels = [exact.state_logprobs(policy, WORLD, prompt) for policy, prompt in cases]
        expected = torch.stack([exact.entropy(policy, WORLD, prompt) for policy, prompt in cases])
    first = entropy_by_steps(levels[0])
    if checks.is_stub("1.7", first):
        return
    got = torch.stack(
        [checks.as_numbers(entropy_by_steps(case), shape=(), what="the entropy") for case in levels]
    )
    local = [[-(level.exp() * level).sum(-1) for level in case] for case in levels]
    last_step = [
        [torch.ones(1).double(), *(level[:, :4].exp().reshape(-1) for level in case[:-1])]
        for case in levels
    ]
    checks.diagnose(
        got,
        expected,
        {
            "each state counts as if it were reached for sure: weight it by p(prefix).": (
                torch.stack([sum(h.sum() for h in case) for case in local])  # type: ignore[misc]
            ),
            "that is the mean over the states of a level: weight them by p(prefix).": (
                torch.stack([sum(h.mean() for h in case) for case in local])  # type: ignore[misc]
            ),
            "d(s) is a product: multiply a word's probability by the d(s) of the level above.": (
                torch.stack(
                    [
                        sum(r @ h for r, h in zip(reach, case, strict=True))  # type: ignore[misc]
                        for reach, case in zip(last_step, local, strict=True)
                    ]
                )
            ),
            "that is the first word's entropy alone; add what comes after.": (
                torch.stack([case[0][0] for case in local])
            ),
            "the sign is turned: entropy is −Σ p log p.": -expected,
            "nats, please: use the natural logarithm.": expected / math.log(2),
        },
        tolerance=NEAR,
    )
    checks.passed("1.7", "the chain rule of entropy holds on four distributions.")
