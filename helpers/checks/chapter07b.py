"""Checkers of chapter 07, REINFORCE on a language model: whole runs.

Those of one step are in `chapter07`.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache
from itertools import combinations
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from helpers import (
    advantages,
    baselines,
    checks,
    estimators,
    exact,
    models,
    pretraining,
    reference,
    rewards,
    tabular,
    train,
    worlds,
)

WORLD = worlds.WORD_WORLD
SHORT = worlds.TokenWorld(WORLD.words, ("praise",), 3, worlds.adjective_reward)
HONEST = "was good . what a treat ."  # the review of exercise 7.6


@cache
def _reviews() -> models.LanguageModel:
    return models.load(models.REVIEWS_MODEL)


Steps = list[int | None]


def _sooner(first: list[float], second: list[float], tie: float = 0.5) -> float:
    """Share of pairs in which the first is smaller; `tie` for those that are equal."""
    pairs = [1.0 if a < b else tie * (a == b) for a in first for b in second]
    return sum(pairs) / len(pairs)


def _compared(a: Steps, b: Steps, mistake: str) -> list[float]:
    """Share and p with one mistake put in; the right ones are SciPy's."""
    never = {
        "never is 0": 0.0,
        "never is last": float(max([*filter(None, (*a, *b)), 0])),
        "capped": 1000.0,
    }  # as any cap between 44 and a million
    first, second = (
        [never.get(mistake, math.inf) if x is None else float(x) for x in steps
         if x is not None or mistake != "left out"] for steps in (a, b)
    )  # fmt: skip
    tie = {"ties are 0": 0.0, "ties are 1": 1.0}.get(mistake, 0.5)
    if mistake == "turned":
        first, second = second, first
    share = _sooner(first, second, tie)
    every, others = [*first, *second], []
    for rows in combinations(range(len(every)), len(first)):
        rest = [x for k, x in enumerate(every) if k not in rows]
        others.append(_sooner([every[k] for k in rows], rest, tie))
    count = {
        "strict": sum(x > share for x in others),
        "wrong tail": sum(x <= share for x in others),
        "equal only": sum(x == share for x in others),
        "two-sided": sum(abs(x - 0.5) >= abs(share - 0.5) for x in others),
    }.get(mistake, sum(x >= share for x in others))
    p = 1 - share if mistake == "complement" else count / len(others)
    if mistake in ("exact", "asymptotic"):  # of SciPy's Mann–Whitney test
        p = float(stats.mannwhitneyu(first, second, alternative="less", method=mistake).pvalue)
    return [share, p]


MISTAKES = {
    "left out": "runs that never arrive are left out: the worse a method, the fewer of its runs "
    "count.",
    "never is 0": "a run that never arrives counts as the fastest of all here.",
    "never is last": "never is later than the last run that arrived, and no tie with it.",
    "capped": "a run that never arrives is slower than one that takes a million steps: no number "
    "of steps is large enough to stand for it.",
    "ties are 0": "a tie is half a pair for each side; two runs that never arrive tie too.",
    "ties are 1": "a tie is half a pair, not a whole one.",
    "turned": "the share is turned: fewer steps are better.",
    "strict": "p leaves out the labellings that do exactly as well, the actual one among them: "
    "it can never be 0.",
    "wrong tail": "p counts the labellings that do as well or *worse*.",
    "equal only": "p counts only the labellings that do exactly as well; better ones count.",
    "two-sided": "p counts the labellings that do as well for b, too.",
    "complement": "1 − share is no p: relabel the seeds and count.",
    "exact": "that p is of the table of Mann and Whitney's test, which is made for numbers without "
    "ties: two runs that never arrive are one. Count the labellings.",
    "asymptotic": "that p is of the normal approximation to Mann and Whitney's test; with five "
    "seeds all labellings can be counted.",
}
PROBES: list[tuple[Steps, Steps]] = [
    ([10, 12, None], [30, None, None]), ([8, 9, 11, 12, 14], [31, 44, None, None, None]),
    ([5, 7, 9, 9], [7, 7, 20]), ([6, None, 3, 22], [4, 9, 17, 22, 25]), ([40, 41], [5, None]),
    ([10**6, 3, 8], [None, 10, 12]),
]  # fmt: skip


def exercise_5(
    answer: tuple[Callable[[Steps, Steps], Any], Mapping[str, Any]],
) -> None:
    """`(compare_steps, least_p)`: which of two baselines is sooner, and how rare that is by luck.

    Args:
        answer: the reader's function of two lists of steps, which returns the share of pairs in
            which the first is sooner and its p; and the least p of `five` and of `three` seeds
            against as many.
    Raises:
        AssertionError: with a diagnosis.
    """
    compare_steps, least_p = answer
    for k, (a, b) in enumerate(PROBES):
        given = (list(a), list(b))
        got = compare_steps(*given)
        if checks.is_stub("7.5", got):
            return
        assert given == (a, b), "the function wrote into its arguments; make new lists."
        found = checks.as_numbers(got, shape=(2,), what="(share, p)")
        late = [[1e300 if x is None else float(x) for x in steps] for steps in (a, b)]
        test = stats.permutation_test(
            late, lambda x, y: _sooner(list(x), list(y)), permutation_type="independent",
            alternative="greater", n_resamples=10_000,
        )  # fmt: skip
        share = test.statistic
        if k == 0:  # by hand: 10 and 12 win three pairs each, never ties with two nevers
            share = (3 + 3 + 2 * 0.5) / 9
        wrong = {text: torch.tensor(_compared(a, b, name)) for name, text in MISTAKES.items()}
        checks.diagnose(
            found, torch.tensor([share, test.pvalue], dtype=torch.float64), wrong,
            tolerance=1e-5, reveal=False,
        )  # fmt: skip
    if _least(least_p):
        checks.passed("7.5", "six comparisons, by hand and against an exact permutation test.")


def _least(least_p: Mapping[str, Any]) -> bool:
    """The least p that n seeds against n can give; without ties it is Mann and Whitney's."""
    sizes = {"five": 5, "three": 3}
    expected = {
        name: float(stats.mannwhitneyu(range(n), range(n, 2 * n), alternative="less",
                                       method="exact").pvalue)
        for name, n in sizes.items()
    }  # fmt: skip
    mistakes: dict[str, dict[str, Tensor | float]] = {
        name: {
            "the actual labelling is one of those that do as well: p is never 0.": 0.0,
            "that is for pairs of runs that belong together, each pair turned or not; here any "
            "of the runs may be labelled a.": 0.5**n,
            "that orders one side; a labelling says which of all runs are a.":
            1 / math.factorial(n),
            "that counts the opposite labelling, too: it does worse, not as well.":
            2 * expected[name],
            "that is one in all runs; count the ways to choose half of them.": 1 / (2 * n),
            "count choices of half of the runs, not pairs of a run of a and a run of b.":
            1 / n**2,
        }
        for name, n in sizes.items()
    }  # fmt: skip
    return checks.predicted_numbers(
        "7.5", least_p, expected, mistakes, tolerance=0.01, relative=True
    )


def exercise_6(gamed: Mapping[str, Any]) -> None:
    """A text that a small KL penalty does not stop, and the β that does.

    Args:
        gamed: `text`, a completion of “the cast”, and `beta`.
    Raises:
        AssertionError: with a diagnosis.
    """
    assert set(gamed) == {"text", "beta"}, "the names must stay 'text' and 'beta'."
    text, beta = gamed["text"], gamed["beta"]
    if all(value is None or value is ... for value in (text, beta)):
        checks.is_stub("7.6", None)
        return
    assert isinstance(text, str) and text.split(), "`text` should be a string of words."
    text = " ".join(text.split())
    words, prompt = text.split(), "the cast"
    assert len(words) <= 31, f"{len(words)} words and EOS are more than 32 tokens."
    unknown = sorted(set(words) - set(worlds.REVIEWS.words))
    assert not unknown, f"the model cannot write {unknown[:3]}: words of the grammar, please."
    assert not rewards.grammar_reward([prompt], [text])[0], (
        "that is a review: the grammar can derive it. The exercise wants what is none."
    )
    drawn = worlds.REVIEWS.sample(200, torch.Generator().manual_seed(6), prefix=prompt)
    reviews = [each.strip() for each in drawn if len(each.split()) <= 31]
    reviews += [" ".join(["was good", *["and the film was good"] * n, "."]) for n in range(6)]
    texts = [text, HONEST, *reviews]
    with torch.no_grad():
        full = [f"{prompt} {each}" for each in texts]
        surprise = -pretraining.score(_reviews(), full, prompt_words=2).double()
    paid = torch.tensor(worlds.sentiment_reward([prompt] * len(texts), texts)).double()
    goal = paid - 0.05 * surprise  # log π = 0: the policy writes nothing else
    best = goal[1:].max()
    assert goal[0] > best, (
        f"at β = 0.05 your text has L_β = {goal[0]:.2f} ({paid[0]:.0f} reward, {surprise[0]:.0f} "
        f"nats), and some review has {best:.2f}. What does one more word cost, and what does it "
        "earn?"
    )
    if beta is None or beta is ...:
        print("Exercise 7.6: the text is right; `beta` is still open.")
        return
    extra = (surprise - surprise[1])[0]
    wrong = {
        "that brings L_β of your text to 0; it has to fall to that of the honest review.": paid[0]
        / surprise[0],
        "that compares rewards alone with your text's whole surprise; the review costs too.":
        (paid[0] - paid[1]) / surprise[0],
        "that is nats a reward unit; β is reward units a nat.": extra / (paid[0] - paid[1]),
        "this takes the review's reward and forgets its own; subtract both.": paid[0] / extra,
    }  # fmt: skip
    number = checks.as_numbers(beta, shape=(), what="beta")
    expected = float((paid[0] - paid[1]) / extra)
    rough = abs(float(number) * 100 - round(float(number) * 100)) < 1e-9  # two decimals
    assert not (rough and 6e-4 < abs(float(number) - expected) < 5e-3), (
        "that is near; give three decimals, for the usual mistakes lie as near."
    )
    checks.diagnose(number, expected, wrong, tolerance=6e-4, reveal=False)
    checks.passed("7.6", f"above all reviews tried at β = 0.05, level at β = {expected:.3f}.")


def exercise_7(word_advantages: Callable[..., Any]) -> None:
    """`word_advantages(rewards, logprobs, ref_logprobs, mask, beta)`: ∇L_β, word by word.

    Args:
        word_advantages: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for world, prompt, beta in (
        (WORLD, "pan", 0.3),
        (SHORT, "praise", 1.5),
        (WORLD, "praise", 0.0),
    ):
        generator = torch.Generator().manual_seed(8)
        table, other = (
            tabular.TablePolicy(world, std=std, generator=generator) for std in (0.8, 0.5)
        )
        problem = baselines.table_problem(table, prompt)
        mask = problem.moves >= 0
        scores, ref_scores = (
            exact.read_moves(exact.state_logprobs(policy, world, prompt), problem.moves)
            for policy in (table, other)
        )
        scores, ref_scores = (  # anything, after the end
            x.masked_fill(~mask, -math.inf) for x in (scores, ref_scores.detach())
        )
        given = (problem.rewards.clone(), scores.clone(), ref_scores.clone(), mask.clone())
        got = word_advantages(*given, beta)
        if checks.is_stub("7.7", got):
            return
        checks.unchanged(given, (problem.rewards, scores, ref_scores, mask))
        judged = checks.as_numbers(got, shape=tuple(mask.shape), what="the advantages")
        assert not (isinstance(got, Tensor) and got.requires_grad), (
            "an advantage is a number: detach it, or the loss gets a second gradient through it."
        )
        assert bool(judged.isfinite().all()), (
            "what stands after the end got into it, where −∞ × 0 is nan: put zeros there first."
        )
        assert bool((judged[~mask].abs() < 1e-6).all()), "after the end, return 0."
        goal = exact.objective(table, world, prompt) - beta * exact.kl(table, other, world, prompt)
        [slope] = torch.autograd.grad(goal, [table.logits])
        truth = slope[world.prompts.index(prompt)].reshape(-1)
        ratio = (scores - ref_scores).detach().masked_fill(~mask, 0.0)
        _by_its_gradient(judged, problem, truth, ratio, mask, beta)
        _by_its_structure(word_advantages, judged, given, beta)
        _by_its_words(judged, problem, ratio, mask, beta)
    checks.passed("7.7", "three worlds: the exact ∇L_β, and no word pays for an earlier one.")


def _by_its_gradient(
    judged: Tensor, problem: estimators.GradientProblem, truth: Tensor, ratio: Tensor,
    mask: Tensor, beta: float,
) -> None:  # fmt: skip
    """The mean over all completions; each mistake by its numbers."""
    paid = problem.rewards.unsqueeze(1) * mask
    whole = ratio.sum(1, keepdim=True) * mask
    rest = ratio.flip(1).cumsum(1).flip(1) * mask
    last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    usual = {
        "the KL term is missing: that is R alone.": paid,
        "the sign of the KL term is turned: this pays for distance.": paid + beta * rest,
        "each word pays for itself alone: what it leads to is missing.": paid - beta * ratio,
        "R is paid to the last word only; all words before it led to it.": paid * last
        - beta * rest,
        "that is the reward of each word, r_t; sum what follows.": paid * last - beta * ratio,
        "that sums from the front: a word pays for those before it, not after.": paid
        - beta * ratio.cumsum(1) * mask,
        "the own word is left out; its log-ratio is known only once it is written.": paid
        - beta * (rest - ratio),
        "β is missing: a nat does not cost one reward unit.": paid - rest,
        "R is missing: that is the penalty alone.": -beta * rest,
        "that divides by the length: long texts would stray cheaply.": paid
        - beta * whole / mask.sum(1, keepdim=True),
    }
    mean = problem.probability @ problem.combine(judged)
    size = truth.norm()
    if not float((mean - truth).norm()) <= 1e-4 * size:
        for message, wrong in usual.items():
            assert not torch.allclose(judged, wrong, atol=1e-5), message
        raise AssertionError(
            f"the mean gradient is off ∇L_β by {(mean - truth).norm() / size:.0%} of its length, "
            "and none of the usual mistakes gives that."
        )


def _by_its_structure(
    word_advantages: Callable[..., Any], judged: Tensor, given: tuple[Tensor, ...], beta: float
) -> None:
    """Another log-ratio at one place must not change what is said of later words."""
    paid, scores, ref_scores, mask = given
    size = 1e-5 * (1 + float(judged.abs().max()))
    for place in range(mask.shape[1] - 1):
        other = ref_scores.clone()
        other[:, place] -= 3.0
        again = word_advantages(paid.clone(), scores.clone(), other, mask.clone(), beta)
        moved = checks.as_numbers(again, shape=tuple(mask.shape), what="the advantages") - judged
        assert float(moved[:, place + 1 :].abs().max()) < size, (
            f"right on average; but if the log-ratio of word {place + 1} changes, so do the "
            "advantages of later words, which cannot change it: a word pays for an earlier one."
        )


def _by_its_words(
    judged: Tensor, problem: estimators.GradientProblem, ratio: Tensor, mask: Tensor, beta: float
) -> None:
    """What is left then is a baseline."""
    wanted = advantages.rewards_to_go(
        reference.token_rewards(problem.rewards, beta * ratio, mask), mask
    )
    extra = (judged - wanted)[mask]
    assert float(extra.abs().max()) < 1e-4 * (1 + float(wanted.abs().max())), (
        "right on average, and no word pays for an earlier one; but up to "
        f"{float(extra.abs().max()):.2g} is added that is neither R nor a log-ratio. That is a "
        "baseline, and none was asked for."
    )


def _run_of(seed: int) -> train.Loop:
    """A loop whose baseline has a memory, on a word world's transformer."""
    lm = models.word_language_model(WORLD, models.word_transformer(WORLD, seed=seed))
    config = train.Config(
        prompts_per_step=2, group_size=8, max_new_tokens=4, lr=1e-2, seed=5,
        baseline="running mean",
    )  # fmt: skip
    return train.Loop(lm, list(WORLD.prompts), WORLD.reward, config)


def _parts(loop: train.Loop) -> dict[str, Tensor]:
    """Copies of all that the next step depends on, each flattened."""
    weights, state = list(loop.lm.model.parameters()), loop.state
    mine = [state.optimizer.state[w] for w in weights if w in state.optimizer.state]
    moments = [torch.as_tensor(entry[k]).double().flatten() for entry in mine
               for k in ("step", "exp_avg", "exp_avg_sq")]  # fmt: skip
    memory = [
        torch.as_tensor(value).double().flatten() for _, value in sorted(state.memory.items())
    ]
    return {
        "the weights": torch.cat([w.detach().flatten() for w in weights]),
        "the optimizer's memory": torch.cat(moments) if moments else torch.zeros(0),
        "the state of the generator": state.chance.double(),
        "the baseline's memory": torch.cat(memory) if memory else torch.zeros(0),
        "the number of steps": torch.tensor([float(state.step)]),
    }


def exercise_8(
    resumable: tuple[Callable[[train.Loop], Any], Callable[[train.Loop, Any], Any]],
) -> None:
    """`(keep, go_on)`: a run that goes on with the same numbers.

    Args:
        resumable: the reader's `keep(loop)`, which returns everything that the next steps depend
            on, and `go_on(loop, kept)`, which puts it into a fresh loop.
    Raises:
        AssertionError: naming what was lost.
    """
    keep, go_on = resumable
    loop = _run_of(seed=3)
    for _ in range(3):
        loop.step()
    kept, wanted = keep(loop), _parts(loop)
    if checks.is_stub("7.8", kept):
        return
    records = [loop.step() for _ in range(3)]
    end = _parts(loop)
    for attempt in ("first", "second"):
        other = _run_of(seed=4)  # other weights, so that they must come from what was kept
        own = {id(p) for p in other.lm.model.parameters()}
        go_on(other, kept)
        assert {id(p) for p in other.lm.model.parameters()} == own, (
            "the fresh loop's model was exchanged; fill its weights instead (load_state_dict)."
        )
        held = {id(p) for group in other.state.optimizer.param_groups for p in group["params"]}
        assert held == own, (
            "the optimizer holds the weights of the old loop and will move those: load its "
            "state_dict into the fresh one."
        )
        for name, found in _parts(other).items():
            _is_kept(name, found, wanted[name], end[name], attempt)
        for record in records:
            again = other.step()
            for column in ("reward", "entropy", "length", "grad_norm"):
                a, b = (each.numbers()[column] for each in (record, again))
                assert abs(a - b) < 1e-9, (
                    f"step {record.step}: `{column}` is {b:.6f} and was {a:.6f} in the run that "
                    "nobody interrupted, although all parts agreed before."
                )
    assert all(
        torch.equal(a, b) for a, b in zip(_parts(loop).values(), end.values(), strict=True)
    ), "the run that was kept has moved: something of it is still shared with the new one."
    checks.passed("7.8", "resumed twice from one copy: three more steps, the same numbers.")


def _is_kept(name: str, found: Tensor, wanted: Tensor, end: Tensor, attempt: str) -> None:
    if found.shape == wanted.shape and torch.equal(found, wanted):
        return
    assert attempt == "first", (
        f"the second run from the same copy starts wrong: {name} went on with the first one. Copy "
        "when you put it back, too."
    )
    assert not (found.shape == end.shape and torch.equal(found, end)), (
        f"{name} went on with the old run: what was kept is no copy of it, but the thing itself."
    )
    raise AssertionError(
        {
            "the weights": "the weights are not those of the run that was kept.",
            "the optimizer's memory": "Adam's averages m and v are lost, and how often it has "
            "stepped: the first move after that has another length and direction.",
            "the state of the generator": "the generator starts anew: the run would draw the "
            "prompts and tokens of its first steps again. Keep its state, not its seed.",
            "the baseline's memory": "the running mean of the rewards is lost: the next batch "
            "would be judged without a baseline.",
            "the number of steps": "the number of steps done is lost: the run would go on too "
            "long, and its records and checkpoints would have the wrong number.",
        }[name]
    )
