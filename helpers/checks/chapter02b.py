"""Checkers of chapter 02, continued: a strict verifier, and the floor given a prompt."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from helpers import checks
from helpers.grammar import Grammar

NEAR = 1e-5  # float32 is welcome
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
        "０８２", "٠٨٢", "²"],
    "this repeats the question: is the text evaluated? Never evaluate a text.": ["37+45"],
    "only the digits: no quotes, stars or other dress.": [
        '"082"', "'082'", "**082**", "*082*", "`082`", "“082”", "(082)", "$082$"],
    "a number, but not in the wanted form.": ["82.0", "082.", ".082", "0x52"],
    "the right number stands somewhere: a list of all numbers would be paid too.": [
        "081 082", "082 or so", "81,082", "082,81", "37+45=082", "=082"],
    "the sum is wrong.": ["081"],
    "the digits are right, their order is not.": ["280"],
    "an empty completion is no answer.": [""],
}  # fmt: skip


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
    if checks.is_stub("2.4", values):
        return
    got = checks.as_numbers(values, shape=(len(right),), what="one reward for each completion")
    for prompt, text, value in zip(prompts, right, got.tolist(), strict=True):
        assert value == 1.0, f"{prompt} {text} is right and in the right form, but earns {value}."
    odd = [(text, message) for message, texts in _NOT_PAID.items() for text in texts]
    for text, message in odd:
        answer = ask(["37+45="], [text], f"the completion {text[:20]!r}")
        value = float(checks.as_numbers(answer, shape=(1,), what="the reward"))
        assert value == 0.0, f"{text[:20]!r} earns {value}: {message}"
    all_of_them = ask(["37+45="] * 1000, [f"{n:03d}" for n in range(1000)], "three digits")
    paid = checks.as_numbers(all_of_them, shape=(1000,), what="the rewards")
    assert paid.nonzero().flatten().tolist() == [82], "another three-digit string is paid too."
    others = ask(prompts, right[1:] + right[:1], "answers to other prompts")
    paid = checks.as_numbers(others, shape=(len(prompts),), what="the rewards")
    assert paid.sum() == 0, "the answer to another prompt is paid: look at its own prompt."
    checks.passed("2.4", f"{len(odd)} odd completions and 999 wrong ones earn nothing.")


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
    if checks.is_stub("2.7", first):
        return
    answers = [first, *(floor_given_prompt(g, k) for g, _, k in cases[1:])]
    got = torch.stack([checks.as_numbers(a, shape=(), what="the floor") for a in answers])
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
    checks.diagnose(got, expected, mistakes, tolerance=NEAR)
    checks.passed("2.7", f"{len(cases)} cases agree with a list of all texts.")


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
