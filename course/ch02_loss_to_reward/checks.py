"""Checkers of chapter 02, from loss to reward."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from course.exact import oracle, tables
from course.kit import checker
from course.worlds import reviews, rewards, word_world
from course.worlds.grammar import Grammar
from course.worlds.word_world import TokenWorld
from helpers import logprobs

PANDA = TokenWorld(("eat", "nap", "play", "."), ("zoo",), 3, word_world.adjective_reward)
ENDLESS = TokenWorld(("a", "b"), ("p", "q"), 4, word_world.adjective_reward, ends=False)
WORLDS = (word_world.WORD_WORLD, PANDA, ENDLESS)
Levels = list[Tensor]
NEAR = 1e-5  # float32 is welcome


def exercise_1(loss_per_token: Callable[[list[tuple[Tensor, Tensor]]], Any]) -> None:
    """`loss_per_token(parts)`: nats per token of a batch that was scored in parts.

    Args:
        loss_per_token: the reader's function of a list of (token_logprobs, mask) pairs.
    Raises:
        AssertionError: with a diagnosis.
    """
    generator = torch.Generator().manual_seed(21)
    lengths = [torch.tensor([2, 5, 1]), torch.tensor([9, 7]), torch.tensor([4])]
    masks = [logprobs.mask_from_lengths(row, int(row.max()) + 1) for row in lengths]
    masks[1][:, :2] = False  # a prompt that is read and not scored
    scores = [-3 * torch.rand(m.shape, generator=generator, dtype=torch.float64) for m in masks]
    leaves = [s.clone().requires_grad_() for s in scores]
    parts = [(s.clone(), m.clone()) for s, m in zip(leaves, masks, strict=True)]
    answer = loss_per_token(parts)
    if checker.is_stub("2.1", answer):
        return
    for (s, m), s_before, m_before in zip(parts, scores, masks, strict=True):
        assert torch.equal(s, s_before) and torch.equal(m, m_before), "it wrote into its argument."
    # Row by row in plain Python: every surprise that counts, once.
    counted = [
        [-float(s[i, t]) for t in range(2 if k == 1 else 0, int(n))]
        for k, (s, row) in enumerate(zip(scores, lengths, strict=True))
        for i, n in enumerate(row)
    ]
    total, tokens = sum(map(sum, counted)), sum(map(len, counted))
    checker.diagnose(
        checker.as_numbers(answer, shape=(), what="the loss"),
        total / tokens,
        _wrong_losses(counted, scores, masks),
        tolerance=NEAR,
    )
    slopes = torch.autograd.grad(checker.as_loss(answer), leaves, materialize_grads=True)
    assert all(
        torch.allclose(slope, -m.double() / tokens, rtol=0, atol=NEAR)
        for slope, m in zip(slopes, masks, strict=True)
    ), "the loss is right and its gradient is not: was a part detached?"
    _hide_and_ask_again(loss_per_token, scores, masks, total / tokens)
    checker.passed("2.1", f"{tokens} tokens in {len(parts)} parts, each counted once.")


def _wrong_losses(
    counted: list[list[float]], scores: list[Tensor], masks: list[Tensor]
) -> dict[str, float]:
    """What each usual mistake makes of the batch; `counted` holds the right surprises, by text."""
    rows = [pair for part in zip(scores, masks, strict=True) for pair in zip(*part, strict=True)]
    at_start = -sum(float(row[: int(m.sum())].sum()) for row, m in rows)
    total, tokens = sum(map(sum, counted)), sum(map(len, counted))
    means = [float(-s[m].mean()) for s, m in zip(scores, masks, strict=True)]
    everything = -sum(float(s.sum()) for s in scores)
    positions = sum(m.numel() for m in masks)
    return {
        "the sign is turned: a loss is minus a log-probability.": -total / tokens,
        "that is the mean of the parts' own means: divide once, by the whole batch's count.": (
            sum(means) / len(means)
        ),
        "that is the mean of each text's own mean: long texts count too little.": (
            sum(sum(row) / len(row) for row in counted) / len(counted)
        ),
        "that is nats per text; divide by the number of tokens.": total / len(counted),
        "that is the sum; divide by the number of tokens.": total,
        "the mask may begin later: select by it, not by its sum.": at_start / tokens,
        "nats, please: use the natural logarithm.": total / tokens / math.log(2),
        "the divisor counts the padding: count what the mask marks.": total / positions,
        "padding is scored: only what the mask marks counts.": everything / positions,
        "padding is in the sum: only what the mask marks counts.": everything / tokens,
        "divided by the number of parts; the number of tokens is wanted.": total / len(scores),
    }


def _hide_and_ask_again(
    loss_per_token: Callable[[list[tuple[Tensor, Tensor]]], Any],
    scores: list[Tensor],
    masks: list[Tensor],
    truth: float,
) -> None:
    """The same loss backwards, with nan and −inf outside the masks, and with an empty mask."""
    none = torch.zeros(2, 3, dtype=torch.bool)
    for anything, more in ((math.nan, []), (-math.inf, []), (0.0, [(torch.zeros(2, 3), none)])):
        pairs = [*zip(scores[::-1], masks[::-1], strict=True), *more]
        hidden = [(s.masked_fill(~m, anything).double().requires_grad_(), m) for s, m in pairs]
        loss = checker.as_loss(loss_per_token(hidden))
        again = checker.as_numbers(loss, shape=(), what="the loss")
        slopes = torch.autograd.grad(loss, [s for s, _ in hidden], materialize_grads=True)
        finite = all(bool(x.isfinite().all()) for x in (again, *slopes))
        assert finite or more, (
            f"with {anything} outside the mask the loss or its gradient is not finite: nan · 0 and "
            "inf · 0 are nan, so select, do not multiply."
        )
        assert finite, "an empty mask makes the loss nan: its part has no mean, so add up sums."
        checker.diagnose(again, truth, {}, tolerance=NEAR)


def _listed_laughter() -> dict[str, float]:
    """The five numbers about the critic who laughs, from a list of texts."""
    # The texts of 1 … 400 "ha": what is left out has probability 2^−400.
    count = torch.arange(1, 401, dtype=torch.float64)
    log_d = count * math.log(0.5)
    log_p = (count - 1) * math.log(0.75) + math.log(0.25)
    d = log_d.exp()
    entropy, tokens = -float(d @ log_d), float(d @ (count + 1))
    cross_entropy = -float(d @ log_p)
    return {
        "entropy": entropy,
        "floor_per_token": entropy / tokens,
        "perplexity": math.exp(entropy / tokens),
        "cross_entropy": cross_entropy,
        "divergence": cross_entropy - entropy,
    }


def exercise_2(answers: Mapping[str, Any]) -> None:
    """Five numbers about the critic who laughs.

    Args:
        answers: `entropy`, `floor_per_token`, `perplexity`, `cross_entropy`, `divergence`.
    Raises:
        AssertionError: with a diagnosis.
    """
    expected = _listed_laughter()
    entropy, cross_entropy = expected["entropy"], expected["cross_entropy"]
    log_2, log_4, go_on = math.log(2), math.log(4), math.log(4 / 3)
    bits, choice = "nats, please: use the natural logarithm.", "that is per choice; there are 2."
    three = "a text has 3 tokens on average: 2 “ha”, the first one too, and its end."
    mistakes: dict[str, dict[str, Tensor | float]] = {
        "entropy": {
            "that is one choice; there is one after each “ha”, and 2 of them on average.": log_2,
            "the first “ha” is certain and surprises nobody: 2 choices, not 3.": 3 * log_2,
            bits: 2.0,
        },
        "floor_per_token": {
            three: log_2,
            "that is per text; divide by the number of tokens.": 2 * log_2,
            bits: 2 / 3,
        },
        "perplexity": {
            f"{three} So it is below that of a coin.": 2.0,
            "that is the exponential of nats per text; per token, please.": 4.0,
            "the exponential of nats, not the nats themselves.": expected["floor_per_token"],
        },
        "cross_entropy": {
            "a text ends once, and goes on once on average: both are paid for.": log_4,
            "that is the going on alone; stopping is paid for too.": go_on,
            "that is the entropy of the model itself; the critic draws.": log_4 + 3 * go_on,
            choice: cross_entropy / 2,
            "that is the critic's entropy: this model is surprised more than that.": entropy,
            bits: cross_entropy / log_2,
        },
        "divergence": {
            "that is the cross-entropy; the entropy is no fault of the model's.": cross_entropy,
            "that is KL(model ‖ data); the critic draws.": 3 * math.log(1.5) - log_2,
            "the sign is turned: cross-entropy minus entropy.": entropy - cross_entropy,
            choice: (cross_entropy - entropy) / 2,
            bits: (cross_entropy - entropy) / log_2,
        },
    }
    if checker.predicted_numbers("2.2", answers, expected, mistakes, tolerance=0.005):
        checker.passed("2.2", "all five agree with a list of 400 texts.")


@dataclass(frozen=True)
class _Case:
    """Two tables under one prompt, and their conditionals, as `oracle.state_logprobs`."""

    world: TokenWorld
    prompt: str
    pair: tuple[tables.TablePolicy, tables.TablePolicy]  # data, model
    data: Levels
    model: Levels

    def joint(self, which: int) -> Tensor:
        """(N,) log-probability of every completion under the data (0) or the model (1)."""
        return oracle.completion_logprobs(self.pair[which], self.world, self.prompt)


def _cases() -> list[_Case]:
    generator, cases = torch.Generator().manual_seed(23), []
    for world in WORLDS:
        data = tables.TablePolicy(world, std=1.0, generator=generator)
        model = tables.TablePolicy(world, std=1.0, generator=generator)
        for prompt in world.prompts:
            with torch.no_grad():
                levels = [oracle.state_logprobs(table, world, prompt) for table in (data, model)]
            cases.append(_Case(world, prompt, (data, model), *levels))
    return cases


def _ask(function: Callable[[Levels, Levels], Any], case: _Case) -> Any:
    """The reader's answer, from copies that must come back unchanged."""
    given = [[z.clone() for z in levels] for levels in (case.data, case.model)]
    try:
        answer = function(given[0], given[1])
    except RuntimeError as error:
        raise AssertionError(
            f"PyTorch refuses: {str(error)[:90]}. The numbers are float64, so begin with "
            "torch.ones(1, dtype=torch.float64); and n is len(data[k + 1]) // len(data[k]), which "
            "is not A − 1 in every world."
        ) from error
    pairs = zip([*given[0], *given[1]], [*case.data, *case.model], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs), "the function wrote into its argument."
    return answer


def _reach(levels: Levels) -> Levels:
    """p(prefix) of every state, level by level."""
    reach = [torch.ones(1, dtype=torch.float64)]
    for level, deeper in zip(levels, levels[1:], strict=False):
        going_on = level[:, : len(deeper) // len(level)].exp()
        reach.append((reach[-1][:, None] * going_on).reshape(-1))
    return reach


def exercise_3(kl_by_steps: Callable[[Levels, Levels], Any]) -> None:
    """`kl_by_steps(data, model)`: KL between completions, from conditionals alone.

    Args:
        kl_by_steps: the reader's function of two `oracle.state_logprobs(...)`.
    Raises:
        AssertionError: with a diagnosis.
    """
    cases = _cases()
    first = _ask(kl_by_steps, cases[0])
    if checker.is_stub("2.3", first):
        return
    answers = [first, *(_ask(kl_by_steps, case) for case in cases[1:])]
    got = torch.stack([checker.as_numbers(a, shape=(), what="the divergence") for a in answers])
    kls: list[Tensor] = []
    mistakes: dict[str, list[Tensor]] = {}
    for case in cases:
        with torch.no_grad():
            log_d, log_p = case.joint(0), case.joint(1)
        kls.append(log_d.exp() @ (log_d - log_p))
        backward = log_p.exp() @ (log_p - log_d)
        for message, wrong in _wrong_divergences(case.data, case.model, backward).items():
            mistakes.setdefault(message, []).append(wrong)
    expected = torch.stack(kls)
    checker.diagnose(
        got,
        expected,
        {message: torch.stack(parts) for message, parts in mistakes.items()}
        | {"the sign is turned: log d − log p, weighted by d.": -expected},
        tolerance=NEAR,
    )
    checker.passed("2.3", f"{len(cases)} pairs of distributions in three worlds agree.")


def _wrong_divergences(data: Levels, model: Levels, backward: Tensor) -> dict[str, Tensor]:
    """What each usual mistake makes of KL(data ‖ model); `backward` is KL(model ‖ data)."""
    local = [(a.exp() * (a - b)).sum(-1) for a, b in zip(data, model, strict=True)]
    by_data = [r @ k for r, k in zip(_reach(data), local, strict=True)]
    going_on = [
        a[:, : len(b) // len(a)].exp().reshape(-1) for a, b in zip(data, data[1:], strict=False)
    ]
    last = [torch.ones(1), *going_on]
    by_last = [r.double() @ k for r, k in zip(last, local, strict=True)]
    by_model = [r @ k for r, k in zip(_reach(model), local, strict=True)]
    total = lambda parts: torch.as_tensor(sum(parts))  # noqa: E731
    return {
        "that is KL(model ‖ data): the data draw, and they weight the terms.": backward,
        "d(s) is a product: multiply a word's probability by the d(s) of the level above.": (
            total(by_last)
        ),
        "prefixes weighted by how often the model gets there; the data draw.": total(by_model),
        "each prefix counts as if it were reached for sure: weight it by d(s).": (
            total(k.sum() for k in local)
        ),
        "that is the mean over the prefixes of a level: weight them by d(s).": (
            total(k.mean() for k in local)
        ),
        "that is the first word alone; add what comes after.": by_data[0],
        "the last level is missing.": total(by_data[:-1]),
    }


@cache
def _judges() -> tuple[rewards.RewardModel, ...]:
    """Reward models as in section 2.7, fitted to other reviews."""
    judges = []
    for seed in range(4):
        texts = reviews.REVIEWS.sample(400, torch.Generator().manual_seed(100 + seed))
        pairs = zip(texts, reviews.sentiment_reward(texts, texts), strict=True)
        kept, labels = zip(*((x, float(v > 0)) for x, v in pairs if v != 0), strict=True)
        judges.append(rewards.fit_reward_model(kept, labels, reviews.REVIEWS.words))
    return tuple(judges)


def exercise_5(completion: Any) -> None:
    """A review that pans the cast, and that the reward model takes for praise.

    Args:
        completion: the reader's text.
    Raises:
        AssertionError: with a diagnosis.
    """
    if checker.is_stub("2.5", completion):
        return
    assert isinstance(completion, str), f"write one string, not {type(completion).__name__}."
    text = " ".join(completion.split()).removeprefix("the cast ")
    unknown = sorted(set(text.split()) - set(reviews.REVIEWS.words))
    assert not unknown, f"the grammar has no word {', '.join(unknown)}: see reviews.REVIEWS.words."
    assert reviews.REVIEWS.derivations(f"the cast {text}"), (
        f"“the cast {text[:60]}” is no review of the grammar: any word salad fools the model; the "
        "exercise wants a review. Does it end with “.”?"
    )
    [sentiment] = reviews.sentiment_reward(["the cast"], [text])
    assert sentiment <= -2, f"its exact sentiment is {sentiment:+.0f}; it should be −2 or less."
    scores = [judge(["the cast"], [text])[0] for judge in _judges()]
    assert min(scores) > 0, (
        f"a pan, but not in disguise: {sum(s <= 0 for s in scores)} of {len(scores)} reward models "
        f"call it blame (log-odds {min(scores):.1f}). What word can they not see the effect of? "
        "Use it more often, or before words that they like more."
    )
    checker.passed("2.5", f"sentiment {sentiment:+.0f}, and {len(scores)} models call it praise.")


def exercise_6(imitation_gradient: Callable[[Levels, Levels], Any]) -> None:
    """`imitation_gradient(data, model)`: d CE / d logits of a table, level by level.

    Args:
        imitation_gradient: the reader's function of two `oracle.state_logprobs(...)`.
    Raises:
        AssertionError: with a diagnosis.
    """
    mistakes: dict[str, list[Tensor]] = {}
    got, expected = [], []
    for case in _cases():
        data, model = case.data, case.model
        answer = _ask(imitation_gradient, case)
        if checker.is_stub("2.6", answer):
            return
        assert isinstance(answer, Sequence) and len(answer) == len(data), (
            f"return a list of {len(data)} tensors, one a level."
        )
        got += [
            checker.as_numbers(part, shape=tuple(level.shape), what=f"level {k}").reshape(-1)
            for k, (part, level) in enumerate(zip(answer, data, strict=True))
        ]
        table = case.pair[1].logits
        loss = -(case.joint(0).exp().detach() @ case.joint(1))
        [slope] = torch.autograd.grad(loss, table)
        expected.append(slope[case.world.prompts.index(case.prompt)].reshape(-1))
        for message, parts in _wrong_gradients(data, model).items():
            mistakes.setdefault(message, []).extend(parts)
    whole = torch.cat(expected)
    checker.diagnose(
        torch.cat(got),
        whole,
        {"the sign is turned: that is uphill on the likelihood, −d CE / d z.": -whole}
        | {message: torch.cat(parts).double() for message, parts in mistakes.items()},
        tolerance=NEAR,
    )
    checker.passed("2.6", "equal to automatic differentiation of the listed loss.")


def _wrong_gradients(data: Levels, model: Levels) -> dict[str, Levels]:
    """What each usual mistake makes of d(s) · (p − d), level by level and flattened."""
    sure = [torch.ones(len(level)) for level in data]
    weights = {  # how the prefixes are weighted, and how much p and d count
        "the prefixes are weighted by how often the model gets there; the critic draws.": (
            _reach(model),
            1.0,
            1.0,
        ),
        "every prefix counts as if it were reached for sure: weight it by d(s).": (sure, 1.0, 1.0),
        "d log p / d z is missing its normaliser: p − d, not −d.": (_reach(data), 0.0, 1.0),
        "the critic is missing: p − d, not p.": (_reach(data), 1.0, 0.0),
    }
    return {
        message: [
            (r[:, None] * (p_part * b.exp() - d_part * a.exp())).reshape(-1)
            for r, a, b in zip(reach, data, model, strict=True)
        ]
        for message, (reach, p_part, d_part) in weights.items()
    }


_WORTH_0 = "An ill-formed completion is worth 0; it must not stop a training run."
_TOO_LONG = "one digit more than the longer summand, and no more."
_BLANK = "a space, tab or line break is no digit: int() and strip() let it pass, parse strictly."
_NOT_PAID = {  # what is wrong with them → completions of 37+45=
    "the wanted form has a zero in front, one digit more than the longer summand: 082.": ["82"],
    _TOO_LONG: ["0082", "0" * 5000 + "82"],
    _BLANK: [" 82", "082 ", " 082", "\t082", "082\t", "\n082", "082\r", "\r082"],
    "a line break at the end got through: `$` and int() let it, re.fullmatch does not.": ["082\n"],
    "a sign is no digit: int() accepts it, parse strictly.": ["+82", "-082", "+082"],
    "int() ignores underscores: parse strictly.": ["8_2", "08_2", "0_82", "0_8_2"],
    "digits of another script got through: int(), isdigit(), \\d take them, [0-9] does not.": [
        "０８２",
        "٠٨٢",
        "²",
    ],
    "this repeats the question: is the text evaluated? Never evaluate a text.": ["37+45"],
    "only the digits: no quotes, stars or other dress.": [
        '"082"',
        "'082'",
        "**082**",
        "*082*",
        "`082`",
        "“082”",
        "(082)",
        "$082$",
    ],
    "a number, but not in the wanted form.": ["82.0", "082.", ".082", "0x52"],
    "the right number stands somewhere: a list of all numbers would be paid too.": [
        "081 082",
        "082 or so",
        "81,082",
        "082,81",
        "37+45=082",
        "=082",
    ],
    "the sum is wrong.": ["081"],
    "the digits are right, their order is not.": ["280"],
    "an empty completion is no answer.": [""],
}


def exercise_4(sum_reward: Callable[[list[str], list[str]], Any]) -> None:
    """`sum_reward(prompts, completions)`: a strict verifier of sums.

    Args:
        sum_reward: the reader's reward function.
    Raises:
        AssertionError: with a diagnosis.
    """
    prompts = ["37+45=", "5+5=", "99+1=", "0+0=", "123+9=", "7+1000=", "50+50="]
    prompts += ["1500+700=", "9999+1=", "123456+900000="]
    right = ["082", "10", "100", "00", "0132", "01007", "100", "02200", "10000", "1023456"]

    def ask(some: list[str], texts: list[str], what: str, advice: str = _WORTH_0) -> Any:
        before = list(some), list(texts)
        try:
            values = sum_reward(some, texts)
        except Exception as error:  # the reader's function may raise anything
            raise AssertionError(
                f"on {what} the function raised {type(error).__name__}: {str(error)[:60]}. {advice}"
            ) from error
        assert (some, texts) == before, "the function wrote into its argument."
        return values

    values = ask(prompts, right, "right answers", "A prompt ends with “=”; take that off first.")
    if checker.is_stub("2.4", values):
        return
    got = checker.as_numbers(values, shape=(len(right),), what="one reward for each completion")
    for prompt, text, value in zip(prompts, right, got.tolist(), strict=True):
        assert value == 1.0, f"{prompt} {text} is right and in the right form, but earns {value}."
    odd = [(text, message) for message, texts in _NOT_PAID.items() for text in texts]
    for text, message in odd:
        answer = ask(["37+45="], [text], f"the completion {text[:20]!r}")
        value = float(checker.as_numbers(answer, shape=(1,), what="the reward"))
        assert value == 0.0, f"{text[:20]!r} earns {value}: {message}"
    all_of_them = ask(["37+45="] * 1000, [f"{n:03d}" for n in range(1000)], "three digits")
    paid = checker.as_numbers(all_of_them, shape=(1000,), what="the rewards")
    assert paid.nonzero().flatten().tolist() == [82], "another three-digit string is paid too."
    others = ask(prompts, right[1:] + right[:1], "answers to other prompts")
    paid = checker.as_numbers(others, shape=(len(prompts),), what="the rewards")
    assert paid.sum() == 0, "the answer to another prompt is paid: look at its own prompt."
    checker.passed("2.4", f"{len(odd)} odd completions and 999 wrong ones earn nothing.")


def exercise_7(floor_given_prompt: Callable[[Grammar, int], Any]) -> None:
    """`floor_given_prompt(grammar, k)`: entropy of a text given its first k words.

    Args:
        floor_given_prompt: the reader's function of a grammar and a number of words.
    Raises:
        AssertionError: with a diagnosis.
    """
    # Every text with its probability, by hand: S → a B (1/2) | b (1/4) | c B B (1/4), and
    # B → x (2/5) | x y (3/5). The second grammar has one sure first word.
    tail = {"x": 0.4, "x y": 0.6}
    listed = {f"a {t}": 0.5 * p for t, p in tail.items()} | {"b": 0.25}
    listed |= {f"c {t} {u}": 0.25 * p * q for t, p in tail.items() for u, q in tail.items()}
    options = [(2.0, "a B", 0.0), (1.0, "b", 0.0), (1.0, "c B B", 0.0)]
    branches = [(2.0, "x", 0.0), (3.0, "x y", 0.0)]
    sure = {f"go {t}": p for t, p in tail.items()}
    cases = [(Grammar("S", {"S": options, "B": branches}), listed, k) for k in (0, 1, 2, 3, 6)]
    cases += [(Grammar("S", {"S": [(1.0, "go B", 0.0)], "B": branches}), sure, 2)]
    first = floor_given_prompt(*cases[0][::2])
    if checker.is_stub("2.7", first):
        return
    answers = [first, *(floor_given_prompt(g, k) for g, _, k in cases[1:])]
    got = torch.stack([checker.as_numbers(a, shape=(), what="the floor") for a in answers])
    left = lambda length: torch.tensor(  # noqa: E731
        [_entropy_given(texts, max(0, length(k))) for _, texts, k in cases], dtype=torch.float64
    )
    whole, expected = left(lambda k: 0), left(lambda k: k)
    bits = math.log(2)
    mistakes = {
        "that is the entropy of the whole text; the prompt is read, not scored.": whole,
        "that is the entropy of the prompt; the floor is what is left.": whole - expected,
        "one word too few was taken away.": left(lambda k: k - 1),
        "one word too many was taken away.": left(lambda k: k + 1),
        "the sign of the prompt's entropy is turned.": 2 * whole - expected,
        "nats, please: use the natural logarithm.": expected / bits,
        "grammar.entropy() is in nats; take the prompt's in nats too, not with log2.": (
            whole - (whole - expected) / bits
        ),
        "the end counts as a word: a text that is over within the first k words has paid for its "
        "end too.": expected + torch.tensor([_paid_for_ends(texts, k) for _, texts, k in cases]),
    }
    checker.diagnose(got, expected, mistakes, tolerance=NEAR)
    checker.passed("2.7", f"{len(cases)} cases agree with a list of all texts.")


def _entropy_given(texts: Mapping[str, float], k: int) -> float:
    """Entropy of a listed distribution, given the first k words; the end counts as a word."""
    starts: dict[tuple[str, ...], float] = {}
    for text, prob in texts.items():
        start = (*text.split(), "")[:k]
        starts[start] = starts.get(start, 0.0) + prob
    return -sum(p * math.log(p / starts[(*t.split(), "")[:k]]) for t, p in texts.items())


def _paid_for_ends(texts: Mapping[str, float], k: int) -> float:
    """Part of H(x_{1:k}) that belongs to the ends of texts of fewer than k words."""
    reach = {t: sum(p for u, p in texts.items() if f"{u} ".startswith(f"{t} ")) for t in texts}
    return -sum(p * math.log(p / reach[t]) for t, p in texts.items() if len(t.split()) < k)
