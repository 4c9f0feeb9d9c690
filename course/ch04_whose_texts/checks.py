"""Checkers of chapter 04, on-policy and off-policy."""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from course.exact import importance, off_policy, oracle, tables, td, values
from course.kit import checker
from course.worlds import tiny_models
from course.worlds.word_world import WORD_WORLD, TokenWorld
from helpers import models


def exercise_1(sarsa_step: Callable[..., Any]) -> None:
    """`sarsa_step(q, transition, next_word, alpha, gamma)` is the new value of one entry.

    Args:
        sarsa_step: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    generator = torch.Generator().manual_seed(4)
    table = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    cases = [  # transition, next word, step, γ
        ((0, 1, 0.5, 2), 2, 0.25, 0.9),
        ((2, 2, -1.0, 5), 0, 0.5, 0.6),
        ((3, 0, 2.0, None), None, 0.25, 0.9),
        ((1, 1, 0.0, 4), 1, 1.0, 1.0),
    ]
    got, q = [], table.tolist()
    for number, case in enumerate(cases):
        try:
            value = sarsa_step(q, *case)
        except (TypeError, IndexError) as error:
            ended = "; at the end of a text there is no next state to look up, and its Q counts 0"
            what = f"{type(error).__name__}: {error}, for the transition {case[0]}"
            raise AssertionError(what + ended * (case[0][3] is None) + ".") from error
        if number == 0 and checker.is_stub("4.1", value):
            return
        got.append(checker.as_numbers(value, shape=(), what="the new value"))
    assert q == table.tolist(), "q was changed: return the new value and leave the table alone."

    right, mistakes = _sarsa_targets(table, cases)
    checker.diagnose(torch.stack(got), right, mistakes, tolerance=1e-5)
    checker.passed("4.1", "on the way and at the end, for several step sizes and discounts.")


def _sarsa_targets(table: Tensor, cases: list[tuple]) -> tuple[Tensor, dict[str, Tensor]]:
    """The right new values, one per case, and what each usual mistake gives instead."""

    def every(target: Callable[..., Tensor]) -> Tensor:
        found = []
        for (state, word, reward, after), following, step, gamma in cases:
            onward = torch.zeros(()) if after is None else target(state, after, following)
            found.append((1 - step) * table[state, word] + step * (reward + gamma * onward))
        return torch.stack(found)

    right, best, mean, this = (
        every(look)
        for look in (
            lambda state, after, word: table[after, word],
            lambda state, after, word: table[after].max(),
            lambda state, after, word: table[after].mean(),
            lambda state, after, word: table[state, word],
        )
    )
    forgotten = [0 if t[3] is None else step * (1 - g) * table[t[3], w] for t, w, step, g in cases]
    no_reward = right - torch.tensor([step * t[2] for t, _, step, _ in cases])
    old = torch.stack([table[t[0], t[1]] for t, *_ in cases])
    steps = torch.tensor([case[2] for case in cases])
    ends = torch.tensor([case[0][3] is None for case in cases])
    mistakes = {
        "that is Q-learning, with the best next word. SARSA takes the one written.": best,
        "this takes the mean over next words; SARSA takes the one that was written.": mean,
        "γ is missing in front of the next Q.": right + torch.tensor(forgotten),
        "the reward is missing.": no_reward,
        "this is the change; return the new value, the old one plus the change.": right - old,
        "this is the reward alone; move the old value towards reward plus γ times the next Q.": (
            torch.tensor([t[2] for t, *_ in cases])
        ),
        "this is the target; the value moves only the share α of the way.": (
            old + (right - old) / steps
        ),
        "nothing is learned at the end of a text; the target is the reward there.": (
            torch.where(ends, old, right)
        ),
        "the bootstrap reads the row of this state; it belongs to the next state.": this,
    }
    return right, mistakes


def exercise_2(q_learning: Callable[..., Any]) -> None:
    """`q_learning(record, shape, gamma)` learns from a fixed record, with step size 1 / visits.

    Args:
        q_learning: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for number, (world, prompt, gamma) in enumerate(
        ((WORD_WORLD, "praise", 0.9), (DEEP, "p", 0.5))
    ):
        tree = td.token_tree(world, prompt)
        uniform = torch.full(tree.shape, 1 / tree.shape[1])
        record = td.write_texts(tree, uniform, 400, generator=torch.Generator().manual_seed(number))
        given = copy.deepcopy(record)
        try:
            answer = q_learning(given, tree.shape, gamma)
        except (TypeError, IndexError) as error:
            hint = "Is the next state None handled, and do the tables have S rows of A?"
            raise AssertionError(f"{type(error).__name__}: {error}. {hint}") from error
        if number == 0 and checker.is_stub("4.2", answer):
            return
        assert given == record, "the record was changed: only read it."
        got = checker.as_numbers(answer, shape=tree.shape, what="the table")

        right, mistakes = _learned_otherwise(record, tree.shape, gamma)
        checker.diagnose(got, right, mistakes, tolerance=1e-5)
    checker.passed("4.2", "two worlds, two discounts, every entry.")


def _learned_otherwise(
    record: Any, shape: tuple[int, int], gamma: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """What Q-learning makes of a record, and what each usual mistake makes of it."""

    def learn(
        bootstrap: Any = td.best_value,
        record: Any = record,
        gamma: float = gamma,
        power: float = 1.0,
    ) -> Tensor:
        return td.learn_from_texts(record, bootstrap, shape, gamma=gamma, power=power)[-1]

    average = lambda row, word, state: sum(row) / len(row)  # noqa: E731
    slip = functools.partial(_slip, record, shape, gamma)
    return learn(), {
        "this follows the written word: that is SARSA.": learn(td.next_word_value),
        "this bootstraps from the mean over words; Q-learning takes the best.": learn(average),
        "this bootstraps from nothing: the next state's best Q is missing.": learn(gamma=0.0),
        "γ is missing in front of the next state's best Q.": learn(gamma=1.0),
        "the step size is 1 instead of 1 / visits.": learn(power=0.0),
        "the step size is not 1 / visits: is it a square root?": learn(power=0.5),
        "this reads the record backwards; read the texts in order.": learn(record=record[::-1]),
        "each text is walked backwards; take its words in order.": slip(backwards=True),
        "visits are counted for each state; count each state and word.": slip(per_state=True),
        "the count begins at 1, so that the first step is 1/2; it is 1.": slip(begin=1),
    }


def _slip(
    record: td.Record,
    shape: tuple[int, int],
    gamma: float,
    *,
    per_state: bool = False,
    backwards: bool = False,
    begin: int = 0,
) -> Tensor:
    """What Q-learning gives with one slip in its loop."""
    q, visits = torch.zeros(shape).tolist(), dict[tuple[int, int], int]()
    for text in record:
        for state, word, reward, after in text[::-1] if backwards else text:
            key = (state, 0 if per_state else word)
            visits[key] = visits.get(key, begin) + 1
            target = reward if after is None else reward + gamma * max(q[after])
            q[state][word] += (target - q[state][word]) / visits[key]
    return torch.tensor(q, dtype=torch.float64)


def exercise_3(per_decision: Callable[..., Any]) -> None:
    """`per_decision(target_logprobs, behavior_logprobs, rewards, mask, gamma)`, a mean over texts.

    Args:
        per_decision: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    generator = torch.Generator().manual_seed(3)
    for number, (shape, gamma) in enumerate((((6, 4), 0.9), ((3, 7), 1.0))):
        target, behavior, rewards = torch.randn(3, *shape, generator=generator).double()
        target, behavior = -2 * target.abs(), -2 * behavior.abs()
        target[0, 0], behavior[0, 0] = -0.1, -4.1  # a ratio above 50, as in section 4.7
        if number == 1:
            target[1, 1] = -torch.inf  # the target cannot write this
        lengths = torch.arange(shape[0]) % shape[1] + 1
        mask = torch.arange(shape[1]) < lengths[:, None]
        inputs = [x.masked_fill(~mask, torch.nan) for x in (target, behavior, rewards)]
        given = [x.clone() for x in (*inputs, mask)]
        answer = per_decision(*given, gamma)
        if number == 0 and checker.is_stub("4.3", answer):
            return
        pairs = zip(given, (*inputs, mask), strict=True)
        assert all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in pairs), (
            "an argument was changed: masked_fill makes a new tensor, masked_fill_ does not."
        )
        got = checker.as_numbers(answer, shape=(), what="the estimate")
        assert not got.isnan(), (
            "nan: a word that π cannot write has ratio 0."
            if number
            else "nan: what stands "
            "outside the mask came in. masked_fill replaces it; nan · 0 is nan."
        )
        expected, mistakes = _weighed(target, behavior, rewards, mask, gamma)
        if _is_clipped(per_decision):
            mistakes[CLIPPED] = got
        size = max(1.0, float(expected.abs()))
        checker.diagnose(got, expected, mistakes, tolerance=1e-5 * size)
    assert not _is_clipped(per_decision), CLIPPED
    checker.passed("4.3", "two batches, with impossible words, large ratios, padding, a discount.")


CLIPPED = "the ratios are clipped; (4.12) has them as they are, however large or small."


def _is_clipped(per_decision: Callable[..., Any]) -> bool:
    """Whether the answer to a text of one word stays although its ratio grows or shrinks."""
    for sign in (1, -1):
        found = []
        for size in (24.0, 25.0):
            log_ratio = torch.tensor([[sign * size]], dtype=torch.float64)
            ones = torch.ones_like(log_ratio)
            answer = per_decision(
                log_ratio.clamp(max=0), -log_ratio.clamp(min=0), ones, ones > 0, 1.0
            )
            found.append(float(checker.as_numbers(answer, shape=(), what="the estimate")))
        if found[0] == found[1] != 0:
            return True
    return False


def _weighed(
    target: Tensor, behavior: Tensor, rewards: Tensor, mask: Tensor, gamma: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The per-decision estimate, and diagnosis → what the usual mistakes give."""
    log_ratio = importance.log_ratios(target, behavior, mask)
    prefix, whole = importance.prefix_ratios(log_ratio), importance.sequence_ratios(log_ratio)
    inverted = importance.prefix_ratios(-log_ratio.clamp(min=-700))
    later = log_ratio.flip(-1).cumsum(-1).flip(-1).exp()

    def of(weights: Tensor, gamma: float = gamma) -> Tensor:
        # Of the mistakes: log-ratios and infinite ones, which the library refuses.
        discounts = gamma ** torch.arange(mask.shape[1])
        return (weights * discounts * rewards).masked_fill(~mask, 0.0).sum(-1).mean()

    before = torch.cat([torch.ones_like(prefix[:, :1]), prefix[:, :-1]], dim=1)
    right = importance.per_decision_returns(prefix, rewards, mask, gamma=gamma).mean()
    texts = len(mask)
    return right, {
        "the ratio of the whole text: the ordinary estimate.": of(whole[:, None].expand_as(prefix)),
        "this has each word's own ratio only; the words before it decide whether the state "
        "is reached.": of(log_ratio.exp()),
        "the product of ratios stops before word t; word t belongs to it.": of(before),
        "this has the ratios of the later words; those up to word t count.": of(later),
        "no ratio is in it: this is the writer's own mean.": of(torch.ones_like(prefix)),
        "this is a sum of log-ratios; take exp.": of(log_ratio.cumsum(-1)),
        "the ratio is inverted: π over μ, not μ over π.": of(inverted),
        "γ is missing: the reward of word t counts γ^(t−1).": of(prefix, 1.0),
        "the first word is discounted already; it counts γ^0.": right * gamma,
        "this is the sum over the texts; an estimate is their mean.": right * texts,
        "divided by the words; divide by the texts.": right * texts / mask.sum(),
    }


def exercise_4(effective_size: Callable[[Tensor], Any]) -> None:
    """`effective_size(log_ratios)` is (Σρ)² / Σρ², without overflow.

    Args:
        effective_size: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    plain = torch.tensor([0.3, -1.0, 0.8, 0.1, 0.0], dtype=torch.float64)
    small = torch.tensor([0.3, -1.0, 0.8, -torch.inf, 0.0], dtype=torch.float64)
    cases = [plain, torch.full((7,), 2.0).double(), small, small + 900.0, small - 900.0]
    ratios = [plain.exp(), torch.ones(7).double(), small.exp(), small.exp(), small.exp()]
    got = []
    for number, case in enumerate(cases):
        given = case.clone()
        answer = effective_size(given)
        if number == 0 and checker.is_stub("4.4", answer):
            return
        assert torch.equal(given, case), "the argument was changed."
        got.append(checker.as_numbers(answer, shape=(), what="the effective sample size"))
    expected = torch.stack([importance.effective_sample_size(r) for r in ratios])
    both = lambda rule: torch.stack([rule(x) for x in cases[:2]])  # noqa: E731
    checker.diagnose(
        torch.stack(got[:2]),
        expected[:2],
        {
            "this is upside down: (Σρ)² stands above.": 1 / expected[:2],
            "the sum is not squared.": both(lambda x: x.exp().sum() / (2 * x).exp().sum()),
            "this is 1 / Σρ²: the ratios must be divided by their sum first.": both(
                lambda x: 1 / (2 * x).exp().sum()
            ),
            "this is the number of texts; heavy ratios should lower it.": torch.tensor([5.0, 7.0]),
            "this is Σρ / max ρ, another measure.": both(lambda x: x.exp().sum() / x.exp().max()),
            "the log-ratios stand where the ratios belong: take exp.": both(
                lambda x: x.sum() ** 2 / (x**2).sum()
            ),
        },
        tolerance=1e-5,
    )
    assert not got[2].isnan(), (
        "nan: −∞ is among the log-ratios, where π cannot write a text; subtract the largest, and "
        "its ratio is 0."
    )
    for i, what in ((3, "large log-ratios (overflow)"), (4, "small ones (all ratios are 0)")):
        assert bool(got[i].isfinite()), f"{got[i]} for {what}: subtract the largest one first."
    checker.diagnose(torch.stack(got), expected, {}, tolerance=1e-5)
    checker.passed("4.4", "also for log-ratios of ±900 and for a text that π cannot write.")


SECOND_MOMENT = 0.25 / 0.8 + 0.25 / 0.2  # Σ π² / μ of one word
MISTAKES_5: dict[str, dict[str, float]] = {
    "mean_10": {
        "a second moment, or a mean under π: μ writes, and (4.10) has R = 1.": SECOND_MOMENT**10,
        "the ratio is inverted: π over μ, not μ over π.": (0.64 / 0.5 + 0.04 / 0.5) ** 10,
        "a mean of 1 a word multiplies, it does not add.": 10.0,
    },
    "second_moment_1": {
        "this is the variance: the second moment before subtracting 1.": SECOND_MOMENT - 1,
        "Σ π / μ: square the ratio, then weigh with μ.": 0.5 / 0.8 + 0.5 / 0.2,
        "the squares are weighed with π; μ writes.": 0.5 * (0.625**2 + 2.5**2),
        "π and μ are exchanged.": 0.64 / 0.5 + 0.04 / 0.5,
    },
    "variance_10": {
        "this is the second moment; subtract the square of the mean.": SECOND_MOMENT**10,
        "variances of ten words were added; ratios multiply.": 10 * (SECOND_MOMENT - 1),
        "only second moments multiply; these are variances.": (SECOND_MOMENT - 1) ** 10,
    },
    "texts_for_100": {
        "this uses the variance; (4.14) has the second moment.": 100 * (SECOND_MOMENT**10 - 1),
        "the second moments of ten words multiply.": 100 * 10 * SECOND_MOMENT,
        "upside down: many texts are worth few.": 100 / SECOND_MOMENT**10,
    },
    "mean_without_coverage": {
        "1 needs coverage: half of what π writes is missing.": 1.0,
        "μ now writes the second word first, always: the first ratio is 1/2 over 1.": 2.5,
    },
    "claim_of_the_largest": {
        "this is in standard errors; the mean of 16 raters has one of 1/4.": 1.1629645,
        "16 raters divide the variance by 16, and the standard error by 4.": 1.1629645 / 16,
        "each estimate is unbiased; the largest of them is not.": 0.0,
    },
}


def exercise_5(answers: Mapping[str, Any]) -> None:
    """Six numbers: four about two memoryless writers and ten words, one on coverage, one maximum.

    Args:
        answers: name → number, the six names of the exercise.
    Raises:
        AssertionError: with a diagnosis.
    """
    one = SECOND_MOMENT
    expected = {
        "mean_10": 1.0,
        "second_moment_1": one,
        "variance_10": one**10 - 1,
        "texts_for_100": 100 * one**10,
        "mean_without_coverage": 0.5,
        "claim_of_the_largest": 1.1629645 / 4,  # E max of five standard normals; 16 raters
    }
    # Section 4.5 says 1.16 standard errors, a quarter of which is 0.29.
    tolerance = dict.fromkeys(expected, 2e-3) | {"claim_of_the_largest": 5e-3}
    if checker.predicted_numbers(
        "4.5", answers, expected, MISTAKES_5, tolerance=tolerance, relative=True
    ):
        checker.passed("4.5", "a moderate difference a word, and thousands of texts for 100.")


DEEP = TokenWorld(("a", "b", "."), ("p",), 5, lambda _, texts: [len(x) - 6.0 for x in texts])


def _new_policy() -> tables.TablePolicy:
    """The new writer of the chapter."""
    table = tables.tabulate(
        models.as_policy(tiny_models.word_transformer(WORD_WORLD, seed=7)), WORD_WORLD
    )
    with torch.no_grad():
        for row, prompt in enumerate(WORD_WORLD.prompts):
            table.logits[row] += torch.cat(values.optimal_values(WORD_WORLD, prompt).q_value)
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
    if checker.is_stub("4.6", answer):
        return
    assert torch.equal(given, target.logits[0].softmax(-1)), "the argument was changed: clone it."
    probs = checker.as_numbers(answer, shape=(85, 5), what="the behaviour policy")
    assert bool((probs > 0).all()), (
        "some probability is 0: then coverage fails, and the estimate is biased. Small is enough."
    )
    assert bool(((probs.sum(-1) - 1).abs() < 1e-6).all()), "each row must sum to 1."
    problem = off_policy.off_policy(
        target, tables.table_policy(probs, WORD_WORLD), WORD_WORLD, "praise"
    )
    mu, rho, reward = problem.probability, problem.ratio, problem.returns
    rare = torch.zeros(len(mu), dtype=torch.bool)
    order = mu.argsort()
    rare[order] = mu[order].cumsum(0) < 1e-5  # none of these in 1,000 texts, 99 times of 100
    rest = mu[~rare] / mu[~rare].sum()
    found = off_policy.of_mean(rest, (rho * reward)[~rare], count=texts, truth=problem.truth)
    size = off_policy.expected_sample_size(rest, rho[~rare], count=texts)
    _far_off_and_not_loud(found, problem.truth, largest_ratio=float(rho[~rare].max()))
    assert size > 900, (
        f"the effective sample size is about {size:.0f}: the reader is warned. Keep all other "
        "texts in the target's own proportions, so that their ratios are equal."
    )
    checker.passed(
        "4.6",
        f"the estimate says {found.mean:+.2f}, the truth is {problem.truth:+.2f}, "
        f"the effective sample size {size:.0f} of {texts}. The mean ratio, though, is "
        f"{rest @ rho[~rare]:.2f}.",
    )


def _far_off_and_not_loud(found: Any, truth: float, *, largest_ratio: float) -> None:
    """Whether the moments of a usual estimate hide the truth, and if not, what shows."""
    deviation = found.variance**0.5
    assert abs(found.bias) > 0.02, (
        f"1,000 texts get to {found.mean:.3f} on average, of {truth:.3f}: what matters is "
        "still written now and then, or what you hide carries no reward. It must have a "
        "probability below 0.00001 in all."
    )
    loud = 3 * deviation > 0.15 and largest_ratio > 30
    assert abs(found.bias) - 3 * deviation >= 0.2, (
        f"nearly always the estimate is near {found.mean:.3f} ± {deviation:.3f}, and "
        f"the exact value is {truth:.3f}: not far enough off. "
    ) + (
        "Texts with huge ratios still occur: make them rarer."
        if loud
        else "Hide more of the reward."
    )


def exercise_7(q_of_policy: Callable[..., Any]) -> None:
    """`q_of_policy(record, target_probs, gamma)` is Q of a policy that did not write the record.

    Args:
        q_of_policy: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for number, (world, prompt, gamma) in enumerate(((WORD_WORLD, "pan", 0.9), (DEEP, "p", 0.6))):
        tree = td.token_tree(world, prompt)
        generator = torch.Generator().manual_seed(number)
        target = tables.TablePolicy(world, std=1.5, generator=generator)
        probs = target.logits[world.prompts.index(prompt)].softmax(-1).detach()
        writer = tables.exploring(tables.TablePolicy(world), world)  # uniform
        rows = writer.logits[0].softmax(-1).detach()
        record = td.write_texts(tree, rows, 12_000, generator=generator, anywhere=True)
        given = probs.clone()
        answer = q_of_policy(record, given, gamma)
        if number == 0 and checker.is_stub("4.7", answer):
            return
        assert torch.equal(given, probs), "the target's probabilities were changed."
        got = checker.as_numbers(answer, shape=tree.shape, what="the table")
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
                if error > 0.5
                else "if the direction is right, the step size shrinks too fast: the targets "
                "have no noise here."
            )
        raise AssertionError(message)
    checker.passed("4.7", "two worlds, every entry within 0.05 of the exact Q of the target.")


def _rows_are_distributions(got: Tensor) -> None:
    """Refuse rows that do not sum to 1, and say why they may not."""
    assert not got.isnan().any(), "nan: where the total weight is 0, any row will do but 0 / 0."
    sums = got.sum(-1)
    assert not ((sums == 0).any() and ((sums == 0) | ((sums - 1).abs() < 1e-5)).all()), (
        "a row of zeros: where the total weight is 0 give some distribution, say the uniform."
    )
    assert torch.allclose(sums, torch.ones(len(got)).double(), atol=1e-5), (
        "each row must sum to 1: divide by the weight through its state, not by all weight."
    )


def _name_the_wrong_proportion(
    got: Tensor, first_words: Tensor, joint: Tensor, wanted: Tensor
) -> NoReturn:
    """Say how far the reader came: `joint` (texts,) is not in proportion to `wanted`."""
    share = torch.stack([wanted[first_words == word].sum() for word in range(len(got[0]))])
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


def exercise_8(best_behavior: Callable[..., Any]) -> None:
    """`best_behavior(texts, weights, shape)`: next-word probabilities of a joint distribution.

    Args:
        best_behavior: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    zeros = TokenWorld(("a", "."), ("p",), 4, lambda _, texts: [x.count("a") < 2 for x in texts])
    for number, (world, prompt) in enumerate(
        ((WORD_WORLD, "praise"), (WORD_WORLD, "pan"), (zeros, "p"))
    ):
        tree, every = td.token_tree(world, prompt), oracle.enumerate_completions(world)
        generator = torch.Generator().manual_seed(number)
        policy = tables.TablePolicy(world, std=1.0, generator=generator)
        with torch.no_grad():
            pi = oracle.completion_logprobs(policy, world, prompt).exp()
        reward = oracle.rewards(world, prompt)
        weights = 3.0 * pi * reward.abs()  # not normalised
        rows = [
            r[:n]
            for r, n in zip(every.completion_ids.tolist(), every.lengths.tolist(), strict=True)
        ]
        texts, given = td.read_texts(tree, rows), weights.clone()
        answer = best_behavior(texts, given, tree.shape)
        if number == 0 and checker.is_stub("4.8", answer):
            return
        assert torch.equal(given, weights), "the weights were changed."
        got = checker.as_numbers(answer, shape=tree.shape, what="the table")
        _rows_are_distributions(got)
        table = tables.table_policy(got, world)
        with torch.no_grad():
            joint = oracle.completion_logprobs(table, world, prompt).exp()
        wanted = weights / weights.sum()
        if torch.allclose(joint, wanted, rtol=0, atol=1e-6):
            problem = off_policy.off_policy(policy, table, world, prompt)
            found = off_policy.of_mean(
                problem.probability, problem.ratio * problem.returns, count=1, truth=problem.truth
            )
            assert abs(found.bias) < 1e-5, f"the estimate is biased by {found.bias:.6f}."
            continue
        own = policy.logits[world.prompts.index(prompt)].softmax(-1).detach()
        assert not torch.allclose(got, own, atol=1e-6), "the rewards are not in it: this is π."
        chosen = torch.tensor([text[0][1] for text in texts])
        _name_the_wrong_proportion(got, chosen, joint, wanted)
    checker.passed("4.8", "the texts come out in proportion to π|R|, and (4.18) is reached.")
