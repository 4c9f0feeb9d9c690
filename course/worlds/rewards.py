"""Rewards of the course beyond the two that define its worlds: rules, verifiers, a learned model.

Each is a function `(prompts, completions) → floats`, as in `word_world`, and each can be gamed
except the strict verifier; chapter 02 shows with what. A text is parsed, never evaluated.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course.worlds import reviews, word_world
from helpers import contract, settings

_ADDITION = re.compile(r"(0|[1-9][0-9]{0,17})\+(0|[1-9][0-9]{0,17})=")  # [0-9]: \d takes more


# ------------------------------------------------------------------------------------- rules


def length_reward(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Number of words of each completion; “.” counts as a word.

    Args:
        prompts: B strings; only their number matters.
        completions: B strings of words separated by spaces.
    Returns:
        B floats, words.
    """
    return [float(len(text.split())) for _, text in word_world.zip_texts(prompts, completions)]


def target_length_reward(
    prompts: Sequence[str], completions: Sequence[str], *, target: int = 8
) -> list[float]:
    """1 at the target length, one `target`-th less for each word too many or too few.

    Args:
        prompts: B strings; only their number matters.
        completions: B strings of words separated by spaces.
        target: the wanted number of words, ≥ 1.
    Returns:
        B floats in [0, 1].
    Raises:
        ValueError: the target is below 1.
    """
    words = length_reward(prompts, completions)
    return [max(0.0, 1.0 - abs(count - target) / target) for count in words]


def sentiment_per_word(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """`reviews.sentiment_reward` divided by the number of words; 0 for an empty completion.

    Args:
        prompts: B strings; only their number matters.
        completions: B strings of words separated by spaces.
    Returns:
        B floats in [−1, 1].
    """
    sentiment = reviews.sentiment_reward(prompts, completions)
    words = length_reward(prompts, completions)
    return [total / max(count, 1.0) for total, count in zip(sentiment, words, strict=True)]


# --------------------------------------------------------------------------------- verifiers


def grammar_reward(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """1 if the grammar could have written prompt and completion to the end, else 0.

    Could have, at any probability above 0: it does not ask whether it ever would.

    Args:
        prompts: B strings, the first words of a review.
        completions: B strings, the rest of it.
    Returns:
        B floats, 0 or 1.
    """
    pairs = word_world.zip_texts(prompts, completions)
    return [float(bool(reviews.REVIEWS.derivations(f"{c} {x}"))) for c, x in pairs]


def addition_answer(prompt: str) -> str:
    """The completion that `37+45=` wants: `082`.

    One digit more than the longer summand has, filled with zeros, so that the length of the
    answer says nothing about the sum.

    Args:
        prompt: two numbers in ASCII digits without leading zeros, `+` between and `=` at the end.
    Raises:
        ValueError: the prompt is anything else, or a number has more than 18 digits.
    """
    parsed = _ADDITION.fullmatch(prompt)  # not match with $: that lets a final newline through
    if parsed is None:
        raise ValueError(
            f"{prompt[:40]!r} is no addition. Write two numbers in the digits 0 to 9, without "
            "leading zeros, signs or spaces, and at most 18 digits each: '37+45='."
        )
    first, second = parsed.groups()
    width = max(len(first), len(second)) + 1
    return f"{int(first) + int(second):0{width}d}"


def addition_reward(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Strict verifier: 1 for the right sum in the right form, else 0.

    A completion is parsed as exactly so many ASCII digits, and then the integers are compared.
    What Python's `int` would also take, as `+82`, ` 82`, `8_2` or `０８２`, is ill-formed.

    Args:
        prompts: B strings such as `37+45=`.
        completions: B strings; the right one is `082`.
    Returns:
        B floats, 0 or 1: one completion a prompt earns 1.
    Raises:
        ValueError: a prompt is no addition.
    """
    values = []
    for prompt, text in word_world.zip_texts(prompts, completions):
        wanted = addition_answer(prompt)
        well_formed = re.fullmatch(r"[0-9]+", text) is not None and len(text) == len(wanted)
        values.append(float(well_formed and int(text) == int(wanted)))
    return values


def lenient_addition_reward(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """A verifier with a hole: 1 if the right number stands anywhere in the completion.

    Args:
        prompts: B strings such as `37+45=`.
        completions: B strings.
    Returns:
        B floats, 0 or 1.
    Raises:
        ValueError: a prompt is no addition.
    """
    values = []
    for prompt, text in word_world.zip_texts(prompts, completions):
        wanted = addition_answer(prompt).lstrip("0")
        values.append(float(wanted in {run.lstrip("0") for run in re.findall(r"[0-9]+", text)}))
    return values


# ----------------------------------------------------------------------------- a learned model


@dataclass(frozen=True)
class RewardModel:
    """A bag of words: the log-odds that a reader would call the completion praise."""

    words: tuple[str, ...]  # V words, all different; any other word counts nothing
    weights: Tensor  # (V,) float64, log-odds a word
    bias: float

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """B log-odds, unbounded: 0 is undecided.

        Args:
            prompts: B strings; only their number matters.
            completions: B strings of words separated by spaces.
        """
        texts = [text for _, text in word_world.zip_texts(prompts, completions)]
        if not texts:
            return []
        values: list[float] = (word_counts(texts, self.words) @ self.weights + self.bias).tolist()
        return values


def word_counts(texts: Sequence[str], words: Sequence[str]) -> Tensor:
    """How often each word occurs in each text; order is forgotten.

    Args:
        texts: B strings of words separated by spaces.
        words: V words to count, all different.
    Returns:
        (B, V) float64, counts.
    """
    rows = [text.split() for text in texts]
    counts = [[float(row.count(word)) for word in words] for row in rows]
    return torch.tensor(counts, dtype=torch.float64).view(len(rows), len(words))


def fit_reward_model(
    texts: Sequence[str], labels: Sequence[float], words: Sequence[str], *, ridge: float = 1.0
) -> RewardModel:
    """Logistic regression on word counts, by Newton's method.

    Args:
        texts: B completions, B ≥ 1.
        labels: B numbers, each 0 or 1: 1 for praise.
        words: V words to count, all different, V ≥ 1.
        ridge: > 0, penalty ½·ridge·‖weights‖², which keeps words that decide alone finite.
    Returns:
        The reward model at the minimum of Σ log-loss + penalty.
    Raises:
        ValueError: not one label of 0 or 1 for each text.
    """
    target = torch.tensor(list(labels), dtype=torch.float64)  # (B,)
    counts = word_counts(texts, words)
    features = torch.cat([counts, torch.ones(len(texts), 1, dtype=torch.float64)], dim=1)
    penalty = torch.full((features.shape[1],), ridge, dtype=torch.float64)
    penalty[-1] = 1e-6  # the bias is free
    theta = torch.zeros(features.shape[1], dtype=torch.float64)
    for _ in range(12):
        probs = (features @ theta).sigmoid()
        gradient = features.T @ (probs - target) + penalty * theta
        curvature = (features.T * (probs * (1 - probs))) @ features + penalty.diag()
        theta = theta - torch.linalg.solve(curvature, gradient)
    return RewardModel(tuple(words), theta[:-1], float(theta[-1]))


def praise_plus_ten(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """`reviews.sentiment_reward`, 10 higher for every text: the same wishes.

    Args:
        prompts: B strings; only their number matters.
        completions: B strings of words separated by spaces.
    Returns:
        B floats.
    """
    return [10 + paid for paid in reviews.sentiment_reward(prompts, completions)]


def one_word(
    prompts: Sequence[str], completions: Sequence[str], *, word: str = "wonderful"
) -> list[float]:
    """How often a word stands in each completion: paid for that word and nothing else.

    Args:
        prompts: B strings; only their number matters.
        completions: B strings of words separated by spaces.
        word: what is paid for.
    Returns:
        B floats.
    """
    pairs = word_world.zip_texts(prompts, completions)
    return [float(text.split().count(word)) for _, text in pairs]


def share_of_reviews(prompts: Sequence[str], completions: Sequence[str]) -> float:
    """Share of texts that the grammar can derive to their end, at whatever probability.

    Args:
        prompts: B strings.
        completions: B strings.
    """
    verdicts = grammar_reward(prompts, completions)
    return sum(verdicts) / max(1, len(verdicts))


contract.hold(globals())
LM_REWARDS: dict[str, settings.Reward] = {
    "praise": reviews.sentiment_reward,
    "praise + 10": praise_plus_ten,
    "praise per word": sentiment_per_word,
    "length": length_reward,
    "times “wonderful”": one_word,
}
