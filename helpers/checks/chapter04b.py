"""Checkers of the last three exercises of chapter 04."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helpers import checks, exact, learning, models, moments, tabular, values
from helpers.worlds import WORD_WORLD as WORLD
from helpers.worlds import TokenWorld

DEEP = TokenWorld(("a", "b", "."), ("p",), 5, lambda _, texts: [len(x) - 6.0 for x in texts])


def _new_policy() -> tabular.TablePolicy:
    """The new writer of the chapter."""
    table = tabular.tabulate(models.as_policy(models.word_transformer(WORLD, seed=7)), WORLD)
    with torch.no_grad():
        for row, prompt in enumerate(WORLD.prompts):
            table.logits[row] += torch.cat(values.optimal_values(WORLD, prompt).q_value)
    return table


def exercise_6(treacherous: Callable[[Tensor], Any]) -> None:
    """`treacherous(target_probs)`: unbiased, nearly always wrong, and the sample ESS is high.

    Args:
        treacherous: the reader's function, (85, 5) → (85, 5).
    Raises:
        AssertionError: with a diagnosis.
    """
    target, texts = _new_policy(), 1000
    given = target.logits[0].softmax(-1).detach()
    answer = treacherous(given)
    if checks.is_stub("4.6", answer):
        return
    assert torch.equal(given, target.logits[0].softmax(-1)), "the argument was changed: clone it."
    probs = checks.as_numbers(answer, shape=(85, 5), what="the behaviour policy")
    assert bool((probs > 0).all()), (
        "some probability is 0: then coverage fails, and the estimate is biased. Small is enough."
    )
    assert bool(((probs.sum(-1) - 1).abs() < 1e-6).all()), "each row must sum to 1."
    problem = moments.off_policy(target, tabular.table_policy(probs, WORLD), WORLD, "praise")
    mu, rho, reward = problem.probability, problem.ratio, problem.returns
    rare = torch.zeros(len(mu), dtype=torch.bool)
    order = mu.argsort()
    rare[order] = mu[order].cumsum(0) < 1e-5  # none of these in 1,000 texts, 99 times of 100
    rest = mu[~rare] / mu[~rare].sum()
    found = moments.of_mean(rest, (rho * reward)[~rare], count=texts, truth=problem.truth)
    size = moments.expected_sample_size(rest, rho[~rare], count=texts)
    off = abs(found.bias) - 3 * found.variance**0.5
    assert abs(found.bias) > 0.02, (
        f"1,000 texts get to {found.mean:.3f} on average, of {problem.truth:.3f}: what matters is "
        "still written now and then, or what you hide carries no reward. It must have a "
        "probability below 0.00001 in all."
    )
    loud = 3 * found.variance**0.5 > 0.15 and float(rho[~rare].max()) > 30
    assert off >= 0.2, (
        f"nearly always the estimate is near {found.mean:.3f} ± {found.variance**0.5:.3f}, and "
        f"the exact value is {problem.truth:.3f}: not far enough off. "
    ) + ("Texts with huge ratios still occur: make them rarer." if loud else
         "Hide more of the reward.")  # fmt: skip
    assert size > 900, (
        f"the effective sample size is about {size:.0f}: the reader is warned. Keep all other "
        "texts in the target's own proportions, so that their ratios are equal."
    )
    checks.passed(
        "4.6", f"the estimate says {found.mean:+.2f}, the truth is {problem.truth:+.2f}, "
        f"the effective sample size {size:.0f} of {texts}. The mean ratio, though, is "
        f"{rest @ rho[~rare]:.2f}."
    )  # fmt: skip


def exercise_7(q_of_policy: Callable[..., Any]) -> None:
    """`q_of_policy(record, target_probs, gamma)` is Q of a policy that did not write the record.

    Args:
        q_of_policy: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for number, (world, prompt, gamma) in enumerate(((WORLD, "pan", 0.9), (DEEP, "p", 0.6))):
        tree = learning.token_tree(world, prompt)
        generator = torch.Generator().manual_seed(number)
        target = tabular.TablePolicy(world, std=1.5, generator=generator)
        probs = target.logits[world.prompts.index(prompt)].softmax(-1).detach()
        writer = tabular.exploring(tabular.TablePolicy(world), world)  # uniform
        rows = writer.logits[0].softmax(-1).detach()
        record = learning.write_texts(tree, rows, 12_000, generator=generator, anywhere=True)
        given = probs.clone()
        answer = q_of_policy(record, given, gamma)
        if number == 0 and checks.is_stub("4.7", answer):
            return
        assert torch.equal(given, probs), "the target's probabilities were changed."
        got = checks.as_numbers(answer, shape=tree.shape, what="the table")
        with torch.no_grad():
            expected, other, none = (
                torch.cat(values.policy_values(p, world, prompt, gamma=g).q_value)
                for p, g in ((target, gamma), (writer, gamma), (target, 0.0))
            )
        best = torch.cat(values.optimal_values(world, prompt, gamma=gamma).q_value)
        undiscounted = torch.cat(values.policy_values(target, world, prompt).q_value).detach()
        error = float((got - expected).abs().max())
        if error < 0.05:
            continue
        rivals = {
            "this is near the Q of the record's writer, who chose its words.": other,
            "this is near Q*: the maximum is not what the target policy does.": best,
            "γ is missing in front of the next state.": undiscounted,
            "the next state is missing: these are rewards alone.": none,
        }
        far = {m: float((got - t).pow(2).mean()) for m, t in rivals.items()}
        message = min(far, key=lambda m: far[m])
        if 2 * far[message] >= (got - expected).pow(2).mean():
            message = f"the largest error is {error:.3f}: " + (
                "check that the next state is worth its mean under target_probs."
                if error > 0.5 else
                "if the direction is right, the step size shrinks too fast: the targets have no "
                "noise here."
            )  # fmt: skip
        raise AssertionError(message)
    checks.passed("4.7", "two worlds, every entry within 0.05 of the exact Q of the target.")


def exercise_8(best_behavior: Callable[..., Any]) -> None:
    """`best_behavior(texts, weights, shape)`: next-word probabilities of a joint distribution.

    Args:
        best_behavior: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    zeros = TokenWorld(("a", "."), ("p",), 4, lambda _, texts: [x.count("a") < 2 for x in texts])
    for number, (world, prompt) in enumerate(((WORLD, "praise"), (WORLD, "pan"), (zeros, "p"))):
        tree, every = learning.token_tree(world, prompt), exact.enumerate_completions(world)
        generator = torch.Generator().manual_seed(number)
        policy = tabular.TablePolicy(world, std=1.0, generator=generator)
        with torch.no_grad():
            pi = exact.completion_logprobs(policy, world, prompt).exp()
        reward = exact.rewards(world, prompt)
        weights = 3.0 * pi * reward.abs()  # not normalised
        rows = [r[:n] for r, n in zip(every.completion_ids.tolist(), every.lengths.tolist(),
                                      strict=True)]  # fmt: skip
        texts, given = learning.read_texts(tree, rows), weights.clone()
        answer = best_behavior(texts, given, tree.shape)
        if number == 0 and checks.is_stub("4.8", answer):
            return
        assert torch.equal(given, weights), "the weights were changed."
        got = checks.as_numbers(answer, shape=tree.shape, what="the table")
        assert not got.isnan().any(), "nan: where the total weight is 0, any row will do but 0 / 0."
        sums = got.sum(-1)
        assert not ((sums == 0).any() and ((sums == 0) | ((sums - 1).abs() < 1e-5)).all()), (
            "a row of zeros: where the total weight is 0 give some distribution, say the uniform."
        )
        assert torch.allclose(sums, torch.ones(len(got)).double(), atol=1e-5), (
            "each row must sum to 1: divide by the weight through its state, not by all weight."
        )
        table = tabular.table_policy(got, world)
        with torch.no_grad():
            joint = exact.completion_logprobs(table, world, prompt).exp()
        wanted = weights / weights.sum()
        if torch.allclose(joint, wanted, rtol=0, atol=1e-6):
            problem = moments.off_policy(policy, table, world, prompt)
            found = moments.of_mean(
                problem.probability, problem.ratio * problem.returns, count=1, truth=problem.truth
            )
            assert abs(found.bias) < 1e-5, f"the estimate is biased by {found.bias:.6f}."
            continue
        own = policy.logits[world.prompts.index(prompt)].softmax(-1).detach()
        assert not torch.allclose(got, own, atol=1e-6), "the rewards are not in it: this is π."
        chosen = torch.tensor([text[0][1] for text in texts])
        share = torch.stack([wanted[chosen == word].sum() for word in range(len(got[0]))])
        first = torch.allclose(got[0], share, atol=1e-6)
        near = float((joint - wanted).abs().max()) < 0.02
        assert not (first and not near), (
            "the first word is right and later ones are not: a text weighs on all its words."
        )
        assert not (near and bool((joint[wanted == 0] > 0).any())), (
            "nearly: but texts without any weight are written too. Add nothing to the weights; "
            "only a state without any weight needs another rule."
        )
        raise AssertionError(
            "the texts are not in proportion to the weights: the share of a word is the weight of "
            "all texts through it, over that of all texts through its state."
        )
    checks.passed("4.8", "the texts come out in proportion to π|R|, and (4.18) is reached.")
