"""Checkers of chapter 07, REINFORCE on a language model."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from course.ch07_language_model import broken_runs, speed
from course.exact import baselines, gradients, oracle, tables
from course.kit import checker
from course.worlds import imitation, reviews, rewards, tiny_models, word_world
from course.worlds.reviews import REVIEWS
from helpers import advantages, losses, models, probe, rollout, scoring, settings, train

PROMPT_TOKENS = 4  # <bos> the film was
LENGTHS = [5, 9, 4, 6, 7, 7, 12, 3, 8, 5, 10, 6]
PAID = [1.0, 1.0, -1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0, 0.0, 1.0, 1.0]


def _counted() -> dict[str, float]:
    """Exercise 7.1's numbers, from the library: positions are counted where the model gets them."""
    lm = models.load(models.REVIEWS_MODEL)
    lengths = torch.tensor(LENGTHS)
    ids = torch.full((12, 12), 9)
    ids[torch.arange(12), lengths - 1] = lm.eos_ids[0]
    words, mask = lm.encode(["the film was", "the plot was", "the cast was"])
    assert words.shape[1] == PROMPT_TOKENS
    nothing = torch.zeros(12, 12)
    batch = rollout.pack(words, mask, ids, nothing, nothing, lm.eos_ids, 4)
    judged = advantages.leave_one_out(torch.tensor(PAID).view(3, 4)).reshape(-1)
    rows = (judged != 0).nonzero()[:, 0]
    read: list[float] = []
    probe.reading(lm.model)  # which reads a few texts, once
    for share in (False, True):
        with speed.inputs_read(lm.model) as shapes, torch.no_grad():
            # A budget of 1: each row alone, without padding.
            parts = list(
                scoring.score(lm.model, batch, rows, group_size=4, budget=1, share_prompts=share)
            )
        read.append(float(sum(shape.numel() for shape in shapes)))
    return {
        "silent": float(12 - len(rows)),
        "tokens_scored": float(sum(int(part.completion_mask.sum()) for _, part, _, _ in parts)),
        "read_alone": read[0],
        "read_shared": read[1],
    }


def exercise_1(numbers: Mapping[str, Any]) -> None:
    """Four numbers about one batch, by thinking.

    Args:
        numbers: `silent`, `tokens_scored`, `read_alone`, `read_shared`.
    Raises:
        AssertionError: with a diagnosis.
    """
    expected = _counted()
    total, kept, alone = float(sum(LENGTHS)), expected["tokens_scored"], expected["read_alone"]
    count, asked = 12 - expected["silent"], PROMPT_TOKENS
    mistakes: dict[str, dict[str, Tensor | float]] = {
        "silent": {
            "that is the prompt whose texts all earned the same; look within the others too.": 4.0,
            "those earned what most others did; the mean of the others is what counts.": 8.0,
            "that counts a reward of 0 as silence: a 0 below the others' mean pushes down.": 1.0,
            "a group has something to say as soon as two differ, but not each text of it.": 2.0,
        },
        "tokens_scored": {
            "these are all tokens; those of silent texts add exactly 0 and are left out.": total,
            "EOS is missing: stopping was an action.": kept - count,
            "prompt tokens were not written by the policy: they are read, not scored.": kept
            + asked * count,
            "only the one prompt is left out; there are silent texts in other groups.": kept + 16,
        },
        "read_alone": {
            "the last token of a text is scored and predicts nothing: it need not be read.": kept
            + asked * count,
            "the prompts have to be read as well, with each completion.": kept - count,
            "the silent texts need not be read.": total + 12 * (asked - 1),
        },
        "read_shared": {
            "that reads three prompts; one of them has nothing to teach.": kept - count + 3 * asked,
            "the prompts are read once each, but they are read.": kept - count,
            "the last token of a text is scored and predicts nothing: it need not be read.": kept
            + 2 * asked,
            "that is with each completion's own prompt.": alone,
            "the silent texts need not be read.": total - 12 + 3 * asked,
        },
    }
    if checker.predicted_numbers("7.1", numbers, expected, mistakes):
        checker.passed("7.1", "all four agree with what the library reads and scores.")


def _everything(world: word_world.TokenWorld, lm: models.LanguageModel) -> rollout.RolloutBatch:
    """All completions of the world's first prompt as one batch."""
    every = oracle.enumerate_completions(world)
    ids, mask = lm.encode(list(world.prompts[:1]))
    nothing = torch.zeros(every.completion_ids.shape, dtype=torch.float64)
    return rollout.pack(
        ids, mask, every.completion_ids, nothing, nothing, world.eos_ids, len(every.texts)
    )


def _flat(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def exercise_2(credit: Callable[..., Any]) -> None:
    """`credit(lm, batch, advantages, pieces)`: one gradient, however the rows are cut.

    Args:
        credit: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for world, cuts, skip in (
        (SHORT, (5, 17, 60), False),
        (SHORT, (3, 40), True),
        (WORLD, (), True),
    ):
        lm = tiny_models.word_language_model(
            world, tiny_models.word_transformer(world, seed=len(cuts) + 2)
        )
        policy, weights = models.as_policy(lm.model), list(lm.model.parameters())
        batch, prompt = _everything(world, lm), world.prompts[0]
        with torch.no_grad():
            chance = oracle.completion_logprobs(policy, world, prompt).exp()
        count = len(chance)
        judged = oracle.rewards(world, prompt) * chance * count  # so that the mean over B is ∇L
        order = torch.randperm(count, generator=torch.Generator().manual_seed(7))
        rows = order[judged[order] != 0] if skip else order
        pieces = list(rows.tensor_split(cuts))
        given = (judged.clone(), *(piece.clone() for piece in pieces))
        kept, before = (judged, *pieces), _flat(lm.model)
        for _ in range(2):  # the second call meets the gradients that the first one left
            with speed.inputs_read(lm.model) as shapes:
                got = credit(lm, batch, given[0], list(given[1:]))
            if checker.is_stub("7.2", got):
                return
            found = checker.as_numbers(got, shape=tuple(before.shape), what="the gradient")
        assert torch.equal(_flat(lm.model), before), "credit moved the weights; `uphill` does that."
        checker.unchanged(given, kept)
        left = [w.grad for w in weights]
        truth = oracle.objective_gradient(policy, weights, world, prompt).detach()
        _cut_right(found, truth, lm, batch, judged, pieces)
        _one_piece_at_a_time(found, left, [shape[0] for shape in shapes], max(map(len, pieces)))
    checker.passed("7.2", "one piece and many, zeros left out or not: −∇L over all completions.")


def _one_piece_at_a_time(
    found: Tensor, left: list[Tensor | None], read: list[int], largest: int
) -> None:
    """The right numbers, in the right place, and with the memory of one piece."""
    assert all(g is not None for g in left), (
        "what is returned is right, and `.grad` is empty: the optimizer reads `.grad`, so call "
        "`backward`."
    )
    grads = torch.cat([g.flatten() for g in left if g is not None])
    assert float((grads - found).norm()) < 1e-6 * float(found.norm()), (
        "what is returned is right, and `.grad` holds something else: the optimizer reads `.grad`."
    )
    assert max(read, default=0) <= largest, (
        f"the model reads {max(read)} rows at once, and the largest piece has {largest}: the "
        "pieces are there because more does not fit into memory."
    )


def _cut_right(
    found: Tensor,
    truth: Tensor,
    lm: models.LanguageModel,
    batch: rollout.RolloutBatch,
    judged: Tensor,
    pieces: list[Tensor],
) -> None:
    """Compare a gradient over micro-batches with ∇L, and name what it was divided by instead."""
    means = [_mean_over(rows, lm, batch, judged) for rows in pieces]  # (D,) each
    sums = [mean * len(rows) for mean, rows in zip(means, pieces, strict=True)]
    tokens = sum(int(batch.lengths[rows].sum()) for rows in pieces)
    every = len(judged)
    of_kept = truth * every / sum(len(rows) for rows in pieces)
    mistakes = {
        "the sign is turned: `.grad` holds minus ∇L, because an optimizer descends.": truth,
        "every micro-batch counts the same here, however few rows it has.": sum(means) / len(means),
        "the means of the micro-batches are added up: the more pieces, the longer.": sum(means),
        "rows with advantage 0 were left out, but they count in the mean: divide by all B.": (
            -of_kept
        ),
        "nothing is divided: that is the sum over the batch.": -truth * every,
        "this divides by tokens: long micro-batches count less, and so do long texts.": (
            sum(sums) / tokens
        ),
        "only the last micro-batch is left: clear the gradients once, before the first.": (
            sums[-1] / every
        ),
        "only the last micro-batch is left, and its mean is over its own rows.": means[-1],
        "in the second call the gradients of the first are still there: clear them.": -2 * truth,
        "gradients are not cleared, and rows with advantage 0 are left out of the mean.": (
            -2 * of_kept
        ),
        "gradients are not cleared, and every micro-batch counts the same.": (
            2 * sum(means) / len(means)
        ),
    }
    size = truth.norm()
    scaled = {text: torch.as_tensor(wrong) / size for text, wrong in mistakes.items()}
    checker.diagnose(found / size, -truth / size, scaled, tolerance=1e-8, reveal=False)


def _mean_over(
    rows: Tensor, lm: models.LanguageModel, batch: rollout.RolloutBatch, judged: Tensor
) -> Tensor:
    """(D,) gradient of the mean loss of some rows alone."""
    part = scoring.select(batch, rows)
    scores = rollout.completion_logprobs(lm.model, part)
    loss = losses.reinforce_loss(scores, judged[rows], part.completion_mask)
    weights = list(lm.model.parameters())
    grads = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in grads])


def _moves_of(optimizer_class: Any, slopes: Sequence[float], clip: float) -> list[float]:
    """How far one weight moves in each step, under clipped gradients."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    options = {"weight_decay": 0.0} if optimizer_class is torch.optim.AdamW else {}
    optimizer, places = optimizer_class([weight], lr=0.01, **options), [0.0]
    for gradient in slopes:
        weight.grad = torch.full_like(weight, gradient)
        torch.nn.utils.clip_grad_norm_([weight], clip)
        optimizer.step()
        places.append(float(weight.detach()))
    return [abs(b - a) for a, b in zip(places, places[1:], strict=False)]


def exercise_3(numbers: Mapping[str, Any]) -> None:
    """Four numbers about what an optimizer makes of a gradient, by thinking.

    Args:
        numbers: `self_mean_gradient`, `self_mean_move`, `hundredfold_sgd`, `idle_move`.
    Raises:
        AssertionError: with a diagnosis.
    """
    drawn = torch.tensor([[1.0, 0.0, 2.0, -1.0, 0.0, 0.0, 3.0, 1.0]], dtype=torch.float64)
    short = advantages.minus_group_mean(drawn).norm() / advantages.leave_one_out(drawn).norm()
    adam, sgd = torch.optim.AdamW, torch.optim.SGD
    first, idle = _moves_of(adam, [0.5, 0.0], 1.0)
    expected = {
        "self_mean_gradient": float(short),
        "self_mean_move": _moves_of(adam, [0.5 * float(short)], 1.0)[0] / first,
        "hundredfold_sgd": _moves_of(sgd, [50.0], 1.0)[0] / _moves_of(sgd, [0.5], 1.0)[0],
        "idle_move": idle / first,
    }
    mistakes: dict[str, dict[str, Tensor | float]] = {
        "self_mean_gradient": {
            "that is the other way round: which of the two is shorter?": 1 / float(short),
            "each advantage is shorter by the same factor, not by its square.": float(short) ** 2,
            "they are not equally long: the own reward is in the group's mean.": 1.0,
            "K − 1 over K, not 1 over K.": 1 / 8,
        },
        "self_mean_move": {
            "that is the gradient's factor. What does Adam divide a gradient by?": float(short),
            "that is the gradient's factor, turned over.": 1 / float(short),
        },
        "hundredfold_sgd": {
            "that is without clipping: how long may a gradient be at most?": 100.0,
            "the gradient was shorter than the limit before: it could still grow.": 1.0,
            "it is clipped at 1; measure it against the 0.5 of before.": 0.5,
        },
        "idle_move": {
            "the gradient is 0, and Adam still remembers the one before.": 0.0,
            "that is what is left of m. v shrinks a little as well, and both are corrected for "
            "having started at 0: divide by 1 − β₁ᵗ and 1 − β₂ᵗ.": 0.9,
            "that is the corrected m alone; v is corrected too, and it has halved.": 0.09 / 0.19,
            "v enters by its root.": 0.09 / 0.19 / (0.000999 / 0.001999),
            "the step goes on as before only if the gradient does.": 1.0,
        },
    }
    for name, truth in expected.items():
        mistakes[name]["this is about lengths, which have no sign."] = -truth
    if checker.predicted_numbers("7.3", numbers, expected, mistakes, tolerance=6e-4):
        checker.passed("7.3", "all four agree with the optimizers.")


def exercise_4(named: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
    """Which column shows which bug, and which cause belongs to which run.

    Args:
        named: `columns`, cause → one of the names of `broken_runs.COLUMNS`; and `causes`,
            letter → one of the names of `broken_runs.EVIDENCE`, judged by what the cause implies.
    Raises:
        AssertionError: naming what speaks against a column or a cause.
    """
    columns, causes = named
    found, names = broken_runs.five_runs(), sorted(broken_runs.EVIDENCE)
    assert set(causes) == set(found), f"the letters must stay {sorted(found)}."
    assert set(columns) == set(broken_runs.SHOWS), (
        f"the bugs must stay {sorted(broken_runs.SHOWS)}."
    )
    both = [*columns.items(), *causes.items()]
    open_ = [name for name, value in both if value is None or value is ...]
    if len(open_) == len(both):
        checker.is_stub("7.4", None)
        return
    if open_:  # one letter at a time would be solved by elimination
        print(f"Exercise 7.4: the check waits until all are named; still open: {open_}.")
        return
    for cause, column in columns.items():
        assert isinstance(column, str) and column in broken_runs.COLUMNS, (
            f"“{cause}”: {column!r} is none of the columns {list(broken_runs.COLUMNS)}."
        )
        enough, messages = broken_runs.SHOWS[cause]
        assert column in enough, f"“{cause}”: {messages.get(column, messages['else'])}"
    for letter, cause in causes.items():
        assert isinstance(cause, str) and cause in names, (
            f"run {letter}: {cause!r} is none of the five causes {names}."
        )
        for holds, message in broken_runs.EVIDENCE[cause]:
            assert holds(found[letter]), f"run {letter} is not “{cause}”: {message}"
    checker.passed("7.4", "each cause leaves a mark that no other one leaves.")


WORLD = word_world.WORD_WORLD
SHORT = word_world.TokenWorld(WORLD.words, ("praise",), 3, word_world.adjective_reward)
CAST, HONEST = "the cast", "was good . what a treat ."  # prompt and review of exercise 7.6


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
        [
            never.get(mistake, math.inf) if x is None else float(x)
            for x in steps
            if x is not None or mistake != "left out"
        ]
        for steps in (a, b)
    )
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
    ([10, 12, None], [30, None, None]),
    ([8, 9, 11, 12, 14], [31, 44, None, None, None]),
    ([5, 7, 9, 9], [7, 7, 20]),
    ([6, None, 3, 22], [4, 9, 17, 22, 25]),
    ([40, 41], [5, None]),
    ([10**6, 3, 8], [None, 10, 12]),
]


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
        if checker.is_stub("7.5", got):
            return
        assert given == (a, b), "the function wrote into its arguments; make new lists."
        found = checker.as_numbers(got, shape=(2,), what="(share, p)")
        late = [[1e300 if x is None else float(x) for x in steps] for steps in (a, b)]
        test = stats.permutation_test(
            late,
            lambda x, y: _sooner(list(x), list(y)),
            permutation_type="independent",
            alternative="greater",
            n_resamples=10_000,
        )
        share = test.statistic
        if k == 0:  # by hand: 10 and 12 win three pairs each, never ties with two nevers
            share = (3 + 3 + 2 * 0.5) / 9
        wrong = {text: torch.tensor(_compared(a, b, name)) for name, text in MISTAKES.items()}
        checker.diagnose(
            found,
            torch.tensor([share, test.pvalue], dtype=torch.float64),
            wrong,
            tolerance=1e-5,
            reveal=False,
        )
    if _least(least_p):
        checker.passed("7.5", "six comparisons, by hand and against an exact permutation test.")


def _least(least_p: Mapping[str, Any]) -> bool:
    """The least p that n seeds against n can give; without ties it is Mann and Whitney's."""
    sizes = {"five": 5, "three": 3}
    expected = {
        name: float(
            stats.mannwhitneyu(range(n), range(n, 2 * n), alternative="less", method="exact").pvalue
        )
        for name, n in sizes.items()
    }
    mistakes: dict[str, dict[str, Tensor | float]] = {
        name: {
            "the actual labelling is one of those that do as well: p is never 0.": 0.0,
            "that is for pairs of runs that belong together, each pair turned or not; here any "
            "of the runs may be labelled a.": 0.5**n,
            "that orders one side; a labelling says which of all runs are a.": 1
            / math.factorial(n),
            "that counts the opposite labelling, too: it does worse, not as well.": 2
            * expected[name],
            "that is one in all runs; count the ways to choose half of them.": 1 / (2 * n),
            "count choices of half of the runs, not pairs of a run of a and a run of b.": 1 / n**2,
        }
        for name, n in sizes.items()
    }
    return checker.predicted_numbers(
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
        checker.is_stub("7.6", None)
        return
    text, honest = _a_text_that_is_no_review(text), _reviews_of_the_cast()
    texts = [text, HONEST, *honest]
    with torch.no_grad():
        full = [f"{CAST} {each}" for each in texts]
        surprise = -imitation.score(_reviews(), full, prompt_words=2).double()
    paid = torch.tensor(reviews.sentiment_reward([CAST] * len(texts), texts)).double()
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
    extra, more = (surprise - surprise[1])[0], paid[0] - paid[1]
    wrong = {
        "that brings L_β of your text to 0; it has to fall to that of the honest review.": (
            paid[0] / surprise[0]
        ),
        "that compares rewards alone with your text's whole surprise; the review costs too.": (
            more / surprise[0]
        ),
        "that is nats a reward unit; β is reward units a nat.": extra / more,
        "this takes the review's reward and forgets its own; subtract both.": paid[0] / extra,
    }
    number = checker.as_numbers(beta, shape=(), what="beta")
    expected = float(more / extra)
    rough = abs(float(number) * 100 - round(float(number) * 100)) < 1e-9  # two decimals
    assert not (rough and 6e-4 < abs(float(number) - expected) < 5e-3), (
        "that is near; give three decimals, for the usual mistakes lie as near."
    )
    checker.diagnose(number, expected, wrong, tolerance=6e-4, reveal=False)
    checker.passed("7.6", f"above all reviews tried at β = 0.05, level at β = {expected:.3f}.")


def _a_text_that_is_no_review(text: Any) -> str:
    """The reader's completion of “the cast”, single-spaced; refused if it is not of the kind."""
    assert isinstance(text, str) and text.split(), "`text` should be a string of words."
    words = text.split()
    assert len(words) <= 31, f"{len(words)} words and EOS are more than 32 tokens."
    unknown = sorted(set(words) - set(REVIEWS.words))
    assert not unknown, f"the model cannot write {unknown[:3]}: words of the grammar, please."
    assert not rewards.grammar_reward([CAST], [" ".join(words)])[0], (
        "that is a review: the grammar can derive it. The exercise wants what is none."
    )
    return " ".join(words)


def _reviews_of_the_cast() -> list[str]:
    """Completions that the grammar can derive: 200 drawn, and some that praise on and on."""
    drawn = REVIEWS.sample(200, torch.Generator().manual_seed(6), prefix=CAST)
    honest = [each.strip() for each in drawn if len(each.split()) <= 31]
    return honest + [" ".join(["was good", *["and the film was good"] * n, "."]) for n in range(6)]


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
            tables.TablePolicy(world, std=std, generator=generator) for std in (0.8, 0.5)
        )
        problem = baselines.table_problem(table, prompt)
        mask = problem.moves >= 0
        scores, ref_scores = (
            oracle.read_moves(oracle.state_logprobs(policy, world, prompt), problem.moves)
            for policy in (table, other)
        )
        scores, ref_scores = (  # anything, after the end
            x.masked_fill(~mask, -math.inf) for x in (scores, ref_scores.detach())
        )
        given = (problem.rewards.clone(), scores.clone(), ref_scores.clone(), mask.clone())
        got = word_advantages(*given, beta)
        if checker.is_stub("7.7", got):
            return
        checker.unchanged(given, (problem.rewards, scores, ref_scores, mask))
        judged = checker.as_numbers(got, shape=tuple(mask.shape), what="the advantages")
        assert not (isinstance(got, Tensor) and got.requires_grad), (
            "an advantage is a number: detach it, or the loss gets a second gradient through it."
        )
        assert bool(judged.isfinite().all()), (
            "what stands after the end got into it, where −∞ × 0 is nan: put zeros there first."
        )
        assert bool((judged[~mask].abs() < 1e-6).all()), "after the end, return 0."
        goal = oracle.objective(table, world, prompt) - beta * oracle.kl_divergence(
            table, other, world, prompt
        )
        [slope] = torch.autograd.grad(goal, [table.logits])
        truth = slope[world.prompts.index(prompt)].reshape(-1)
        ratio = (scores - ref_scores).detach().masked_fill(~mask, 0.0)
        _by_its_gradient(judged, problem, truth, ratio, mask, beta)
        _by_its_structure(word_advantages, judged, given, beta)
        _by_its_words(judged, problem, ratio, mask, beta)
    checker.passed("7.7", "three worlds: the exact ∇L_β, and no word pays for an earlier one.")


def _by_its_gradient(
    judged: Tensor,
    problem: gradients.GradientProblem,
    truth: Tensor,
    ratio: Tensor,
    mask: Tensor,
    beta: float,
) -> None:
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
        moved = checker.as_numbers(again, shape=tuple(mask.shape), what="the advantages") - judged
        assert float(moved[:, place + 1 :].abs().max()) < size, (
            f"right on average; but if the log-ratio of word {place + 1} changes, so do the "
            "advantages of later words, which cannot change it: a word pays for an earlier one."
        )


def _by_its_words(
    judged: Tensor, problem: gradients.GradientProblem, ratio: Tensor, mask: Tensor, beta: float
) -> None:
    """What is left then is a baseline."""
    wanted = advantages.rewards_to_go(
        scoring.token_rewards(problem.rewards, beta * ratio, mask), mask
    )
    extra = (judged - wanted)[mask]
    assert float(extra.abs().max()) < 1e-4 * (1 + float(wanted.abs().max())), (
        "right on average, and no word pays for an earlier one; but up to "
        f"{float(extra.abs().max()):.2g} is added that is neither R nor a log-ratio. That is a "
        "baseline, and none was asked for."
    )


def _run_of(seed: int) -> train.Loop:
    """A loop whose baseline has a memory, on a word world's transformer."""
    lm = tiny_models.word_language_model(WORLD, tiny_models.word_transformer(WORLD, seed=seed))
    config = settings.Config(
        prompts_per_step=2, group_size=8, max_new_tokens=4, lr=1e-2, seed=5, baseline="running_mean"
    )
    return train.Loop(lm, list(WORLD.prompts), WORLD.reward, config)


def _parts(loop: train.Loop) -> dict[str, Tensor]:
    """Copies of all that the next step depends on, each flattened."""
    weights, state = list(loop.lm.model.parameters()), loop.state
    mine = [state.optimizer.state[w] for w in weights if w in state.optimizer.state]
    moments = [
        torch.as_tensor(entry[k]).double().flatten()
        for entry in mine
        for k in ("step", "exp_avg", "exp_avg_sq")
    ]
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
    if checker.is_stub("7.8", kept):
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
    checker.passed("7.8", "resumed twice from one copy: three more steps, the same numbers.")


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
