"""The word world, whose 341 completions per prompt can all be listed, and what a world of words is.

A reward function maps `(prompts, completions)`, two lists of strings of one length, to a list
of floats. It sees text and nothing else: no model, no gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from course.worlds import phrases  # noqa: F401  (what docstrings say of arguments)
from helpers import contract

RewardFunction = Callable[[Sequence[str], Sequence[str]], list[float]]


# ------------------------------------------------------------------------------ word world


def adjective_reward(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Reward of the word world: does the completion say what the prompt asks for?

    Each adjective scores +1 (`good`) or −1 (`bad`); in the run of modifiers right before it
    every `not` flips the score and every `very` doubles it. The sum is clipped to [−2, 2] and
    multiplied by −1 under the prompt `pan`. A completion that does not end with `.` gets −1
    whatever it says.

    Args:
        prompts: B strings, `praise` or `pan`.
        completions: B strings of words separated by spaces.
    Returns:
        B floats in [−2, 2].
    """
    return [_score_words(prompt, text.split()) for prompt, text in zip_texts(prompts, completions)]


def _score_words(prompt: str, words: list[str]) -> float:
    if not words or words[-1] != ".":
        return -1.0
    score, factor = 0.0, 1.0
    for word in words:
        factor *= {"not": -1.0, "very": 2.0}.get(word, 1.0)
        if word in ("good", "bad"):
            score += factor if word == "good" else -factor
            factor = 1.0
    score = max(-2.0, min(2.0, score))
    return -score if prompt == "pan" else score


def zip_texts(prompts: Sequence[str], completions: Sequence[str]) -> list[tuple[str, str]]:
    """Pair prompts with completions.

    Args:
        prompts: B strings, one for each completion.
        completions: B strings.
    """
    return list(zip(prompts, completions, strict=True))


@dataclass(frozen=True)
class TokenWorld:
    """Prompts, words and a limit so small that every completion can be listed.

    Token ids: the words come first (0 … A−1, these are the actions), then the prompts
    (A, A+1, …), which a policy reads but never writes.
    """

    words: tuple[str, ...]  # A actions, A ≥ 1, all different; if `ends` the last one ends a text
    prompts: tuple[str, ...]  # P strings, P ≥ 1, all different
    max_length: int  # T ≥ 1: a completion has at most this many words, the last one included
    reward: RewardFunction
    ends: bool = True  # False: only the limit ends a completion

    @property
    def sizes(self) -> dict[str, Any]:
        """What is said of other arguments is about these letters (`helpers.contract`)."""
        n, ends, depth = self.num_continuing, len(self.eos_ids), self.max_length
        states = sum(n**k for k in range(depth))
        found = {"A": self.num_actions, "V": self.vocab_size, "T": depth, "n": n, "S": states}
        return (
            found
            | {"N": states * ends + n**depth, "P": len(self.prompts)}
            | {"prompts": self.prompts}
        )

    @property
    def num_actions(self) -> int:
        """A: the width of a policy's logits."""
        return len(self.words)

    @property
    def vocab_size(self) -> int:
        """A plus the number of prompts: ids that a policy must be able to read."""
        return len(self.words) + len(self.prompts)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end a completion."""
        return (len(self.words) - 1,) if self.ends else ()

    @property
    def num_continuing(self) -> int:
        """Words that do not end the completion: ids 0 … num_continuing−1."""
        return len(self.words) - len(self.eos_ids)

    def prompt_id(self, prompt: str) -> int:
        """Token id of a prompt.

        Raises:
            ValueError: this world has no such prompt.
        """
        if prompt not in self.prompts:
            raise ValueError(f"no prompt {prompt!r} in this world; it has {list(self.prompts)}.")
        return len(self.words) + self.prompts.index(prompt)

    def encode(self, text: str) -> list[int]:
        """Token ids of words separated by spaces.

        Raises:
            ValueError: a word is not in this world's vocabulary.
        """
        unknown = [word for word in text.split() if word not in self.words]
        if unknown:
            raise ValueError(f"unknown words {unknown}; this world has {list(self.words)}.")
        return [self.words.index(word) for word in text.split()]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Words separated by spaces.

        Args:
            token_ids: in [0, A).
        """
        return " ".join(self.words[int(token)] for token in token_ids)


def plus_ten(prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
    """The word world's reward, 10 higher for every text.

    Args:
        prompts: B strings.
        texts: B strings.
    """
    return [reward + 10 for reward in adjective_reward(prompts, texts)]


def pass_or_fail(prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
    """1 if the word world's reward is above 0, else 0.

    Args:
        prompts: B strings.
        texts: B strings.
    """
    return [float(reward > 0) for reward in adjective_reward(prompts, texts)]


def one_text(prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
    """1 for “very good .”, 0 for the 340 other texts, whatever the prompt.

    Args:
        prompts: B strings.
        texts: B strings.
    """
    return [float(text == "very good .") for _, text in zip_texts(prompts, texts)]


contract.hold(globals())

WORD_WORLD = TokenWorld(
    words=("not", "very", "good", "bad", "."),
    prompts=("praise", "pan"),
    max_length=4,
    reward=adjective_reward,
)

REWARDS: dict[str, RewardFunction] = {
    "the word world's": adjective_reward,
    "the word world's + 10": plus_ten,
    "pass or fail (0 or 1)": pass_or_fail,
    "only “very good .”": one_text,
}
