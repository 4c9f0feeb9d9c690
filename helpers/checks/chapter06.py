"""Checkers of chapter 06, baselines and the advantage."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from helpers import advantages, baselines, checks, estimators, logprobs, tabular, worlds
from helpers.estimators import GradientProblem

WORLD = worlds.WORD_WORLD
SHORT = worlds.TokenWorld(WORLD.words, ("praise",), 3, worlds.adjective_reward)


def coin(p: float) -> GradientProblem:
    """One logit; action 1 has probability p and earns 1, the other one earns 0."""
    return GradientProblem(
        probability=torch.tensor([1 - p, p], dtype=torch.float64),
        rewards=torch.tensor([0.0, 1.0], dtype=torch.float64),
        word_scores=torch.tensor([[-p], [1 - p]], dtype=torch.float64),
        moves=torch.tensor([[0], [1]]),
    )


def _same(given: tuple[Tensor, ...], kept: tuple[Tensor, ...]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True)), (
        "the function wrote into its arguments; make new tensors."
    )


def exercise_1(others_subtracted: Callable[[Tensor], Any]) -> None:
    """`others_subtracted(rewards)`: leave-one-out of each row.

    Args:
        others_subtracted: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    generator = torch.Generator().manual_seed(6)
    # By hand: 4 − (1+1+0)/3 = 10/3, 1 − 5/3 = −2/3, twice, 0 − 2 = −2; second row 5 higher.
    first = [10 / 3, -2 / 3, -2 / 3, -2.0]
    rewards = torch.tensor([[4.0, 1.0, 1.0, 0.0], [9.0, 6.0, 6.0, 5.0]], dtype=torch.float64)
    cases = [(rewards, torch.tensor([first, first], dtype=torch.float64))]
    for shape in ((3, 2), (1, 5)):
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        by_loop = [
            [float(r) - sum(float(o) for j, o in enumerate(row) if j != i) / (len(row) - 1)
             for i, r in enumerate(row)]
            for row in drawn
        ]  # fmt: skip
        cases.append((drawn, torch.tensor(by_loop, dtype=torch.float64)))
    for drawn, expected in cases:
        given = drawn.clone()
        got = others_subtracted(given)
        if checks.is_stub("6.1", got):
            return
        _same((given,), (drawn,))
        size, own = drawn.shape[-1], drawn.mean(-1, keepdim=True)
        mistakes = {
            "the mean is too short by 1 − 1/K: the own reward is in what you subtract.": drawn
            - own,
            "the scale: the others are K − 1, and you divide their sum by K.": drawn
            - (drawn.sum(-1, keepdim=True) - drawn) / size,
            "the mean over all prompts: compare within a row only (`sum(-1, keepdim=True)`).": drawn
            - (drawn.sum() - drawn) / max(drawn.numel() - 1, 1),
            "the mean over all prompts, own reward included.": drawn - drawn.mean(),
            "that is the baseline alone: subtract it from the own reward.": drawn - expected,
            "the sign is turned: reward minus the others.": -expected,
            "the columns are compared, not the rows: a row is a group.": drawn
            - (drawn.sum(0, keepdim=True) - drawn) / max(len(drawn) - 1, 1),
            "this divides by a standard deviation; leave-one-out does not.": (drawn - own)
            / drawn.std(-1, keepdim=True),
        }
        numbers = checks.as_numbers(got, shape=tuple(drawn.shape), what="the advantages")
        checks.diagnose(numbers, expected, mistakes, tolerance=1e-5)
    checks.passed("6.1", "three batches, against a loop over the others.")


def exercise_2(numbers: Mapping[str, Any]) -> None:
    """Four numbers, by thinking.

    Args:
        numbers: `advantage_of_the_first`, `factor`, `z_score_of_the_winner`, `best_constant`.
    Raises:
        AssertionError: with a diagnosis.
    """
    group = torch.tensor([3.0, 1.0, 1.0, -1.0], dtype=torch.float64)
    pair = torch.tensor([5.0, 4.9], dtype=torch.float64)
    expected = {
        "advantage_of_the_first": float(advantages.leave_one_out(group)[0]),
        "factor": estimators.of_groups(coin(0.4), advantages.minus_group_mean, group_size=8).scale,
        "z_score_of_the_winner": float(advantages.group_z_score(pair, epsilon=1e-9)[0]),
        "best_constant": estimators.best_constant(coin(0.3)),
    }
    mistakes: dict[str, dict[str, Tensor | float]] = {
        "advantage_of_the_first": {
            "that compares with the mean of all four; leave the own reward out.": 2.0,
            "that is the mean of the others; subtract it from 3.": 1 / 3,
            "the others are three: divide their sum by 3, not by 4.": 3 - 1 / 4,
            "the last of the others earned −1, not +1.": 2.0 + 1e-9,
            "the sign is turned.": -8 / 3,
        },
        "factor": {
            "that is K/(K − 1), which mends it; by which factor is it too short?": 8 / 7,
            "that is what is missing: 1 minus it is left.": 1 / 8,
            "the own reward is one of eight, not of seven.": 6 / 7,
        },
        "z_score_of_the_winner": {
            "that is the z-score with K in the standard deviation; here it is K − 1.": 1.0,
            "that is the difference; divide by the standard deviation.": 0.1,
            "that is the distance from the mean; divide by the standard deviation.": 0.05,
            "that divides the difference of the two; take the distance from their mean.": 2**0.5,
            "the sign is turned: the winner is above the mean.": -(0.5**0.5),
            "that is a variance's worth: take the square root.": 0.5,
        },
        "best_constant": {
            "that is E[R]; weight the rewards by the squared scores.": 0.3,
            "that weighs by the scores' lengths; they have to be squared.": 0.5,
            "that leaves the probabilities out of the two means.": 0.49 / 0.58,
            "the scores are exchanged: the action that earns 1 has score 1 − p.": 0.3 * 0.09
            / (0.3 * 0.09 + 0.7 * 0.49),
        },
    }  # fmt: skip
    if checks.predicted_numbers("6.2", numbers, expected, mistakes):
        checks.passed("6.2", "all four agree with the exact moments.")


def exercise_3(z_scores: Callable[..., Any]) -> None:
    """`z_scores(rewards, epsilon)`: each row minus its mean, over its standard deviation.

    Args:
        z_scores: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    generator = torch.Generator().manual_seed(3)
    for shape, epsilon in (((2, 4), 1e-4), ((3, 5), 0.5), ((2, 2), 1e-4), ((1, 6), 0.1)):
        rewards = torch.randn(shape, generator=generator, dtype=torch.float64)
        rewards = rewards * torch.tensor([[0.3], [2.0], [1.0]])[: shape[0]]
        rewards = rewards + torch.tensor([[2.0], [-1.0], [0.0]])[: shape[0]]
        given = rewards.clone()
        got = z_scores(given) if epsilon == 1e-4 else z_scores(given, epsilon=epsilon)
        if checks.is_stub("6.3", got):
            return
        _same((given,), (rewards,))
        numbers = checks.as_numbers(got, shape=shape, what="the advantages")
        row, std = rewards - rewards.mean(-1, keepdim=True), rewards.std(-1, keepdim=True)
        root = rewards.var(-1, keepdim=True)
        everything = rewards.std() + epsilon
        mistakes = {
            "the mean fails, and the scale: mean() and std() still go over all prompts, so an easy "
            "prompt's texts are all pushed up.": (rewards - rewards.mean()) / everything,
            "the mean fails: mean() goes over all prompts, so that a prompt's advantages do not "
            "sum to 0.": (rewards - rewards.mean()) / (std + epsilon),
            "the scale fails: std() still goes over the whole batch.": row / everything,
            "the scale fails: the standard deviation divides by K here, and should by K − 1.": row
            / (rewards.std(-1, keepdim=True, correction=0) + epsilon),
            "the scale fails: ε belongs outside the root: std + ε.": row / (root + epsilon).sqrt(),
            "the scale fails: that divides by the variance.": row / (root + epsilon),
            "the scale fails: nothing is divided.": row,
            "the scale fails: ε is missing, and a group of equal rewards would give nan.": row
            / std,
            "the mean fails: nothing is subtracted.": rewards / (std + epsilon),
            "the sign is turned: a reward above the mean should be positive.": -row
            / (std + epsilon),
            "the scale fails: ε is an argument, and you use a fixed one.": row / (std + 1e-4),
            "the mean fails: columns are compared, but a row is a group.": (
                rewards - rewards.mean(0, keepdim=True)
            )
            / (rewards.std(0, keepdim=True, correction=min(1, shape[0] - 1)) + epsilon),
        }
        expected = advantages.group_z_score(rewards, epsilon=epsilon)
        checks.diagnose(numbers, expected, mistakes, tolerance=1e-5)
    equal = checks.as_numbers(z_scores(torch.full((2, 3), 0.5)), shape=(2, 3), what="equal rewards")
    assert bool((equal.abs() < 1e-6).all()), "a group of equal rewards should give zeros."
    checks.passed("6.3", "four batches, three ε: each group has mean 0 and its own scale.")


def exercise_4(excess: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """`excess(rewards, values, mask)`: R − V(s_t), by the mean and variance that it leads to.

    Args:
        excess: the reader's function.
    Raises:
        AssertionError: naming the property that fails.
    """
    for world, prompt, std, noise in (
        (WORLD, "pan", 0.5, 0.0), (WORLD, "praise", 1.0, 0.7), (SHORT, "praise", 0.5, 0.3)
    ):  # fmt: skip
        generator = torch.Generator().manual_seed(5)
        table = tabular.TablePolicy(world, std=std, generator=generator)
        problem = baselines.table_problem(table, prompt)
        state_values, _ = baselines.exact_values(problem, 5)
        state_values = state_values + noise * torch.randn(
            state_values.shape, generator=generator, dtype=torch.float64
        )
        mask = problem.moves >= 0
        along = state_values[problem.moves.clamp(min=0) // 5].masked_fill(~mask, 0.0)
        given = (problem.rewards.clone(), along.clone(), mask.clone())
        got = excess(*given)
        if checks.is_stub("6.4", got):
            return
        _same(given, (problem.rewards, along, mask))
        judged = checks.as_numbers(got, shape=tuple(mask.shape), what="the advantages")
        assert bool(judged.isfinite().all()), "there are infinite or undefined advantages."
        assert bool((judged[~mask].abs() < 1e-6).all()), (
            "after the end of a text there is nothing to judge: return 0 where the mask is False."
        )
        expected = estimators.of_terms(
            problem, problem.combine(baselines.excess(problem, state_values))
        )
        found = estimators.of_terms(problem, problem.combine(judged))
        size = float(problem.truth.norm())
        if found.bias > 1e-4 * size:
            assert found.scale > -0.5, "the sign fails: the mean estimate points downhill."
            detail = "nothing is left of it" if found.mean.norm() < 1e-4 * size else (
                f"it has {found.scale:.2f} of ∇J's length and its cosine is {found.cosine:.2f}"
            )  # fmt: skip
            raise AssertionError(
                f"the mean fails: {detail}. What is subtracted from word t knows word t."
            )
        ratio = found.variance / expected.variance
        assert abs(ratio - 1) < 1e-4, (
            f"the mean is right, the variance is not: {ratio:.2f} times that of V(s_t) as the "
            "baseline. Does each word get the value of its own state?"
        )
    checks.passed("6.4", "three worlds, right and wrong V: the exact mean, and V's variance.")


def exercise_5(bad_case: Mapping[str, Any]) -> None:
    """Probabilities and rewards of three actions for which leave-one-out hurts.

    Args:
        bad_case: `probabilities` and `rewards`, three numbers each.
    Raises:
        AssertionError: with a diagnosis.
    """
    names = ("probabilities", "rewards")
    assert isinstance(bad_case, Mapping) and set(bad_case) == set(names), (
        f"the names must stay {names}."
    )
    if any(bad_case[name] is None or bad_case[name] is ... for name in names):
        checks.is_stub("6.5", None)
        return
    probs, rewards = (checks.as_numbers(bad_case[n], shape=(3,), what=n) for n in names)
    assert bool(probs.isfinite().all() and rewards.isfinite().all()), "numbers must be finite."
    assert abs(float(probs.sum()) - 1) < 1e-6, "the probabilities must sum to 1."
    assert float(probs.min()) > 0.01 - 1e-9, "each probability must be at least 0.01."
    assert float(rewards.abs().max()) <= 2, "rewards must lie in [-2, 2]."
    scores = torch.eye(3, dtype=torch.float64) - probs
    problem = GradientProblem(probs, rewards, scores, torch.tensor([[0], [1], [2]]))
    assert float(problem.truth.norm()) > 1e-6, "∇J vanishes here: there is nothing to estimate."
    none, loo = (
        estimators.of_groups(problem, judge, group_size=4).variance
        for judge in (lambda r: r, advantages.leave_one_out)
    )
    assert loo >= 10 * none, (
        f"leave-one-out has {loo / none:.2f} times the variance of no baseline here; ten times "
        "are asked for. What should the action with the long score earn?"
    )
    checks.passed("6.5", f"leave-one-out has {loo / none:.0f} times the variance.")


def _wrong_gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float, mistake: str
) -> Tensor:
    """Generalised advantages of a padded batch, with one mistake put in."""
    found: list[Tensor] = []
    following = torch.zeros_like(values[:, 0])
    inside = values.masked_fill(~mask, 0.0)
    before = values if mistake in ("as given", "trace leaks") else inside
    seen = values if mistake in ("as given", "next leaks") else inside
    after = torch.cat([seen[:, 1:], torch.zeros_like(seen[:, :1])], dim=1)
    step, decay = {
        "swapped": (lam, gamma), "no γ in the trace": (gamma, lam), "no λ": (gamma, gamma),
        "no γ": (1.0, lam),
    }.get(mistake, (gamma, gamma * lam))  # fmt: skip
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + step * after[:, t] - before[:, t]
        if mistake == "no V":
            delta = rewards[:, t] + gamma * after[:, t]
        if mistake == "δ only":
            following = torch.zeros_like(following)
        following = delta + decay * following
        if mistake not in ("as given", "trace leaks"):
            following = following * mask[:, t]
        found.insert(0, following)
    return torch.stack(found, dim=1) * mask


def exercise_6(batch_gae: Callable[..., Any]) -> None:
    """`batch_gae(rewards, values, mask, gamma, lam)` on texts of different lengths.

    Args:
        batch_gae: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    mistakes = {
        "as given": "both leaks are still there: what stands after the end takes part.",
        "next leaks": "the last word of a short text still bootstraps: V behind the end is 0.",
        "trace leaks": "what stands after the end still flows back through `following`.",
        "swapped": "γ and λ are exchanged: δ has γ, the trace has γ λ.",
        "no γ in the trace": "the trace decays by λ alone; it should by γ λ.",
        "no λ": "λ is missing: the trace decays by γ λ.",
        "no γ": "γ is missing: V(s_{t+1}) and the trace are discounted.",
        "no V": "V(s_t) is not subtracted in δ.",
        "δ only": "the trace is gone: that is λ = 0, whatever λ is.",
    }
    # By hand, γ = 1, λ = 1/2: δ = (½, 0, 1), so A = (½ + ½·½, ½, 1) = (¾, ½, 1).
    hand = torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[0.5, 1.0, 1.0]])
    lengths = torch.tensor([4, 2, 1, 3, 4])
    mask = logprobs.mask_from_lengths(lengths, 4)
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    paid = drawn[0].masked_fill(~mask, 0.0)
    cases = [(hand[0].double(), hand[1].double(), torch.ones(1, 3, dtype=torch.bool), 1.0, 0.5)]
    cases += [(paid, drawn[1] + 2, mask, g, lam) for g, lam in ((0.9, 0.6), (1.0, 0.95), (0.8, 1))]
    for rewards, state_values, inside, gamma, lam in cases:
        given = (rewards.clone(), state_values.clone(), inside.clone())
        got = batch_gae(*given, gamma, lam)
        if checks.is_stub("6.6", got):
            return
        _same(given, (rewards, state_values, inside))
        numbers = checks.as_numbers(got, shape=tuple(inside.shape), what="the advantages")
        assert bool((numbers[~inside].abs() < 1e-6).all()), "after the end, return 0."
        expected = advantages.gae(rewards, state_values, inside, gamma=gamma, lam=lam)
        if len(rewards) == 1:
            expected = torch.tensor([[0.75, 0.5, 1.0]], dtype=torch.float64)
        wrong = {
            message: _wrong_gae(rewards, state_values, inside, gamma, lam, name)
            for name, message in mistakes.items()
        }
        checks.diagnose(numbers, expected, wrong, tolerance=1e-5)
    checks.passed("6.6", "one text by hand, five padded ones, three pairs of γ and λ.")


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
        _same(given, (probs, q_value))
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
