"""Checkers of chapter 01, the autoregressive factorization."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from course.exact import oracle, tables
from course.exact.oracle import Policy
from course.kit import checker
from course.worlds import tiny_models
from course.worlds.word_world import WORD_WORLD, TokenWorld
from helpers import logprobs, models

EOS_ID = WORD_WORLD.eos_ids[0]
NEAR = 1e-5  # float32 is welcome


def _peaked_table(std: float) -> tables.TablePolicy:
    """A table far from uniform, on which no mistake is small."""
    return tables.TablePolicy(WORD_WORLD, std=std, generator=torch.Generator().manual_seed(11))


class _Counted:
    """A transformer policy that counts how often it is called, its logits stretched."""

    def __init__(self, stretch: float = 1.0) -> None:
        self.policy = models.as_policy(tiny_models.word_transformer(WORD_WORLD, seed=11, std=0.3))
        self.stretch, self.calls = stretch, 0

    def __call__(self, token_ids: Tensor) -> Tensor:
        self.calls += 1
        return self.stretch * self.policy(token_ids)


class _Remembered:
    """A policy that keeps its answers: thousands of draws ask for the same few prefixes."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.answers: dict[tuple[Any, ...], Tensor] = {}

    def __call__(self, token_ids: Tensor) -> Tensor:
        question = (token_ids.dtype, token_ids.shape, *token_ids.flatten().tolist())
        if question not in self.answers:
            self.answers[question] = self.policy(token_ids)
        return self.answers[question].clone()  # the reader may write into it


def exercise_1(score: Callable[[Policy, int, Tensor], Any]) -> None:
    """`score(policy, prompt_id, completion_ids)` is log p(x | c) in nats, from one call.

    Args:
        score: the reader's function; completion_ids is a 1-d tensor, EOS included.
    Raises:
        AssertionError: with a diagnosis.
    """
    policy, every = _Counted(), oracle.enumerate_completions(WORD_WORLD)
    picks = [0, 3, 7, 30, 84, 100, 340]
    rows = [every.completion_ids[i, : every.lengths[i]] for i in picks]
    prompt_id = WORD_WORLD.prompt_id("pan")
    first = score(policy, prompt_id, rows[1].clone())
    if checker.is_stub("1.1", first):
        return
    assert policy.calls == 1, f"the policy was called {policy.calls} times; one pass is enough."
    answers = [score(policy, prompt_id, row.clone()) for row in rows]
    got = torch.stack([checker.as_numbers(a, shape=(), what="the answer") for a in answers])
    with torch.no_grad():
        expected = oracle.completion_logprobs(policy, WORD_WORLD, "pan")[picks]
        mistakes = _wrong_scores(policy, prompt_id, rows, expected)
    checker.diagnose(got, expected, mistakes, tolerance=NEAR)
    steep = _Counted(stretch=500.0)  # probabilities that underflow
    with torch.no_grad():
        far = oracle.completion_logprobs(steep, WORD_WORLD, "pan")[picks]
    for row, truth in zip(rows, far, strict=True):
        number = checker.as_numbers(
            score(steep, prompt_id, row.clone()), shape=(), what="the answer"
        )
        assert abs(float(number - truth)) < 1e-3 * (1 + abs(float(truth))), (
            f"with logits in the hundreds this gives {float(number):g} and not {float(truth):.1f}: "
            "probabilities underflow to 0. Add log-probabilities, from log_softmax."
        )
    checker.passed("1.1", f"{len(rows)} completions of 1 to 4 words, ended and cut, all exact.")


def _wrong_scores(
    policy: Policy, prompt_id: int, rows: list[Tensor], expected: Tensor
) -> dict[str, Tensor]:
    """What each usual mistake makes of the scores of these completions."""
    logits = [policy(torch.cat([torch.tensor([prompt_id]), row])[None])[0] for row in rows]
    aligned = [_chosen(z[:-1].log_softmax(-1), x) for z, x in zip(logits, rows, strict=True)]
    shifted = [_chosen(z[1:].log_softmax(-1), x) for z, x in zip(logits, rows, strict=True)]
    raw = [_chosen(z[:-1], x) for z, x in zip(logits, rows, strict=True)]
    without_end = [p[: len(p) - int(x[-1] == EOS_ID)] for p, x in zip(aligned, rows, strict=True)]
    total = lambda parts: torch.stack([part.sum() for part in parts])  # noqa: E731
    return {
        "this is the probability, not its logarithm: take the sum of the logs.": expected.exp(),
        "this is minus the log-probability (the loss): the sign is turned.": -expected,
        "this is the mean over tokens; a probability is a product, so its log is the sum.": (
            torch.stack([part.mean() for part in aligned])
        ),
        "EOS is missing: the `.` that ends a text is an action and must be scored.": (
            total(without_end)
        ),
        "the last token is missing: every word of the completion must be scored.": (
            total([part[:-1] for part in aligned])
        ),
        "the first token is missing: the logits at the prompt score it.": (
            total([part[1:] for part in aligned])
        ),
        "shifted by one: the logits at position t−1 score token t, not those at t.": (
            total(shifted)
        ),
        "these are sums of logits: normalise with log_softmax first.": total(raw),
    }


def _chosen(rows: Tensor, words: Tensor) -> Tensor:
    return rows.gather(-1, words[:, None])[:, 0]


def exercise_2(sample: Callable[[Policy, int, int, int, torch.Generator], Any]) -> None:
    """`sample(policy, prompt_id, eos_id, max_length, generator)` draws one completion.

    Args:
        sample: the reader's function; returns a list of word ids, EOS included.
    Raises:
        AssertionError: with a diagnosis.
    """
    policy, every = _Remembered(_peaked_table(std=2.0)), oracle.enumerate_completions(WORD_WORLD)
    prompt_id, generator = WORD_WORLD.prompt_id("pan"), torch.Generator().manual_seed(0)
    arguments = (policy, prompt_id, EOS_ID, WORD_WORLD.max_length)
    if checker.is_stub("1.2", sample(*arguments, generator)):
        return
    index = {text: i for i, text in enumerate(every.texts)}
    counts, draws = torch.zeros(len(index)), 6000
    for _ in range(draws):
        row = _checked_sample(sample, arguments, generator)
        counts[index[WORD_WORLD.decode(row)]] += 1
    for _ in range(50):  # another end and another limit: nothing may be written into the code
        _checked_sample(sample, (policy, prompt_id, 2, 3), generator)
    again = [list(sample(*arguments, torch.Generator().manual_seed(5))) for _ in range(4)]
    assert again[0] == again[1] == again[2] == again[3], (
        "the same generator state gave different completions: pass generator= to torch.multinomial."
    )
    assert (counts > 0).sum() > 1, (
        "every draw is the same: this takes the argmax instead of sampling, or makes a generator "
        "of its own at every call."
    )
    with torch.no_grad():
        expected = oracle.completion_logprobs(policy, WORD_WORLD, "pan").exp()
    p_value = oracle.chi_square_p_value(counts, expected)
    assert p_value > 1e-4, (
        f"{draws} draws do not look like the exact joint (χ² p-value {p_value:.1e}). Is each word "
        "drawn from softmax(logits) at the last position, given the prompt and all words so far?"
    )
    checker.passed("1.2", f"{draws} draws agree with the exact joint (χ² p-value {p_value:.1e}).")


def _checked_sample(
    sample: Callable[..., Any], arguments: tuple[Policy, int, int, int], generator: torch.Generator
) -> list[int]:
    """One completion, after the rules of the game were checked."""
    _, prompt_id, eos_id, max_length = arguments
    row = [int(token) for token in sample(*arguments, generator)]
    assert row, "a completion is empty: the EOS that ends it is its last word, so keep it."
    assert prompt_id not in row, f"{row}: return the completion alone, without the prompt."
    assert eos_id not in row[:-1], f"{row} goes on after eos_id={eos_id}: stop when it is drawn."
    assert len(row) <= max_length, f"{row} is longer than max_length={max_length}."
    assert row[-1] == eos_id or len(row) == max_length, (
        f"{row} neither ends with eos_id={eos_id} nor reaches the limit of {max_length} words. "
        "EOS belongs to the completion."
    )
    return row


def exercise_3(completion_mask: Callable[[Tensor, int], Any]) -> None:
    """`completion_mask(completion_ids, eos_id)` is True up to and including the first EOS.

    Args:
        completion_mask: the reader's function on (B, T) ids.
    Raises:
        AssertionError: with a diagnosis.
    """
    ids = torch.tensor([[2, 4, 4, 4], [1, 2, 4, 0], [4, 3, 3, 3], [0, 1, 2, 3], [2, 4, 3, 4]])
    lengths = torch.tensor([2, 3, 1, 4, 2])
    given = ids.clone()
    got = completion_mask(given, EOS_ID)
    if checker.is_stub("1.3", got):
        return
    assert torch.equal(given, ids), "the function wrote into its argument; make a new tensor."
    assert getattr(got, "dtype", None) == torch.bool, "return a tensor of dtype bool."
    expected = torch.arange(4) < lengths[:, None]
    checker.diagnose(
        checker.as_numbers(got, shape=(5, 4), what="the mask"),
        expected.double(),
        {message: mask.double() for message, mask in _wrong_masks(ids, expected).items()},
    )
    wider = checker.as_numbers(
        completion_mask(torch.tensor([[4, 4, 7, 7, 4], [1, 2, 3, 4, 5]]), 7),
        shape=(2, 5),
        what="the mask for another eos_id and T = 5",
    )
    by_hand = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).double()
    checker.diagnose(wider, by_hand, {})
    checker.passed("1.3", "EOS kept, padding out, pad = EOS and missing EOS both handled.")


def _wrong_masks(ids: Tensor, expected: Tensor) -> dict[str, Tensor]:
    """What each usual mistake makes of the mask of these five completions."""
    is_eos = ids == EOS_ID
    has_end = is_eos.any(-1, keepdim=True)
    first_column = torch.arange(4) == 0
    return {
        "EOS itself is masked out: then stopping is never scored, and never learned.": (
            expected & ~is_eos
        ),
        "this masks every EOS id wherever it stands: mask by position, not by id.": ~is_eos,
        "tokens after the first EOS are still in: they are padding, whatever their id.": (
            torch.ones(5, 4)
        ),
        "what stands between the first and the second EOS is still in.": is_eos.cumsum(-1) <= 1,
        "a second EOS counts as the end: take the first one.": (
            torch.arange(4) < torch.tensor([4, 3, 1, 4, 4])[:, None]
        ),
        "torch.roll brings the last column round to the first: nothing stands before the first.": (
            is_eos.cumsum(-1).roll(1, -1) == 0
        ),
        "torch.roll brings an EOS of the last column round to the first.": (
            is_eos.roll(1, -1).cumsum(-1) == 0
        ),
        "a row without EOS has no end to find: all of its tokens count.": expected & has_end,
        "argmax of a row without EOS is 0, which is no end: all of its tokens count.": (
            torch.where(has_end, expected, first_column)
        ),
    }


def exercise_4(min_p_probs: Callable[[Tensor, float], Any]) -> None:
    """`min_p_probs(logits, min_p)`: the distribution that a min-p sampler draws from.

    Args:
        min_p_probs: the reader's function on (..., V) logits.
    Raises:
        AssertionError: with a diagnosis.
    """
    # The second row is 100 times the weights (1, 9, 3, 2, 5), so that its logits are larger.
    weights = torch.tensor([[8, 1, 4, 2, 1.5], [100, 900, 300, 200, 500]], dtype=torch.float64)
    logits = weights.log()
    given = logits.clone()
    got = min_p_probs(given, 0.4)
    if checker.is_stub("1.4", got):
        return
    assert torch.equal(given, logits), "the function wrote into its argument; make a new tensor."
    # By hand: 0.4 · 8 = 3.2 keeps 8 and 4, that is 2/3 and 1/3; 0.4 · 9 = 3.6 keeps 9 and 5.
    expected = torch.tensor(
        [[2 / 3, 0, 1 / 3, 0, 0], [0, 9 / 14, 0, 0, 5 / 14]], dtype=torch.float64
    )
    full, kept = logits.softmax(-1), expected > 0
    only = lambda mask: logits.masked_fill(~mask, -math.inf).softmax(-1)  # noqa: E731
    checker.diagnose(
        checker.as_numbers(got, shape=(2, 5), what="the probabilities"),
        expected,
        {
            "the rest is dropped but not renormalised: the kept probabilities must sum to 1.": (
                full * kept
            ),
            "these are the model's own probabilities: nothing was dropped.": full,
            "the softmax runs over the wrong dimension: each row must sum to 1.": (
                logits.masked_fill(~kept, -math.inf).softmax(0)
            ),
            "dropped words got logit 0 instead of −inf: exp(0) is not 0.": (
                logits.masked_fill(~kept, 0.0).softmax(-1)
            ),
            "the softmax was taken twice.": (full * kept).masked_fill(~kept, -math.inf).softmax(-1),
            "the sum that renormalises runs over all rows; each row has its own.": (
                full * kept / (full * kept).sum()
            ),
            "the threshold is min_p itself; it should be min_p times the largest probability.": (
                only(full >= 0.4)
            ),
            "the threshold compares logits; it is a share of the largest probability.": (
                only(logits >= 0.4 * logits.max(dim=-1, keepdim=True).values)
            ),
            "this keeps what min-p drops: the comparison is turned.": only(~kept),
        },
        tolerance=NEAR,
    )
    _more_logits(min_p_probs, logits, expected)
    checker.passed("1.4", "renormalised, zero elsewhere, any shape, row by row.")


def _more_logits(
    min_p_probs: Callable[[Tensor, float], Any], logits: Tensor, expected: Tensor
) -> None:
    """Uneven rows, the extremes of min_p, lower logits, and other shapes."""
    uneven = torch.tensor([[9.0, 1, 1, 1, 1], [3, 2.5, 2, 1.5, 1]], dtype=torch.float64)
    by_hand = torch.tensor([[1.0, 0, 0, 0, 0], [1 / 3, 2.5 / 9, 2 / 9, 1.5 / 9, 0]]).double()
    row_by_row = checker.as_numbers(
        min_p_probs(uneven.log(), 0.4), shape=(2, 5), what="uneven rows"
    )
    probs = uneven / uneven.sum(-1, keepdim=True)
    of_all = probs.masked_fill(probs < 0.4 * probs.max(), 0.0)
    checker.diagnose(
        row_by_row,
        by_hand,
        {
            "the threshold takes the largest probability of all rows; each row has its own.": (
                of_all / of_all.sum(-1, keepdim=True)
            )
        },
        tolerance=NEAR,
    )
    top = torch.eye(5, dtype=torch.float64)[[0, 1]]
    for min_p, answer in ((1e-9, logits.softmax(-1)), (1.0, top)):
        whole = checker.as_numbers(min_p_probs(logits, min_p), shape=(2, 5), what=f"{min_p=}")
        strict = (
            "at min_p = 1 nothing is left: “at least” keeps what equals the threshold: >=, not >."
        )
        assert min_p < 1.0 or not whole.isnan().all(), strict  # no word left: 0 / 0
        nothing = {strict: 0 * top} if min_p == 1.0 else {}
        checker.diagnose(whole, answer, nothing, tolerance=NEAR)
    lower = checker.as_numbers(min_p_probs(logits - 200, 0.4), shape=(2, 5), what="lower logits")
    assert torch.allclose(lower, expected, rtol=0, atol=1e-4), (
        "with 200 less on every logit, which changes no probability, the answer is another: the "
        "logit of a dropped word must be −inf, as no other number is low enough."
    )
    for shape in ((5,), (1, 2, 5)):
        values = logits[0] if shape == (5,) else logits[None]
        part = checker.as_numbers(min_p_probs(values, 0.4), shape=shape, what=f"logits {shape}")
        answer = expected[0] if shape == (5,) else expected[None]
        checker.diagnose(part, answer, {}, tolerance=NEAR)


def exercise_5(answers: Mapping[str, Any]) -> None:
    """Four numbers of the uniform policy, by thinking.

    Args:
        answers: `p_good_stop`, `p_cut`, `expected_length`, `entropy`.
    Raises:
        AssertionError: with a diagnosis.
    """
    uniform, every = tables.TablePolicy(WORD_WORLD), oracle.enumerate_completions(WORD_WORLD)
    with torch.no_grad():
        probs = oracle.completion_logprobs(uniform, WORD_WORLD, "praise").exp()
        expected = {
            "p_good_stop": probs[every.texts.index("good .")],
            "p_cut": probs[~every.finished].sum(),
            "expected_length": probs @ every.lengths.double(),
            "entropy": oracle.entropy(uniform, WORD_WORLD, "praise"),
        }
    mistakes: dict[str, dict[str, Tensor | float]] = {
        "p_good_stop": {
            "1/5 is `good` alone: the `.` that ends it has a probability too.": 1 / 5,
            "completions are not equally probable: short ones have fewer factors.": 1 / 341,
        },
        "p_cut": {
            "a cut completion has four words that are not `.`, one factor each.": 4 / 5,
            "that is the share of the list, not its probability.": 256 / 341,
            "that is what ended; asked is what was cut.": 1 - 0.8**4,
        },
        "expected_length": {
            "that is the plain average over the list; weight it by probability.": (
                every.lengths.double().mean()
            ),
            "that would be without the limit of four words.": 5.0,
            "the cut completions count too, with four words each.": (
                probs[every.finished] @ every.lengths[every.finished].double()
            ),
            "that counts a fifth word, which the limit forbids.": 2.952 + 0.8**4,
            "the first word is always written: its term is 1.": 2.952 + 0.8**4 - 1,
        },
        "entropy": {
            "log 341 would need 341 equally probable completions.": math.log(341),
            "log 5 is the entropy of one word; each further step adds its own.": math.log(5),
            "the number of steps is not always 4: use the expected length.": 4 * math.log(5),
            "nats, please: use the natural logarithm.": expected["entropy"] / math.log(2),
        },
    }
    if checker.predicted_numbers("1.5", answers, expected, mistakes):
        checker.passed("1.5", "all four agree with the enumeration.")


def exercise_6(hiding_policy: Policy) -> None:
    """A policy, not uniform, on which the shifted scorer is never caught.

    Args:
        hiding_policy: the reader's function from ids (B, L) to logits (B, L, 5).
    Raises:
        AssertionError: the bug shows, or the policy is too simple.
    """
    probe = torch.tensor(
        [[WORD_WORLD.prompt_id("praise"), 0, 2, 3], [WORD_WORLD.prompt_id("pan"), 1, 2, 0]]
    )
    answer = hiding_policy(probe)
    if checker.is_stub("1.6", answer):
        return
    logits = checker.as_numbers(answer, shape=(2, 4, 5), what="the logits for ids (2, 4)")
    assert bool(logits.isfinite().all()), (
        "a logit is infinite or nan: −inf makes a word impossible. Every word wants a probability "
        "above 0."
    )
    other_end = checker.as_numbers(
        hiding_policy(torch.cat([probe[:, :3], probe[:, :1] * 0 + 1], dim=1)),
        shape=(2, 4, 5),
        what="the logits",
    )
    assert torch.allclose(logits[:, :3], other_end[:, :3]), (
        "the logits at a position depend on a later word: a policy cannot look ahead."
    )
    probs = logits.softmax(-1)[:, 0]  # (2, 5)
    gaps = (probs[:, :, None] - probs[:, None]).abs() + torch.eye(5)
    assert gaps.min() > 1e-6, (
        "two words have the same probability. The uniform policy hides the bug too, but it is too "
        "easy: give all five words different probabilities, under both prompts."
    )
    for prompt in WORD_WORLD.prompts:
        right, wrong = _right_and_shifted_totals(hiding_policy, WORD_WORLD, prompt)
        worst = float((right - wrong).abs().max())
        assert worst < 1e-9, (
            f"the bug shows under `{prompt}`: some completion's score differs by {worst:.3f} nats. "
            "The two scorers read different positions; what must not depend on the position?"
        )
    checker.passed("1.6", "all 682 scores agree with the bug in place. So test on other policies.")


def _right_and_shifted_totals(
    policy: Policy, world: TokenWorld, prompt: str
) -> tuple[Tensor, Tensor]:
    """Two (N,) tensors, nats: scored with logits[t−1], as is right, and with logits[t].

    The policy must read the prompt and T words: the shifted scorer looks one position too far.
    """
    every = oracle.enumerate_completions(world)
    column = torch.full((len(every.lengths), 1), world.prompt_id(prompt))
    ids = torch.cat([column, every.completion_ids], dim=1)  # (N, 1+T)
    with torch.no_grad():
        logits = policy(ids)  # (N, 1+T, A)
    mask = logprobs.mask_from_lengths(every.lengths, world.max_length)
    aligned = logprobs.token_logprobs(logits[:, :-1], every.completion_ids)
    shifted = logprobs.token_logprobs(logits[:, 1:], every.completion_ids)
    return logprobs.sequence_logprobs(aligned, mask), logprobs.sequence_logprobs(shifted, mask)


def exercise_7(entropy_by_steps: Callable[[list[Tensor]], Any]) -> None:
    """`entropy_by_steps(levels)`: the entropy of whole completions, from the conditionals alone.

    Args:
        entropy_by_steps: the reader's function of `oracle.state_logprobs(...)`.
    Raises:
        AssertionError: with a diagnosis.
    """
    policies: list[Policy] = [
        tables.TablePolicy(WORD_WORLD, std=1.0, generator=torch.Generator().manual_seed(11)),
        tables.tabulate(
            models.as_policy(tiny_models.word_transformer(WORD_WORLD, seed=7)), WORD_WORLD
        ),
    ]
    cases = [(policy, prompt) for policy in policies for prompt in WORD_WORLD.prompts]
    with torch.no_grad():
        levels = [oracle.state_logprobs(policy, WORD_WORLD, prompt) for policy, prompt in cases]
        expected = torch.stack(
            [oracle.entropy(policy, WORD_WORLD, prompt) for policy, prompt in cases]
        )
    first = entropy_by_steps(levels[0])
    if checker.is_stub("1.7", first):
        return
    got = torch.stack(
        [
            checker.as_numbers(entropy_by_steps(case), shape=(), what="the entropy")
            for case in levels
        ]
    )
    checker.diagnose(got, expected, _wrong_entropies(levels, expected), tolerance=NEAR)
    checker.passed("1.7", "the chain rule of entropy holds on four distributions.")


def _wrong_entropies(levels: list[list[Tensor]], expected: Tensor) -> dict[str, Tensor]:
    """What each usual mistake makes of the entropies of these distributions."""
    local = [[-(level.exp() * level).sum(-1) for level in case] for case in levels]
    last_step = [
        [torch.ones(1).double(), *(level[:, :4].exp().reshape(-1) for level in case[:-1])]
        for case in levels
    ]
    return {
        "each state counts as if it were reached for sure: weight it by p(prefix).": (
            torch.stack([sum(h.sum() for h in case) for case in local])  # type: ignore[misc]
        ),
        "that is the mean over the states of a level: weight them by p(prefix).": (
            torch.stack([sum(h.mean() for h in case) for case in local])  # type: ignore[misc]
        ),
        "d(s) is a product: multiply a word's probability by the d(s) of the level above.": (
            torch.stack(
                [
                    sum(r @ h for r, h in zip(reach, case, strict=True))  # type: ignore[misc]
                    for reach, case in zip(last_step, local, strict=True)
                ]
            )
        ),
        "that is the first word's entropy alone; add what comes after.": (
            torch.stack([case[0][0] for case in local])
        ),
        "the sign is turned: entropy is −Σ p log p.": -expected,
        "nats, please: use the natural logarithm.": expected / math.log(2),
    }
