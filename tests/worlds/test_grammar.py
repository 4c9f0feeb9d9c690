"""The grammar's exact quantities against enumeration, by hand and by sampling."""

import math

import pytest
import torch

from course.worlds import reviews
from course.worlds.grammar import Grammar

# S -> a S (1/4) | b (3/4): the text a^k b has probability (1/4)^k 3/4.
GEOMETRIC = Grammar("S", {"S": [(1, "a S", 1.0), (3, "b", 0.0)]})
# S -> A A, A -> x (2/3) | y (1/3): four texts of two words.
SQUARE = Grammar("S", {"S": [(1, "A A", 0.0)], "A": [(2, "x", 1.0), (1, "y", -1.0)]})
# Two derivations of "x": through A and through B.
AMBIGUOUS = Grammar(
    "S", {"S": [(1, "A", 0), (3, "B", 0)], "A": [(1, "x", 0)], "B": [(1, "x", 0), (1, "y", 0)]}
)


def test_geometric_grammar_by_hand():
    assert GEOMETRIC.words == ["a", "b"]
    for k in range(6):
        text = "a " * k + "b"
        assert math.isclose(GEOMETRIC.logprob(text), k * math.log(1 / 4) + math.log(3 / 4))
    # E[k] = (1/4)/(3/4) = 1/3; the entropy of a step is paid 1 + 1/3 times
    step = -(1 / 4) * math.log(1 / 4) - (3 / 4) * math.log(3 / 4)
    assert math.isclose(GEOMETRIC.entropy(), step * 4 / 3)
    assert math.isclose(GEOMETRIC.expected_score(), 1 / 3)
    assert math.isclose(GEOMETRIC.expected_length(), 4 / 3)


def test_square_grammar_by_enumeration():
    texts = {"x x": 4 / 9, "x y": 2 / 9, "y x": 2 / 9, "y y": 1 / 9}
    for text, p in texts.items():
        assert math.isclose(math.exp(SQUARE.logprob(text)), p)
    assert math.isclose(SQUARE.entropy(), -sum(p * math.log(p) for p in texts.values()))
    assert math.isclose(SQUARE.expected_score(), 2 * (2 / 3 - 1 / 3))
    assert SQUARE.next_word("") == pytest.approx({"x": 2 / 3, "y": 1 / 3})
    assert SQUARE.next_word("x x") == {"": 1.0}


def test_what_the_grammar_cannot_write():
    assert SQUARE.logprob("x") == SQUARE.logprob("x x x") == -math.inf
    assert SQUARE.derivations("z") == []
    with pytest.raises(ValueError, match="starts with 'z'"):
        SQUARE.next_word("z")
    with pytest.raises(ValueError, match="starts with 'z'"):
        SQUARE.sample(1, torch.Generator(), prefix="z")


def test_an_ambiguous_text_has_two_derivations_and_the_sum_of_their_probabilities():
    assert len(AMBIGUOUS.derivations("x")) == 2
    assert math.isclose(math.exp(AMBIGUOUS.logprob("x")), 1 / 4 + 3 / 8)
    assert AMBIGUOUS.next_word("") == pytest.approx({"x": 5 / 8, "y": 3 / 8})


def test_conditioning_on_a_prefix():
    assert math.isclose(math.exp(SQUARE.logprob("y", prefix="x")), 1 / 3)
    assert math.isclose(GEOMETRIC.logprob("b", prefix="a a"), math.log(3 / 4))


def test_reviews_are_unambiguous_and_two_routes_agree(generator):
    """Product of rule probabilities against product of next-word probabilities."""
    for text in reviews.REVIEWS.sample(120, generator):
        words = text.split()
        assert len(reviews.REVIEWS.derivations(text)) == 1
        by_words = sum(
            math.log(reviews.REVIEWS.next_word(" ".join(words[:k]))[word])
            for k, word in enumerate([*words, ""])
        )
        assert math.isclose(reviews.REVIEWS.logprob(text), by_words, abs_tol=1e-10)


def test_sampled_reviews_have_the_exact_entropy_and_length(generator):
    texts = reviews.REVIEWS.sample(4000, generator)
    surprise = -torch.tensor([reviews.REVIEWS.logprob(text) for text in texts])
    lengths = torch.tensor([float(len(text.split())) for text in texts])
    for values, exact in (
        (surprise, reviews.REVIEWS.entropy()),
        (lengths, reviews.REVIEWS.expected_length()),
    ):
        error = values.std() / len(values) ** 0.5
        assert abs(values.mean() - exact) < 4 * error


def test_sampling_after_a_prefix_follows_the_conditional(generator):
    # "the film was": next comes an adjective, a degree or `not`; compare with next_word.
    prefix, count = "the film was", 3000
    exact = reviews.REVIEWS.next_word(prefix)
    first = [text.split()[0] for text in reviews.REVIEWS.sample(count, generator, prefix=prefix)]
    assert math.isclose(sum(exact.values()), 1.0)
    for word in ("not", "very", "good", "bad"):
        p = exact[word]
        assert abs(first.count(word) / count - p) < 4 * (p * (1 - p) / count) ** 0.5


def test_and_keeps_the_polarity_and_but_mostly_turns_it():
    after_and = reviews.REVIEWS.next_word("the film was dull and the plot was")
    after_but = reviews.REVIEWS.next_word("the film was dull but the plot was")
    assert "dull" in after_and and "good" not in after_and
    assert after_but["good"] == pytest.approx(3 * after_but["bad"])  # weights 1.5 and 0.5


def test_grammars_without_finite_expectations_are_refused():
    runaway = Grammar("S", {"S": [(2, "a S S", 0.0), (1, "b", 0.0)]})
    with pytest.raises(ValueError, match="never stop"):
        runaway.entropy()
    with pytest.raises(ValueError, match="positive"):
        Grammar("S", {"S": [(0, "a", 0.0), (1, "b", 0.0)]})
