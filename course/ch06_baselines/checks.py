"""Checkers of chapter 06, baselines and the advantage."""

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from course.exact import baselines, gradients, tables
from course.exact.gradients import GradientProblem
from course.kit import checker
from course.worlds import word_world
from helpers import advantages, logprobs


def coin(p: float) -> GradientProblem:
    """One logit; action 1 has probability p and earns 1, the other one earns 0."""
    return GradientProblem(
        probability=torch.tensor([1 - p, p], dtype=torch.float64),
        rewards=torch.tensor([0.0, 1.0], dtype=torch.float64),
        word_scores=torch.tensor([[-p], [1 - p]], dtype=torch.float64),
        moves=torch.tensor([[0], [1]]),
    )


def _same_prompt(rewards: Tensor, prompt_ids: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) sum of the rewards of a text's own prompt, and (B,) how many they are."""
    same = (prompt_ids.unsqueeze(1) == prompt_ids).to(rewards.dtype)
    return same @ rewards, same.sum(-1)


def exercise_1(others_subtracted: Callable[[Tensor, Tensor], Any]) -> None:
    """`others_subtracted(rewards, prompt_ids)`: leave-one-out within each prompt of a flat batch.

    Args:
        others_subtracted: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    generator = torch.Generator().manual_seed(6)
    # By hand. Prompt 7 earns 4, 1, 1, 0: 4 − 2/3, 1 − 5/3 twice, 0 − 2. Prompt 2: 9 − 5, 5 − 9.
    rewards = torch.tensor([4.0, 9.0, 1.0, 1.0, 5.0, 0.0], dtype=torch.float64)
    hand = torch.tensor([10 / 3, 4.0, -2 / 3, -2 / 3, -4.0, -2.0], dtype=torch.float64)
    cases = [(rewards, torch.tensor([7, 2, 7, 7, 2, 7]), hand)]
    for ids in ([0, 1, 1, 2, 0, 2, 1, 2, 2, 2], [3, 3, 3], [1, 1, 0, 0, 5, 5]):
        drawn = torch.randn(len(ids), generator=generator, dtype=torch.float64)
        by_loop = []
        for i, prompt in enumerate(ids):
            others = [float(drawn[j]) for j, o in enumerate(ids) if o == prompt and j != i]
            by_loop.append(float(drawn[i]) - sum(others) / len(others))
        cases.append((drawn, torch.tensor(ids), torch.tensor(by_loop, dtype=torch.float64)))
    for drawn, prompt_ids, expected in cases:
        given = (drawn.clone(), prompt_ids.clone())
        try:
            got = others_subtracted(*given)
        except RuntimeError as error:
            raise AssertionError(
                f"{error}. If you laid the rewards out as (P, K): the prompts need not have the "
                "same number of texts, nor their texts stand together; use the ids."
            ) from error
        if checker.is_stub("6.1", got):
            return
        checker.unchanged(given, (drawn, prompt_ids))
        mistakes = _others_subtracted_otherwise(drawn, prompt_ids, expected)
        numbers = checker.as_numbers(got, shape=tuple(drawn.shape), what="the advantages")
        checker.diagnose(numbers, expected, mistakes, tolerance=1e-5)
    checker.passed("6.1", "four flat batches, against a loop over the others.")


def _others_subtracted_otherwise(
    drawn: Tensor, prompt_ids: Tensor, expected: Tensor
) -> dict[str, Tensor]:
    """What each usual mistake makes of a flat batch: (B,) rewards, (B,) prompt ids."""
    total, size = _same_prompt(drawn, prompt_ids)
    count, prompts = len(drawn), len(prompt_ids.unique())
    squares, _ = _same_prompt((drawn - total / size) ** 2, prompt_ids)
    seen = list(dict.fromkeys(prompt_ids.tolist()))
    mistakes = {
        "the answers stand in another order than the texts: sorted by prompt.": (
            expected[prompt_ids.argsort(stable=True)]
        ),
        "the answers stand in another order than the texts: prompt after prompt.": torch.cat(
            [expected[prompt_ids == prompt] for prompt in seen]
        ),
        "the mean is too short by 1 − 1/K: the own reward is in what you subtract.": drawn
        - total / size,
        "the scale: the others are K − 1, and you divide their sum by K.": drawn
        - (total - drawn) / size,
        "the mean over all prompts: compare within a prompt only.": drawn
        - (drawn.sum() - drawn) / (count - 1),
        "the mean over all prompts, own reward included.": drawn - drawn.mean(),
        "that is the baseline alone: subtract it from the own reward.": drawn - expected,
        "the sign is turned: reward minus the others.": -expected,
        "the groups have different sizes: count each prompt's own texts.": drawn
        - (total - drawn) / (count / prompts - 1 + 1e-12),
        "this divides by a standard deviation; leave-one-out does not.": (drawn - total / size)
        / (squares / (size - 1)).sqrt(),
    }
    if count % prompts == 0:
        in_rows = advantages.leave_one_out(drawn.view(prompts, -1)).view(-1)
        mistakes["the texts of a prompt need not stand together: use the ids."] = in_rows
    return mistakes


MISTAKES_2: dict[str, dict[str, Tensor | float]] = {
    "advantage_of_the_first": {
        "that compares with the mean of all four; leave the own reward out.": 2.0,
        "that is the mean of the others; subtract it from 3.": 1 / 3,
        "the others are three: divide their sum by 3, not by 4.": 3 - 1 / 4,
        "the last of the others earned −2, not +2.": 3 - 5 / 3,
        "the sign is turned.": -8 / 3,
    },
    "best_constant": {
        "that is E[R]; weight the rewards by the squared scores.": -0.4,
        "that is the constant for rewards of 1 and 0.": 0.7,
        "that weighs by the scores' lengths; they have to be squared.": 0.0,
        "that leaves the probabilities out of the two means.": 0.4 / 0.58,
        "the scores are exchanged: the action that earns +1 has score 1 − p.": (
            0.3 * 0.09 - 0.7 * 0.49
        )
        / (0.3 * 0.09 + 0.7 * 0.49),
    },
    "factor_of_the_z_score": {
        "that is for rewards of 1 and 0; these rewards are twice as far apart.": 0.5**0.5,
        "the z-scores did not grow with the rewards; ∇L did.": 2**0.5,
        "that takes K in the standard deviation; here it is K − 1.": 0.5,
        "that is 1/σ, for large groups.": 1 / (2 * 0.21**0.5),
    },
    "least_group": {
        "at 2% each, 1/K is what is missing, not 1/(K − 1).": 51.0,
        "1/K is the share that is missing, and not in per cent.": 2.0,
    },
}


def exercise_2(numbers: Mapping[str, Any]) -> None:
    """Four numbers, by thinking.

    Args:
        numbers: `advantage_of_the_first`, `best_constant`, `factor_of_the_z_score`, `least_group`.
    Raises:
        AssertionError: with a diagnosis.
    """
    group = torch.tensor([3.0, 2.0, 1.0, -2.0], dtype=torch.float64)
    signs = replace(coin(0.3), rewards=torch.tensor([-1.0, 1.0], dtype=torch.float64))
    pair = gradients.of_groups(
        signs, lambda r: advantages.group_z_score(r, epsilon=1e-9), group_size=2
    )
    short = (
        gradients.of_groups(coin(0.4), advantages.minus_group_mean, group_size=size).scale
        for size in range(2, 100)
    )
    expected = {
        "advantage_of_the_first": float(advantages.leave_one_out(group)[0]),
        "best_constant": gradients.best_constant(signs),
        "factor_of_the_z_score": pair.scale,
        "least_group": next(k for k, scale in enumerate(short, 2) if scale > 0.98 - 1e-9),
    }
    if checker.predicted_numbers("6.2", numbers, expected, MISTAKES_2, tolerance=5e-3):
        checker.passed("6.2", "all four agree with the exact moments.")


def exercise_3(z_scores: Callable[..., Any]) -> None:
    """`z_scores(rewards, epsilon)`: each row minus its mean, over its standard deviation.

    Args:
        z_scores: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    generator = torch.Generator().manual_seed(3)
    for shape, epsilon in (((3, 5), 0.5), ((2, 4), 1e-4), ((2, 2), 1e-4), ((1, 6), 0.1)):
        rewards = torch.randn(shape, generator=generator, dtype=torch.float64)
        rewards = rewards * torch.tensor([[0.3], [2.0], [1.0]])[: shape[0]]
        rewards = rewards + torch.tensor([[2.0], [-1.0], [0.0]])[: shape[0]]
        given = rewards.clone()
        try:
            got = z_scores(given) if epsilon == 1e-4 else z_scores(given, epsilon)
        except RuntimeError as error:
            raise AssertionError(
                f"{error}. One number a row has shape (P,), and lines up with the columns; "
                "keepdim=True keeps it (P, 1)."
            ) from error
        if checker.is_stub("6.3", got):
            return
        checker.unchanged((given,), (rewards,))
        numbers = checker.as_numbers(got, shape=shape, what="the advantages")
        mistakes = _z_scores_otherwise(rewards, epsilon)
        expected = advantages.group_z_score(rewards, epsilon=epsilon)
        checker.diagnose(numbers, expected, mistakes, tolerance=1e-5)
    equal = checker.as_numbers(
        z_scores(torch.full((2, 3), 0.5)), shape=(2, 3), what="equal rewards"
    )
    assert bool((equal.abs() < 1e-6).all()), "a group of equal rewards should give zeros."
    checker.passed("6.3", "four batches, three ε: each group has mean 0 and its own scale.")


def _z_scores_otherwise(rewards: Tensor, epsilon: float) -> dict[str, Tensor]:
    """What each usual mistake makes of (P, K) rewards."""
    row, std = rewards - rewards.mean(-1, keepdim=True), rewards.std(-1, keepdim=True)
    root = rewards.var(-1, keepdim=True)
    everything = rewards.std() + epsilon
    return {
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
        "the scale fails: ε is added to the standard deviation, not a floor under it.": row
        / std.clamp(min=epsilon),
        "the scale fails: ε is missing, and a group of equal rewards would give nan.": row / std,
        "the mean fails: nothing is subtracted.": rewards / (std + epsilon),
        "the sign is turned: a reward above the mean should be positive.": -row / (std + epsilon),
        "the scale fails: ε is an argument, and you use a fixed one.": row / (std + 1e-4),
        "the mean fails: columns are compared, but a row is a group.": (
            rewards - rewards.mean(0, keepdim=True)
        )
        / (rewards.std(0, keepdim=True, correction=min(1, len(rewards) - 1)) + epsilon),
    }


def exercise_4(excess: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """`excess(rewards, values, mask)`: R − V(s_t), by the mean and variance that it leads to.

    Args:
        excess: the reader's function.
    Raises:
        AssertionError: naming the property that fails.
    """
    for world, prompt, std, noise in (
        (WORLD, "praise", 1.0, 0.7),
        (WORLD, "pan", 0.5, 0.0),
        (SHORT, "praise", 0.5, 0.3),
    ):
        generator = torch.Generator().manual_seed(5)
        table = tables.TablePolicy(world, std=std, generator=generator)
        problem = baselines.table_problem(table, prompt)
        state_values, _ = baselines.exact_values(problem, 5)
        state_values = state_values + noise * torch.randn(
            state_values.shape, generator=generator, dtype=torch.float64
        )
        mask = problem.moves >= 0
        along = state_values[problem.moves.clamp(min=0) // 5].masked_fill(~mask, 0.0)
        given = (problem.rewards.clone(), along.clone(), mask.clone())
        got = excess(*given)
        if checker.is_stub("6.4", got):
            return
        checker.unchanged(given, (problem.rewards, along, mask))
        judged = checker.as_numbers(got, shape=tuple(mask.shape), what="the advantages")
        assert bool(judged.isfinite().all()), "there are infinite or undefined advantages."
        assert bool((judged[~mask].abs() < 1e-6).all()), (
            "after the end of a text there is nothing to judge: return 0 where the mask is False."
        )
        expected = gradients.of_terms(
            problem, problem.combine(baselines.excess(problem, state_values))
        )
        found = gradients.of_terms(problem, problem.combine(judged))
        _something_is_subtracted(judged, problem.rewards, along, mask)
        _right_on_average(found)
        ratio = found.variance / expected.variance
        assert abs(ratio - 1) < 1e-4, (
            f"the mean is right, the variance is not: {ratio:.2f} times that of V(s_t) as the "
            "baseline. Does each word get the value of its own state?"
        )
    checker.passed("6.4", "three worlds, right and wrong V: the exact mean, and V's variance.")


def _something_is_subtracted(judged: Tensor, rewards: Tensor, along: Tensor, mask: Tensor) -> None:
    """Refuse R alone, and a bootstrapped difference in the place of R − V(s_t)."""
    paid = rewards.unsqueeze(1).expand_as(along)
    assert not torch.allclose(judged, paid.masked_fill(~mask, 0.0), atol=1e-5), (
        "nothing is subtracted: that is R alone, unbiased, with all its variance."
    )
    following = torch.cat([along[:, 1:], torch.zeros_like(along[:, :1])], dim=1)
    last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    for after in (following, following + paid * last):
        assert not torch.allclose(judged, (after - along) * mask, atol=1e-5), (
            "the mean fails: this bootstraps, V(s_{t+1}) stands for the rest of the text. Only "
            "subtract V(s_t) from R."
        )


def _right_on_average(found: gradients.GradientMoments) -> None:
    """Refuse an estimate whose mean is not ∇L, and say what is wrong with it."""
    size = float(found.truth.norm())
    if found.bias > 1e-4 * size:
        assert found.scale < 0 or found.cosine < 1 - 1e-6, (
            f"the scale fails: the direction is right, the length is {found.scale:.2f} ‖∇L‖. "
            "Nothing is to be divided or multiplied."
        )
        assert found.scale > -0.5, "the sign fails: the mean estimate points downhill."
        detail = (
            "nothing is left of it"
            if found.mean.norm() < 1e-4 * size
            else (f"it has {found.scale:.2f} of ∇L's length and its cosine is {found.cosine:.2f}")
        )
        raise AssertionError(
            f"the mean fails: {detail}. What is subtracted from word t knows word t."
        )


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
    entries = [
        x
        for n in names
        for x in (bad_case[n] if isinstance(bad_case[n], list | tuple) else [bad_case[n]])
    ]
    if any(x is None or x is ... for x in entries):
        checker.is_stub("6.5", None)
        return
    probs, rewards = (checker.as_numbers(bad_case[n], shape=(3,), what=n) for n in names)
    assert bool(probs.isfinite().all() and rewards.isfinite().all()), "numbers must be finite."
    assert abs(float(probs.sum()) - 1) < 1e-6, "the probabilities must sum to 1."
    assert float(probs.min()) > 0.01 - 1e-9, "each probability must be at least 0.01."
    assert float(rewards.abs().max()) <= 2, "rewards must lie in [-2, 2]."
    scores = torch.eye(3, dtype=torch.float64) - probs
    problem = GradientProblem(probs, rewards, scores, torch.tensor([[0], [1], [2]]))
    assert float(problem.truth.norm()) > 1e-6, "∇L vanishes here: there is nothing to estimate."
    middle = float(rewards.min() + rewards.max()) / 2
    assert float(probs @ rewards) < middle, (
        f"J = {float(probs @ rewards):.2f} is not below the middle of the rewards, {middle:.2f}: "
        "this is an expert. Look for a beginner."
    )
    none, loo = (
        gradients.of_groups(problem, judge, group_size=4).variance
        for judge in (lambda r: r, advantages.leave_one_out)
    )
    assert loo >= 10 * none, (
        f"leave-one-out has {loo / none:.2f} times the variance of no baseline here; ten times "
        "are asked for. What should the action with the long score earn?"
    )
    checker.passed("6.5", f"leave-one-out has {loo / none:.0f} times the variance.")


WORLD = word_world.WORD_WORLD
SHORT = word_world.TokenWorld(WORLD.words, ("praise",), 3, word_world.adjective_reward)


def _wrong_gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float,
    lam: float,
    mistake: str = "",
    leaks: Container[str] = (),
) -> Tensor:
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
        "swapped": (lam, gamma),
        "no γ in the trace": (gamma, lam),
        "no λ": (gamma, gamma),
        "no γ": (1.0, lam),
    }.get(mistake, (gamma, gamma * lam))
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


MISTAKES_6 = {
    "swapped": "γ and λ are exchanged: δ has γ, the trace has γ λ.",
    "no γ in the trace": "the trace decays by λ alone; it should by γ λ.",
    "no λ": "λ is missing: the trace decays by γ λ.",
    "no γ": "γ is missing: V(s_{t+1}) and the trace are discounted.",
    "no V": "V(s_t) is not subtracted in δ.",
    "δ only": "the trace is gone: that is λ = 0, whatever λ is.",
}


def exercise_6(batch_gae: Callable[..., Any]) -> None:
    """`batch_gae(rewards, values, mask, gamma, lam)` on texts of different lengths.

    Args:
        batch_gae: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
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
        if checker.is_stub("6.6", got):
            return
        kept = (rewards, state_values, inside)
        checker.unchanged(*([x.nan_to_num(7.0) for x in row] for row in (given, kept)))
        numbers = checker.as_numbers(got, shape=tuple(inside.shape), what="the advantages")
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
            for name, message in MISTAKES_6.items()
        }
        checker.diagnose(numbers, right, wrong, tolerance=1e-5)
    checker.passed("6.6", "two texts by hand, five padded ones, three pairs of γ and λ, and nan.")


def exercise_7(best_baseline: Callable[[Tensor, Tensor], Any]) -> None:
    """`best_baseline(probs, q_value)`: the b(s) of least variance of a table policy.

    Args:
        best_baseline: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for world, prompt, std in ((WORLD, "praise", 0.5), (WORLD, "pan", 1.5), (SHORT, "praise", 1.0)):
        generator = torch.Generator().manual_seed(7)
        table = tables.TablePolicy(world, std=std, generator=generator)
        problem = baselines.table_problem(table, prompt)
        _, q_value = baselines.exact_values(problem, 5)
        probs = table.logits[world.prompts.index(prompt)].detach().softmax(-1)
        given = (probs.clone(), q_value.clone())
        got = best_baseline(*given)
        if checker.is_stub("6.7", got):
            return
        checker.unchanged(given, (probs, q_value))
        numbers = checker.as_numbers(got, shape=(len(probs),), what="the baselines")
        square = 1 - 2 * probs + probs.pow(2).sum(-1, keepdim=True)

        def weighted(weight: Tensor, q: Tensor = q_value) -> Tensor:
            return (weight * q).sum(-1) / weight.sum(-1)

        mistakes = {
            "that is V(s): the squared scores are missing.": weighted(probs),
            "the probabilities are missing from the two sums.": weighted(square),
            "that takes the length of the score; it has to be squared.": weighted(
                probs * square.sqrt()
            ),
            "that squares the chosen word's own entry only; the score has one for each "
            "word.": weighted(probs * (1 - probs) ** 2),
            "the sum is not divided by the sum of the weights.": (probs * square * q_value).sum(-1),
            "that is the plain mean of Q over the words.": q_value.mean(-1),
            "the words must be weighted by 1 − 2 π + Σ π², not by π (1 − π).": weighted(
                probs * (1 - probs)
            ),
        }
        expected = baselines.best_state_baseline(problem, 5)
        checker.diagnose(numbers, expected, mistakes, tolerance=1e-5)
    checker.passed("6.7", "three tables, against the linear system of section 6.5.")
