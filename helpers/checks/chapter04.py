"""Checkers of chapter 04, on-policy and off-policy.

Those of the last three exercises are in `chapter04b`.
"""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from helpers import checks, importance, learning
from helpers.checks.chapter04b import DEEP, WORLD
from helpers.checks.chapter04b import exercise_6 as exercise_6
from helpers.checks.chapter04b import exercise_7 as exercise_7
from helpers.checks.chapter04b import exercise_8 as exercise_8


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
        ((0, 1, 0.5, 2), 2, 0.25, 0.9), ((2, 2, -1.0, 5), 0, 0.5, 0.6),
        ((3, 0, 2.0, None), None, 0.25, 0.9), ((1, 1, 0.0, 4), 1, 1.0, 1.0),
    ]  # fmt: skip
    got, q = [], table.tolist()
    for number, case in enumerate(cases):
        try:
            value = sarsa_step(q, *case)
        except (TypeError, IndexError) as error:
            ended = "; at the end of a text there is no next state to look up, and its Q counts 0"
            what = f"{type(error).__name__}: {error}, for the transition {case[0]}"
            raise AssertionError(what + ended * (case[0][3] is None) + ".") from error
        if number == 0 and checks.is_stub("4.1", value):
            return
        got.append(checks.as_numbers(value, shape=(), what="the new value"))
    assert q == table.tolist(), "q was changed: return the new value and leave the table alone."

    def every(target: Callable[..., Tensor]) -> Tensor:
        found = []
        for (state, word, reward, after), following, step, gamma in cases:
            onward = torch.zeros(()) if after is None else target(state, after, following)
            found.append((1 - step) * table[state, word] + step * (reward + gamma * onward))
        return torch.stack(found)

    right, best, mean, this = (every(look) for look in (
        lambda state, after, word: table[after, word],
        lambda state, after, word: table[after].max(),
        lambda state, after, word: table[after].mean(),
        lambda state, after, word: table[state, word],
    ))  # fmt: skip
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
    checks.diagnose(torch.stack(got), right, mistakes, tolerance=1e-5)
    checks.passed("4.1", "on the way and at the end, for several step sizes and discounts.")


def exercise_2(q_learning: Callable[..., Any]) -> None:
    """`q_learning(record, shape, gamma)` learns from a fixed record, with step size 1 / visits.

    Args:
        q_learning: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for number, (world, prompt, gamma) in enumerate(((WORLD, "praise", 0.9), (DEEP, "p", 0.5))):
        tree = learning.token_tree(world, prompt)
        uniform = torch.full(tree.shape, 1 / tree.shape[1])
        record = learning.write_texts(
            tree, uniform, 400, generator=torch.Generator().manual_seed(number)
        )
        given = copy.deepcopy(record)
        try:
            answer = q_learning(given, tree.shape, gamma)
        except (TypeError, IndexError) as error:
            hint = "Is the next state None handled, and do the tables have S rows of A?"
            raise AssertionError(f"{type(error).__name__}: {error}. {hint}") from error
        if number == 0 and checks.is_stub("4.2", answer):
            return
        assert given == record, "the record was changed: only read it."
        got = checks.as_numbers(answer, shape=tree.shape, what="the table")

        def learn(bootstrap: Any = learning.best_value, record: Any = record, tree: Any = tree,
                  gamma: float = gamma, power: float = 1.0) -> Tensor:  # fmt: skip
            return learning.learn_from_texts(
                record, bootstrap, tree.shape, gamma=gamma, power=power
            )[-1]

        average = lambda row, word, state: sum(row) / len(row)  # noqa: E731
        slip = functools.partial(_slip, record, tree.shape, gamma)
        checks.diagnose(got, learn(), tolerance=1e-5, mistakes={
            "this follows the written word: that is SARSA.": learn(learning.next_word_value),
            "this bootstraps from the mean over words; Q-learning takes the best.": learn(average),
            "this bootstraps from nothing: the next state's best Q is missing.": learn(gamma=0.0),
            "γ is missing in front of the next state's best Q.": learn(gamma=1.0),
            "the step size is 1 instead of 1 / visits.": learn(power=0.0),
            "the step size is not 1 / visits: is it a square root?": learn(power=0.5),
            "this reads the record backwards; read the texts in order.": learn(record=record[::-1]),
            "each text is walked backwards; take its words in order.": slip(backwards=True),
            "visits are counted for each state; count each state and word.": slip(per_state=True),
            "the count begins at 1, so that the first step is 1/2; it is 1.": slip(begin=1),
        })  # fmt: skip
    checks.passed("4.2", "two worlds, two discounts, every entry.")


def _slip(record: learning.Record, shape: tuple[int, int], gamma: float, *, per_state: bool = False,
          backwards: bool = False, begin: int = 0) -> Tensor:  # fmt: skip
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
        if number == 0 and checks.is_stub("4.3", answer):
            return
        pairs = zip(given, (*inputs, mask), strict=True)
        assert all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in pairs), (
            "an argument was changed: masked_fill makes a new tensor, masked_fill_ does not."
        )
        got = checks.as_numbers(answer, shape=(), what="the estimate")
        assert not got.isnan(), (
            "nan: a word that π cannot write has ratio 0." if number else "nan: what stands "
            "outside the mask came in. masked_fill replaces it; nan · 0 is nan."
        )  # fmt: skip
        expected, mistakes = _weighed(target, behavior, rewards, mask, gamma)
        if _is_clipped(per_decision):
            mistakes[CLIPPED] = got
        size = max(1.0, float(expected.abs()))
        checks.diagnose(got, expected, mistakes, tolerance=1e-5 * size)
    assert not _is_clipped(per_decision), CLIPPED
    checks.passed("4.3", "two batches, with impossible words, large ratios, padding, a discount.")


CLIPPED = "the ratios are clipped; (4.12) has them as they are, however large or small."


def _is_clipped(per_decision: Callable[..., Any]) -> bool:
    """Whether the answer to a text of one word stays although its ratio grows or shrinks."""
    for sign in (1, -1):
        found = []
        for size in (24.0, 25.0):
            log_ratio = torch.tensor([[sign * size]], dtype=torch.float64)
            ones = torch.ones_like(log_ratio)
            answer = per_decision(log_ratio.clamp(max=0), -log_ratio.clamp(min=0), ones, ones > 0,
                                  1.0)  # fmt: skip
            found.append(float(checks.as_numbers(answer, shape=(), what="the estimate")))
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
        return importance.per_decision_returns(weights, rewards, mask, gamma=gamma).mean()

    before = torch.cat([torch.ones_like(prefix[:, :1]), prefix[:, :-1]], dim=1)
    right, texts = of(prefix), len(mask)
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
        if number == 0 and checks.is_stub("4.4", answer):
            return
        assert torch.equal(given, case), "the argument was changed."
        got.append(checks.as_numbers(answer, shape=(), what="the effective sample size"))
    expected = torch.stack([importance.effective_sample_size(r) for r in ratios])
    both = lambda rule: torch.stack([rule(x) for x in cases[:2]])  # noqa: E731
    checks.diagnose(torch.stack(got[:2]), expected[:2], {
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
    }, tolerance=1e-5)  # fmt: skip
    assert not got[2].isnan(), (
        "nan: −∞ is among the log-ratios, where π cannot write a text; subtract the largest, and "
        "its ratio is 0."
    )
    for i, what in ((3, "large log-ratios (overflow)"), (4, "small ones (all ratios are 0)")):
        assert bool(got[i].isfinite()), f"{got[i]} for {what}: subtract the largest one first."
    checks.diagnose(torch.stack(got), expected, {}, tolerance=1e-5)
    checks.passed("4.4", "also for log-ratios of ±900 and for a text that π cannot write.")


def exercise_5(answers: Mapping[str, Any]) -> None:
    """Six numbers: four about two memoryless writers and ten words, one on coverage, one maximum.

    Args:
        answers: name → number, the six names of the exercise.
    Raises:
        AssertionError: with a diagnosis.
    """
    one = 0.25 / 0.8 + 0.25 / 0.2  # Σ π² / μ
    expected = {
        "mean_10": 1.0, "second_moment_1": one, "variance_10": one**10 - 1,
        "texts_for_100": 100 * one**10, "mean_without_coverage": 0.5,
        "claim_of_the_largest": 1.1629645 / 4,  # E max of five standard normals; 16 raters
    }  # fmt: skip
    mistakes: dict[str, dict[str, float]] = {
        "mean_10": {
            "a second moment, or a mean under π: μ writes, and (4.10) has R = 1.": one**10,
            "the ratio is inverted: π over μ, not μ over π.": (0.64 / 0.5 + 0.04 / 0.5) ** 10,
            "a mean of 1 a word multiplies, it does not add.": 10.0,
        },
        "second_moment_1": {
            "this is the variance: the second moment before subtracting 1.": one - 1,
            "Σ π / μ: square the ratio, then weigh with μ.": 0.5 / 0.8 + 0.5 / 0.2,
            "the squares are weighed with π; μ writes.": 0.5 * (0.625**2 + 2.5**2),
            "π and μ are exchanged.": 0.64 / 0.5 + 0.04 / 0.5,
        },
        "variance_10": {
            "this is the second moment; subtract the square of the mean.": one**10,
            "variances of ten words were added; ratios multiply.": 10 * (one - 1),
            "only second moments multiply; these are variances.": (one - 1) ** 10,
        },
        "texts_for_100": {
            "this uses the variance; (4.14) has the second moment.": 100 * (one**10 - 1),
            "the second moments of ten words multiply.": 100 * 10 * one,
            "upside down: many texts are worth few.": 100 / one**10,
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
    # Section 4.5 says 1.16 standard errors, a quarter of which is 0.29.
    tolerance = dict.fromkeys(expected, 2e-3) | {"claim_of_the_largest": 5e-3}
    if checks.predicted_numbers(
        "4.5", answers, expected, mistakes, tolerance=tolerance, relative=True
    ):
        checks.passed("4.5", "a moderate difference a word, and thousands of texts for 100.")
