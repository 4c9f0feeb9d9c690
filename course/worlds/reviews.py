"""The reviews world: a grammar of short film reviews, its prompts, and the reward for praise.

Its probabilities, its entropy and its mean sentiment are known exactly (`grammar`).
"""

import math
from collections.abc import Sequence

from course.worlds import grammar, word_world
from course.worlds.grammar import Grammar
from helpers import contract

# --------------------------------------------------------------------------- reviews world

NOUNS = ("film", "plot", "cast", "ending", "music", "script", "dialogue", "acting", "pacing")
POSITIVE = (
    "wonderful",
    "charming",
    "brilliant",
    "funny",
    "moving",
    "clever",
    "superb",
    "fresh",
    "lovely",
    "good",
)
NEGATIVE = (
    "dull",
    "boring",
    "awful",
    "clumsy",
    "bland",
    "tedious",
    "silly",
    "weak",
    "dreadful",
    "bad",
)
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
    sides = (
        ("+", "-", "GOOD", "POOR", LIKED, PRAISE_NOUNS, 1),
        ("-", "+", "POOR", "GOOD", DISLIKED, BLAME_NOUNS, -1),
    )
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
    return [_count_polarity(text.split()) for _, text in word_world.zip_texts(prompts, completions)]


def _count_polarity(words: list[str]) -> float:
    pairs = zip(["", *words], words, strict=False)
    return float(sum(_POLARITY.get(w, 0) * (-1 if before == "not" else 1) for before, w in pairs))


def completion_grammar(reviews: grammar.Grammar = REVIEWS) -> grammar.Grammar:
    """What the grammar writes after a prompt “the NOUN”, whichever noun it is.

    Its exact entropy, length and sentiment are those of completions, where the whole reviews'
    would count the first clause's noun, and the reviews that start otherwise.

    Args:
        reviews: a grammar of `reviews_grammar`.
    """
    weights: dict[str, list[tuple[float, str, float]]] = {
        symbol: [(math.exp(logp), " ".join(right), score) for logp, right, score in options]
        for symbol, options in reviews.rules.items()
    }
    weights["COMPLETION"] = [
        (math.exp(side + rule), " ".join((*right[2:], *rest)), score + more)
        for side, (clause, *rest), score in reviews.rules["REVIEW"]
        for rule, right, more in reviews.rules[clause]
        if right[:2] == ("the", "NOUN")
    ]
    return grammar.Grammar("COMPLETION", weights)


contract.hold(globals())
