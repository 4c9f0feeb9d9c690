"""Checkers of the last two exercises of chapter 06."""

from collections.abc import Callable, Container
from typing import Any

import torch
from torch import Tensor

from helpers import advantages, baselines, checks, logprobs, tabular, worlds

WORLD = worlds.WORD_WORLD
SHORT = worlds.TokenWorld(WORLD.words, ("praise",), 3, worlds.adjective_reward)


def _wrong_gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float, mistake: str = "",
    leaks: Container[str] = (),
) -> Tensor:  # fmt: skip
    """Generalised advantages of a padded batch, with one mistake or some leaks put in.

    What can leak from behind the end: `paid`, `before`, `after` and the `trace`.
    """
    found: list[Tensor] = []
    following = torch.zeros_like(values[:, 0])
    inside = values.masked_fill(~mask, 0.0)
    paid = rewards if "paid" in leaks else rewards.masked_fill(~mask, 0.0)
    before, seen = (values if name in leaks else inside for name in ("before", "after"))
    after = torch.cat([seen[:, 1:], torch.zeros_like(seen[:, :1])], dim=1)
    step, decay = {
        "swapped": (lam, gamma), "no γ in the trace": (gamma, lam), "no λ": (gamma, gamma),
        "no γ": (1.0, lam),
    }.get(mistake, (gamma, gamma * lam))  # fmt: skip
    for t in reversed(range(values.shape[1])):
        delta = paid[:, t] + step * after[:, t] - before[:, t]
        if mistake == "no V":
            delta = paid[:, t] + gamma * after[:, t]
        if mistake == "δ only":
            following = torch.zeros_like(following)
        following = delta + decay * following
        if "trace" not in leaks:
            following = following * mask[:, t]
        found.insert(0, following)
    return torch.stack(found, dim=1) * mask


LEAKS = {  # what leaks → diagnosis
    ("paid", "before", "after", "trace"): "both leaks are still there: what stands after the end "
    "takes part.",
    ("before", "after", "trace"): "both leaks are still there: the values after the end take part.",
    ("after",): "the last word of a short text still bootstraps: V behind the end is 0.",
    ("paid", "before", "trace"): "what stands after the end still flows back through `following`.",
    ("before", "trace"): "the values after the end still flow back through `following`.",
    ("paid", "trace"): "the rewards after the end still flow back through `following`.",
    ("paid", "after", "trace"): "both leaks are still there: rewards after the end flow back, and "
    "the last word of a short text bootstraps.",
}


def exercise_6(batch_gae: Callable[..., Any]) -> None:
    """`batch_gae(rewards, values, mask, gamma, lam)` on texts of different lengths.

    Args:
        batch_gae: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    mistakes = {
        "swapped": "γ and λ are exchanged: δ has γ, the trace has γ λ.",
        "no γ in the trace": "the trace decays by λ alone; it should by γ λ.",
        "no λ": "λ is missing: the trace decays by γ λ.",
        "no γ": "γ is missing: V(s_{t+1}) and the trace are discounted.",
        "no V": "V(s_t) is not subtracted in δ.",
        "δ only": "the trace is gone: that is λ = 0, whatever λ is.",
    }
    mask = logprobs.mask_from_lengths(torch.tensor([4, 2, 1, 3, 4]), 4)
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    drawn[1] += 2
    cases = [(*drawn, mask, g, lam) for g, lam in ((0.9, 0.6), (1.0, 0.95), (0.8, 1.0))]
    expected = [advantages.gae(r, v, m, gamma=g, lam=lam) for r, v, m, g, lam in cases]
    # By hand, γ = 1, λ = 1/2: δ = (½, 0, 1), so A = (½ + ½·½, ½, 1) = (¾, ½, 1).
    # Padded, rewards 0, 1 and values ½, ½: δ = (0, ½), so A = (¼, ½), whatever stands behind.
    for place, paid, worth, ends, judged in (
        (0, [0.0, 0.0, 2.0], [0.5, 1.0, 1.0], 3, [0.75, 0.5, 1.0]),
        (4, [0.0, 1.0, 7.0, 7.0], [0.5, 0.5, 3.0, 3.0], 2, [0.25, 0.5, 0.0, 0.0]),
    ):
        r, v, answer = torch.tensor([[paid], [worth], [judged]], dtype=torch.float64)
        cases.insert(place, (r, v, torch.arange(len(paid))[None] < ends, 1.0, 0.5))
        expected.insert(place, answer)
    cases.append((*drawn.masked_fill(~mask, torch.nan), mask, 0.9, 0.6))
    expected.append(expected[1])  # what stands behind the end does not matter
    for (rewards, state_values, inside, gamma, lam), right in zip(cases, expected, strict=True):
        given = (rewards.clone(), state_values.clone(), inside.clone())
        got = batch_gae(*given, gamma, lam)
        if checks.is_stub("6.6", got):
            return
        kept = (rewards, state_values, inside)
        checks.unchanged(*([x.nan_to_num(7.0) for x in row] for row in (given, kept)))
        numbers = checks.as_numbers(got, shape=tuple(inside.shape), what="the advantages")
        assert not numbers.isnan().any(), (
            "nan: what stands after the end came in. masked_fill and torch.where replace it; "
            "nan · 0 is nan."
        )
        assert bool((numbers[~inside].abs() < 1e-6).all()), "after the end, return 0."
        wrong = {
            message: _wrong_gae(rewards, state_values, inside, gamma, lam, leaks=leaks)
            for leaks, message in LEAKS.items()
        } | {
            message: _wrong_gae(rewards, state_values, inside, gamma, lam, name)
            for name, message in mistakes.items()
        }
        checks.diagnose(numbers, right, wrong, tolerance=1e-5)
    checks.passed("6.6", "two texts by hand, five padded ones, three pairs of γ and λ, and nan.")


def exercise_7(best_baseline: Callable[[Tensor, Tensor], Any]) -> None:
    """`best_baseline(probs, q_value)`: the b(s) of least variance of a table policy.

    Args:
        best_baseline: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for world, prompt, std in ((WORLD, "praise", 0.5), (WORLD, "pan", 1.5), (SHORT, "praise", 1.0)):
        generator = torch.Generator().manual_seed(7)
        table = tabular.TablePolicy(world, std=std, generator=generator)
        problem = baselines.table_problem(table, prompt)
        _, q_value = baselines.exact_values(problem, 5)
        probs = table.logits[world.prompts.index(prompt)].detach().softmax(-1)
        given = (probs.clone(), q_value.clone())
        got = best_baseline(*given)
        if checks.is_stub("6.7", got):
            return
        checks.unchanged(given, (probs, q_value))
        numbers = checks.as_numbers(got, shape=(len(probs),), what="the baselines")
        square = 1 - 2 * probs + probs.pow(2).sum(-1, keepdim=True)

        def weighted(weight: Tensor, q: Tensor = q_value) -> Tensor:
            return (weight * q).sum(-1) / weight.sum(-1)

        mistakes = {
            "that is V(s): the squared scores are missing.": weighted(probs),
            "the probabilities are missing from the two sums.": weighted(square),
            "that takes the length of the score; it has to be squared.": weighted(
                probs * square.sqrt()
            ),
            "that squares the chosen word's own entry only; the score has one for each word.":
            weighted(probs * (1 - probs) ** 2),
            "the sum is not divided by the sum of the weights.": (probs * square * q_value).sum(-1),
            "that is the plain mean of Q over the words.": q_value.mean(-1),
            "the words must be weighted by 1 − 2 π + Σ π², not by π (1 − π).": weighted(
                probs * (1 - probs)
            ),
        }  # fmt: skip
        expected = baselines.best_state_baseline(problem, 5)
        checks.diagnose(numbers, expected, mistakes, tolerance=1e-5)
    checks.passed("6.7", "three tables, against the linear system of section 6.5.")
