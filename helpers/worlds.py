"""The worlds that the course's policies act in, with their rewards as plain functions.

A reward function maps `(prompts, completions)`, two lists of strings of one length, to a list
of floats. It sees text and nothing else: no model, no gradient.

The **word world** is small enough to list: 341 completions a prompt. The **reviews world** is
a grammar of short film reviews whose probabilities, entropy and sentiment are known exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from helpers.grammar import Grammar

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
    """Pair prompts with completions, and refuse lists of different length.

    Raises:
        ValueError: the lengths differ, or a bare string was passed for a list.
    """
    if isinstance(prompts, str) or isinstance(completions, str):
        raise ValueError("prompts and completions must be lists of strings, not one string.")
    if len(prompts) != len(completions):
        raise ValueError(
            f"got {len(prompts)} prompts and {len(completions)} completions: one prompt for each "
            "completion, please (repeat a prompt for every member of its group)."
        )
    return list(zip(prompts, completions, strict=True))


@dataclass(frozen=True)
class TokenWorld:
    """Prompts, words and a limit so small that every completion can be listed.

    Token ids: the words come first (0 … A−1, these are the actions), then the prompts
    (A, A+1, …), which a policy reads but never writes.
    """

    words: tuple[str, ...]  # the A actions; if `ends` the last of them ends a completion
    prompts: tuple[str, ...]
    max_length: int  # T: a completion has at most this many words, the last one included
    reward: RewardFunction
    ends: bool = True  # False: only the limit ends a completion

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
        """Words separated by spaces."""
        return " ".join(self.words[int(token)] for token in token_ids)


WORD_WORLD = TokenWorld(
    words=("not", "very", "good", "bad", "."),
    prompts=("praise", "pan"),
    max_length=4,
    reward=adjective_reward,
)


# --------------------------------------------------------------------------- reviews world

NOUNS = ("film", "plot", "cast", "ending", "music", "script", "dialogue", "acting", "pacing")
POSITIVE = (
    "wonderful", "charming", "brilliant", "funny", "moving",
    "clever", "superb", "fresh", "lovely", "good",
)  # fmt: skip
NEGATIVE = (
    "dull", "boring", "awful", "clumsy", "bland",
    "tedious", "silly", "weak", "dreadful", "bad",
)  # fmt: skip
LIKED, DISLIKED = ("loved", "enjoyed", "admired"), ("hated", "regretted", "endured")
PRAISE_NOUNS, BLAME_NOUNS = ("treat", "triumph", "gem"), ("mess", "bore", "flop")


def reviews_grammar(praise: float = 0.4) -> Grammar:
    """The reviews of two critics: one starts with praise, the other with blame.

    Rules are nonterminal → [(weight, symbols, sentiment)]; + and − are kinds of clause. The
    first clause says which critic writes, so that a text has one derivation in the mixture too.

    Args:
        praise: in [0, 1], share of the reviews that start with praise. In the course's own
            grammar, `REVIEWS`, it is 0.4: critics are hard to please.
    Raises:
        ValueError: praise is not a share.
    """
    if not 0 <= praise <= 1:
        raise ValueError(f"praise must lie in [0, 1], got {praise}.")
    critics = [(5 * praise, "CLAUSE+ REST+", 0.0), (5 * (1 - praise), "CLAUSE- REST-", 0.0)]
    rules: dict[str, list[tuple[float, str, float]]] = {
        "REVIEW": [rule for rule in critics if rule[0] > 0],
        "NOUN": [(1 / (rank + 2), noun, 0) for rank, noun in enumerate(NOUNS)],
        "VERB": [(4, "was", 0), (2, "felt", 0), (2, "seemed", 0), (1, "looked", 0)],
        "DEGREE": [(3, "very", 0), (2, "rather", 0), (1, "truly", 0), (1, "quite", 0)],
        "PERSON": [(3, "i", 0), (1, "we", 0)],
        "GOOD": [(1 / (rank + 2), word, 0) for rank, word in enumerate(reversed(POSITIVE))],
        "POOR": [(1 / (rank + 2), word, 0) for rank, word in enumerate(reversed(NEGATIVE))],
    }
    sides = (("+", "-", "GOOD", "POOR", LIKED, PRAISE_NOUNS, 1),
             ("-", "+", "POOR", "GOOD", DISLIKED, BLAME_NOUNS, -1))  # fmt: skip
    for side, other, adjective, opposite, verbs, nouns, sign in sides:
        rules |= {
            f"CLAUSE{side}": [
                (3, f"the NOUN VERB PHRASE{side}", 0),
                (1, f"PERSON OPINION{side} the NOUN", 0),
            ],
            f"PHRASE{side}": [
                (5, adjective, sign),
                (4, f"DEGREE {adjective}", sign),
                (2, f"not {opposite}", sign),
            ],
            f"OPINION{side}": [(1, verb, sign) for verb in verbs],
            f"REST{side}": [
                (6, ".", 0),
                (2, f"and CLAUSE{side} REST{side}", 0),
                (1.5, f"but CLAUSE{other} REST{other}", 0),
                (0.5, f"but CLAUSE{side} REST{side}", 0),
                (2, f". what a VERDICT{side} .", 0),
            ],
            f"VERDICT{side}": [(1, noun, sign) for noun in nouns],
        }
    return Grammar("REVIEW", rules)


REVIEWS = reviews_grammar()
REVIEW_PROMPTS = tuple(f"the {noun}" for noun in NOUNS)

_POLARITY = {word: 1 for word in (*POSITIVE, *LIKED, *PRAISE_NOUNS)}
_POLARITY |= {word: -1 for word in (*NEGATIVE, *DISLIKED, *BLAME_NOUNS)}


def sentiment_reward(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Positive minus negative words; `not` right before a word flips it.

    On a review of the grammar this is exactly the sentiment of its derivation. On any other
    text it still counts, which is the loophole that a policy will find: repeat.

    Args:
        prompts: B strings; only their number matters.
        completions: B strings of words separated by spaces.
    Returns:
        B floats.
    """
    return [_count_polarity(text.split()) for _, text in zip_texts(prompts, completions)]


def _count_polarity(words: list[str]) -> float:
    pairs = zip(["", *words], words, strict=False)
    return float(sum(_POLARITY.get(w, 0) * (-1 if before == "not" else 1) for before, w in pairs))
