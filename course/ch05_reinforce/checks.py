"""Checkers of chapter 05, the REINFORCE gradient.

The estimators are judged by what they are on average: the reader's loss is differentiated on
every batch there is, and mean, sign, scale and variance are compared with the exact ones.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from course.exact import ascent, gradients, oracle, tables
from course.exact.gradients import GradientMoments, GradientProblem
from course.kit import checker
from course.worlds import word_world
from course.worlds.word_world import TokenWorld

WORLD = word_world.WORD_WORLD
PAID = {"a": 1.0, "b": -2.0, "a a": 2.0, "a b": 0.5, "b a": -1.0, "b b": 3.0}
TINY = TokenWorld(  # seven texts of one and two words, so that all pairs can be listed
    ("a", "b", "."),
    ("p",),
    2,
    lambda prompts, texts: [PAID.get(text.removesuffix(" ."), 0.5) for text in texts],
)
THREE = ascent.bandit({"a": -1.0, "b": 0.5, "c": 2.0})
Loss = Callable[..., Any]


def exercise_1(one_arrow: Callable[[Tensor, int, float], Any]) -> None:
    """`one_arrow(probs, word, reward)`: R times the score of a softmax.

    Args:
        one_arrow: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for logits, word, reward in (
        ([0.3, -1.0, 0.8], 1, 2.0),
        ([1.0, 0.0, -0.5, 0.2], 3, -1.5),
        ([0.0, 2.0], 0, 0.5),
    ):
        z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        [score] = torch.autograd.grad(z.log_softmax(-1)[word], [z])
        probs = z.detach().softmax(-1)
        given = probs.clone()
        got = one_arrow(given, word, reward)
        if checker.is_stub("5.1", got):
            return
        checker.unchanged([given], [probs])
        chosen = torch.zeros_like(probs)
        chosen[word] = 1.0
        checker.diagnose(
            checker.as_numbers(got, shape=(len(logits),), what="the estimate"),
            reward * score,
            {
                "the sign is turned: this makes a well-paid text less probable.": -reward * score,
                "the reward is missing: this is the score.": score,
                "the softmax's denominator has every logit: −p is missing.": reward * chosen,
                "∇p, not ∇ log p: divide by the word's p.": reward * probs[word] * score,
                "a sample is not weighted by p: it was drawn.": reward * probs * score,
                "only the chosen logit moves; p pushes the others.": reward * chosen * (1 - probs),
            },
            tolerance=1e-6,
        )
    checker.passed("5.1", "equal to autograd for two, three and four texts.")


def exercise_2(numbers: Mapping[str, Any]) -> None:
    """Four numbers, by thinking.

    Args:
        numbers: `derivative`, `squared_score`, `variance_of_one`, `variance_of_twelve`.
    Raises:
        AssertionError: with a diagnosis.
    """
    world = ascent.bandit({"awful": -1.0, "decent": 1.0, "superb": 2.0})
    problem = _problem(world, "taste", std=0.0)
    moments = gradients.of_terms(problem, problem.rewards[:, None] * problem.scores)
    square = float(problem.scores[2] @ problem.scores[2])
    second = moments.variance + float(problem.truth @ problem.truth)
    derivative, length = float(problem.truth[2]), float(problem.truth @ problem.truth)
    mistakes: dict[str, dict[str, Tensor | float]] = {
        "derivative": {
            "p R, not p (R − J): the other texts lose what this one gains.": 2 / 3,
            "the probability in front is missing.": 3 * derivative,
            "the sign is turned.": -derivative,
        },
        "squared_score": {
            "that is the length; it is to be squared.": square**0.5,
            "only the chosen logit's part: the two others move too.": 4 / 9,
            "the score is 1 minus p at the chosen logit, and −p at the others.": 1.0,
        },
        "variance_of_one": {
            "that is the mean square: subtract the square of the mean.": second,
            "that is the squared length of ∇J: the other part of (5.6).": length,
            "subtract ‖∇J‖², the square of the length.": second - length**0.5,
            "the rewards count squared in (5.6).": 2 / 3 * square - length,
        },
        "variance_of_twelve": {
            "the variance falls as 1/N; its root falls as 1/√N.": moments.variance / 12**0.5,
            "the average of twelve varies less than one.": moments.variance,
            "that is N times, not 1/N times, the variance of one.": 12 * moments.variance,
        },
    }
    one = moments.variance
    expected = dict(zip(mistakes, (derivative, square, one, one / 12), strict=True))
    if checker.predicted_numbers("5.2", numbers, expected, mistakes):
        checker.passed("5.2", "all four agree with the enumeration.")


def _problem(world: TokenWorld, prompt: str, *, std: float = 0.8, seed: int = 0) -> GradientProblem:
    table = tables.TablePolicy(world, std=std, generator=torch.Generator().manual_seed(seed))
    return gradients.gradient_problem(table, [table.logits], world, prompt)


def exercise_3(reinforce: Callable[[Tensor, Tensor, Tensor, Tensor], Any]) -> None:
    """`reinforce(logits, ids, judged, mask)`: a loss with the gradient of (5.7).

    Args:
        reinforce: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    generator = torch.Generator().manual_seed(3)
    for world, rows in ((WORLD, [0, 3, 17, 100, 340]), (WORLD, [7]), (TINY, [0, 1, 6, 6])):
        every = oracle.enumerate_completions(world)
        first = torch.full((len(rows), 1), world.prompt_id(world.prompts[-1]))
        ids = torch.cat([first, every.completion_ids[rows]], dim=1)
        mask = torch.arange(world.max_length) < every.lengths[rows, None]
        shape = (*ids.shape, world.num_actions)
        logits = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        judged = torch.randn(len(rows), generator=generator, dtype=torch.float64) + 0.5
        judged.requires_grad_()
        given = (ids.clone(), mask.clone())
        try:
            got = reinforce(logits, given[0], judged, given[1])
        except (IndexError, RuntimeError) as error:
            assert "out of bounds" not in str(error), (
                "the prompt's id is not an action: which tokens are predicted?"
            )
            raise
        if checker.is_stub("5.3", got):
            return
        checker.unchanged(given, (ids, mask))
        loss = checker.as_loss(got)
        pull, leak = torch.autograd.grad(loss, [logits, judged], allow_unused=True)
        assert pull is not None, "the loss does not depend on `logits`."
        assert leak is None, "`judged` must be held constant: detach it."
        checker.diagnose(
            pull.reshape(-1),
            _by_definition(logits, ids, judged, mask),
            {
                message: _by_definition(logits, ids, judged, mask, mistake)
                for mistake, message in SURROGATES.items()
            },
            reveal=False,
            tolerance=1e-5,
        )
    checker.passed("5.3", "the gradient of ten texts of one to four words, in two worlds.")


SURROGATES = {
    "sign": "the sign is turned: descending this loss makes good texts less probable.",
    "shift": "logits[:, t] is scored against the token at t; it predicts the one at t + 1.",
    "token mean": "each text is divided by its number of words: a sum belongs there.",
    "width": "the sum over words is a mean over all columns: that changes the scale.",
    "batch sum": "the sum over texts is not divided by their number: the scale is B times off.",
    "all tokens": "divided by the number of all words in the batch: only the number of texts.",
    "padding": "what stands after the end of a text is scored too: use the mask.",
    "last": "the last word of each text is missing: the ending is an action.",
    "late": "the mask is one place too late: it drops the first word and lets in what follows.",
    "first": "the first word of each text is missing: ids[:, 0] is the prompt, ids[:, 1] a word.",
    "no judge": "`judged` is not in it: every text is pushed equally.",
    "two means": "a mean of judgements times a mean of scores: pair each text with its own.",
    "probability": "that is the probability of the text, exp(log p): the loss has log p.",
    "logits": "raw logits are no log-probabilities: log_softmax first.",
}


def _by_definition(
    logits: Tensor, ids: Tensor, judged: Tensor, mask: Tensor, mistake: str = ""
) -> Tensor:
    """Gradient by the logits, as a sum of one-hot minus probability, with one mistake put in."""
    size, lengths = len(ids), mask.sum(1, keepdim=True)
    each = judged.detach()[:, None]
    right = each * mask / size
    taken = logits.detach()[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    weight = {
        "token mean": right / lengths,
        "width": right / mask.shape[1],
        "batch sum": right * size,
        "all tokens": right * size / mask.sum(),
        "padding": each.expand(mask.shape) / size,
        "last": right * (torch.arange(mask.shape[1]) < lengths - 1),
        "late": each * torch.cat([0 * mask[:, :1], mask[:, :-1]], dim=1) / size,
        "first": right * (torch.arange(mask.shape[1]) > 0),
        "no judge": mask / size,
        "two means": each.mean() * mask / size,
        "probability": right * (taken * mask).sum(1, keepdim=True).exp(),
    }.get(mistake, right)
    first = 1 if mistake == "shift" else 0
    aligned = logits.detach()[:, first : first + mask.shape[1]]
    onehot = torch.nn.functional.one_hot(ids[:, 1:], logits.shape[-1]).double()
    push = onehot if mistake == "logits" else onehot - aligned.softmax(-1)
    found = torch.zeros_like(logits)
    found[:, first : first + mask.shape[1]] = -weight[..., None] * push
    return (-found if mistake == "sign" else found).detach().reshape(-1)


def exercise_4(mean_and_variance: Callable[[Tensor, Tensor, int], Any]) -> None:
    """`mean_and_variance(probability, terms, count)`: (5.6), from a list of all texts.

    Args:
        mean_and_variance: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for world, prompt, count in ((TINY, "p", 3), (WORLD, "pan", 1), (TINY, "p", 2)):
        problem = _problem(world, prompt)
        p, terms = problem.probability, problem.rewards[:, None] * problem.scores
        given = (p.clone(), terms.clone())
        got = mean_and_variance(*given, count)
        pair = isinstance(got, Sequence) and all(part is None or part is ... for part in got)
        if got is None or got is ... or pair:
            checker.is_stub("5.4", None)
            return
        checker.unchanged(given, (p, terms))
        assert isinstance(got, Sequence) and len(got) == 2, "return mean and variance, a pair."
        tuples = torch.tensor(
            list(itertools.product(range(len(p)), repeat=count if world is TINY else 1))
        )
        chance, batches = p[tuples].prod(-1), terms[tuples].mean(1)
        mean = chance @ batches
        variance = chance @ (batches - mean).pow(2).sum(-1)
        _diagnose_moments(got, p, terms, count, exact=(mean, variance))
    checker.passed("5.4", "equal to listing every batch of one, two and three texts.")


def _diagnose_moments(
    got: Sequence[Any], p: Tensor, terms: Tensor, count: int, *, exact: tuple[Tensor, Tensor]
) -> None:
    """Compare mean and variance of a batch's estimate with those over all batches."""
    mean, variance = exact
    checker.diagnose(
        checker.as_numbers(got[0], shape=(terms.shape[1],), what="the mean"),
        mean,
        {
            "the mean does not depend on `count`.": mean / count,
            "that is the plain mean of the list: weight by `probability`.": terms.mean(0),
            "divide by nothing: the probabilities sum to 1.": mean / len(p),
        },
        tolerance=1e-5,
        reveal=False,
    )
    single, square = p @ (terms - mean).pow(2).sum(-1), p @ terms.pow(2).sum(-1)
    checker.diagnose(
        checker.as_numbers(got[1], shape=(), what="the variance"),
        variance,
        {
            "not divided by `count`: an average varies less than one draw.": single,
            "that is the mean square; subtract the square of the mean.": square / count,
            "the standard deviation falls as 1/√N, the variance as 1/N.": single / count**0.5,
            "that is the standard deviation: do not take the root.": variance**0.5,
            "divided by `count` twice: the square of 1/N, times N terms.": single / count**2,
            "averaged over the directions; add them up.": variance / terms.shape[1],
            "weight them by `probability`.": (terms - mean).pow(2).sum(-1).mean() / count,
            "divide the whole difference by `count`.": square / count - mean @ mean,
            "by `count`, not by one less: no sample here.": single / max(count - 1, 1),
        },
        tolerance=1e-5,
        reveal=False,
    )


def _moments(loss_function: Loss, world: TokenWorld, size: int, *more: float) -> GradientMoments:
    """Exact moments of the reader's estimate, over every batch of this size."""

    def checked(scores: Tensor, rewards: Tensor, mask: Tensor) -> Tensor:
        kept = (rewards.clone(), mask.clone())
        junk = torch.full_like(scores, -7.0).requires_grad_()  # in the padded places
        loss = checker.as_loss(loss_function(torch.where(mask, scores, junk), *kept, *more))
        checker.unchanged(kept, (rewards, mask))
        [leak] = torch.autograd.grad(
            loss, [junk], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        assert not leak.any(), "what stands after the end of a text is scored too: use the mask."
        return loss

    table = tables.TablePolicy(world, std=0.8, generator=torch.Generator().manual_seed(0))
    problem = _problem(world, world.prompts[0])
    prompt = world.prompts[0]
    return ascent.moments_of_loss(checked, table, problem, world, prompt, batch_size=size)


def _judge(found: GradientMoments, truth: Tensor, variance: float | None, size: int) -> None:
    """Say which property fails: the sign, the scale, the direction, or the variance."""
    where = f"over all batches of {size}, weighted by their probability, "
    scale = float(found.mean @ truth / (truth @ truth))
    cosine = float(torch.cosine_similarity(found.mean, truth, dim=0))
    if float((found.mean - truth).norm()) > 1e-6 * float(truth.norm()):
        assert cosine > -0.999, f"{where}the SIGN fails: the mean points downhill."
        assert cosine < 0.99999, (
            f"{where}the SCALE fails: the mean is {scale:.3f} ∇L, so the direction is right and "
            "the length is not. What is divided by what, and how often?"
        )
        raise AssertionError(
            f"{where}the MEAN fails: its cosine with ∇L is {cosine:.3f}, its length along it "
            f"{scale:.3f}. Is each text judged by its own reward, and every word counted once?"
        )
    if variance is not None:
        times = found.variance / variance
        why = "no other text's reward belongs to a score, and no constant."
        if times < 1:
            why = "unbiased, even quieter, but not (5.7): a baseline is chapter 06."
        assert abs(times - 1) < 1e-6, (
            f"{where}the mean is right, the VARIANCE fails, {times:.2f} times that of (5.6): {why}"
        )


def exercise_5(mended_loss: Loss) -> None:
    """`mended_loss(token_logprobs, rewards, mask)`: judged by mean, sign, scale and variance.

    Args:
        mended_loss: the reader's function.
    Raises:
        AssertionError: which property fails.
    """
    probe = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    first = mended_loss(probe, torch.ones(1).double(), torch.ones(1, 2, dtype=torch.bool))
    if checker.is_stub("5.5", first):
        return
    for world, size in ((TINY, 1), (TINY, 2), (THREE, 3)):
        problem = _problem(world, world.prompts[0])
        terms = problem.rewards[:, None] * problem.scores
        expected = gradients.of_terms(problem, terms, count=size)
        found = _moments(mended_loss, world, size)
        _judge(found, problem.truth, expected.variance, size)
    checker.passed("5.5", "mean and variance over every batch of one, two and three texts.")


def exercise_6(variances: Mapping[str, Any]) -> None:
    """Four variances, by thinking: two ways to pay, judged by R and by the reward-to-go.

    Args:
        variances: `steady_whole`, `steady_to_go`, `advance_whole`, `advance_to_go`.
    Raises:
        AssertionError: with a diagnosis.
    """
    world = TokenWorld(
        ("a", "b"), ("p",), 3, lambda prompts, texts: [0.0 for _ in texts], ends=False
    )
    problem = _problem(world, "p", std=0.0)

    def strays(judged: list[float]) -> float:
        weights = torch.tensor(judged, dtype=torch.float64).expand(len(problem.rewards), -1)
        return gradients.of_terms(problem, problem.combine(weights)).variance

    expected, mistakes = {}, {}
    for name, paid in (("steady", [1.0, 1.0, 1.0]), ("advance", [2.0, 1.0, -2.0])):
        total = sum(paid)
        to_go = [sum(paid[t:]) for t in range(3)]
        for key, judged in (("whole", [total] * 3), ("to_go", to_go)):
            right, other = strays(judged), strays(to_go if key == "whole" else [total] * 3)
            expected[f"{name}_{key}"] = right
            mistakes[f"{name}_{key}"] = {
                "that is the other judgement: exchange whole and to go.": other,
                "the squared length of a word's score is missing: it is no 1.": 2 * right,
                "only the chosen logit's part of the score: the other one moves too.": right / 2,
                "that is its root, the standard deviation.": right**0.5,
                "each word is judged by R, the whole reward, not by its own pay alone."
                if key == "whole"
                else "each word answers for all that it is paid from there on, "
                "not for its own reward alone.": strays(paid),
                "that is the mean over the words: their squares add up.": right / 3,
                "the future, not the past: G_t begins at t.": strays(
                    [sum(paid[: t + 1]) for t in range(3)]
                ),
                "the word's own reward belongs to G_t.": strays(
                    [sum(paid[t + 1 :]) for t in range(3)]
                ),
                "square each word's part, then add; the scores stand in different rows.": (
                    sum(abs(judgement) for judgement in judged) ** 2 / 2
                ),
            }
    if checker.predicted_numbers("5.6", variances, expected, mistakes):
        checker.passed(
            "5.6",
            "all four agree with the list of eight texts: the past is noise in one, and in "
            "the other it cancels what is still to come.",
        )


def exercise_7(old_probs: Any) -> None:
    """Sampling probabilities under which the unweighted stale estimate points downhill.

    Args:
        old_probs: three numbers.
    Raises:
        AssertionError: they are no distribution, too small, or the estimate is still uphill.
    """
    if checker.is_stub("5.7", old_probs):
        return
    old = checker.as_numbers(old_probs, shape=(3,), what="old_probs")
    assert abs(float(old.sum()) - 1) < 1e-5, f"probabilities sum to 1, these to {old.sum():.4f}."
    assert float(old.min()) >= 0.05 - 1e-6, (
        f"the smallest is {old.min():.3f}: every text must have at least 5 %."
    )
    world = ascent.bandit({"awful": 1.0, "decent": 2.0, "superb": 3.0})
    problem = _problem(world, "taste", std=0.0)
    terms = problem.rewards[:, None] * problem.scores
    stale = gradients.of_terms(problem, terms, probability=old)
    assert float(stale.mean @ problem.truth) < -1e-9, (
        f"this still points uphill, with a cosine of {stale.cosine:+.2f} to the gradient. "
        "“decent” contributes nothing to the product; compare the other two."
    )
    ratio = (problem.probability / old)[:, None]
    right = gradients.of_terms(problem, ratio * terms, probability=old)
    checker.passed(
        "5.7", f"cosine {stale.cosine:+.2f}; with the ratio it would be {right.cosine:+.2f}."
    )


def exercise_8(surprise_loss: Loss) -> None:
    """`surprise_loss(token_logprobs, rewards, mask, beta)`: the gradient of E[R − β log p].

    Args:
        surprise_loss: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    probe = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    ones = torch.ones(1, 2, dtype=torch.bool)
    if checker.is_stub("5.8", surprise_loss(probe, torch.ones(1).double(), ones, 0.5)):
        return
    problem = _problem(TINY, "p")
    for beta, size in ((0.7, 1), (0.0, 2), (1.5, 2)):
        table = tables.TablePolicy(TINY, std=0.8, generator=torch.Generator().manual_seed(0))
        logp = oracle.completion_logprobs(table, TINY, "p")
        objective = (logp.exp() * (problem.rewards - beta * logp)).sum()
        truth = torch.autograd.grad(objective, [table.logits])[0].reshape(-1)
        bonus = truth - problem.truth  # β ∇H
        words = ascent.score(table, TINY, "p", torch.arange(7))[0].detach()
        own_word = problem.probability @ problem.combine(problem.rewards[:, None] - beta * words)
        n = (problem.moves >= 0).sum(-1)  # each text's length
        right, rate = (problem.rewards - beta * logp.detach() / count for count in (1, n))
        part, short, both = (
            problem.probability @ (judged[:, None] * problem.scores)
            for judged in (right / n, rate, rate / n)
        )
        found = _moments(surprise_loss, TINY, size, beta).mean
        if beta:
            checker.diagnose(
                found,
                truth,
                {
                    "the surprise is missing: that is ∇E[R].": problem.truth,
                    "the sign of the surprise is turned: pay −log p.": problem.truth - bonus,
                    "not detached: the surprise counts twice.": problem.truth + 2 * bonus,
                    "the sign is turned: a loss goes down.": -truth,
                    "beta is missing: the surprise counts once.": problem.truth + bonus / beta,
                    "divided by the number of texts once too often.": truth / size,
                    "each word is paid its own surprise: sum over the text's.": own_word,
                    "a text's surprise is a sum over words: no mean.": problem.truth + bonus / 2,
                    "the surprise is divided by the text's length: sum over its words.": short,
                    "each text is divided by its number of words: a sum belongs there.": part,
                    "both log p and the surprise are divided by the text's length: no mean.": both,
                },
                reveal=False,
                tolerance=1e-7,
            )
        _judge(GradientMoments(found, truth, 0.0, 0.0), truth, None, size)
    checker.passed("5.8", "equal to autograd on the exact objective, at three values of beta.")
