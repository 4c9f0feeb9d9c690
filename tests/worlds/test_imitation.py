"""Imitation: scores, one step, and the two routes to the divergence."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from course.worlds import imitation, tiny_models
from course.worlds.reviews import REVIEWS
from helpers import models

TEXTS = [
    "the cast was good .",
    "i loved the film and the plot was not dull but the music was bad . what a mess .",
    "the ending felt rather dull .",
    "we hated the script .",
]


@pytest.fixture(scope="module")
def fresh() -> models.LanguageModel:
    """The shipped architecture with random weights, in float64."""
    shipped = models.load(models.REVIEWS_MODEL)
    model = tiny_models.new_reviews_model(len(shipped.tokenizer), seed=3)
    return replace(shipped, model=model.double().eval())


def by_hand(lm, text, start=0) -> float:
    """Σ log p of the words from `start` on and of EOS, one call of the model for each."""
    vocabulary, total = lm.tokenizer.get_vocab(), 0.0
    ids = [vocabulary["<bos>"]]
    for t, word in enumerate([*text.split(), "<eos>"]):
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([ids])).logits[0, -1]
        if t >= start:
            total += float(logits.log_softmax(-1)[vocabulary[word]])
        ids.append(vocabulary[word])
    return total


def test_encode_by_hand(fresh):
    ids, lengths = imitation.encode(fresh, TEXTS[:1] + TEXTS[2:3])
    words = [fresh.tokenizer.convert_ids_to_tokens(row) for row in ids.tolist()]
    assert words[0] == ["<bos>", *TEXTS[0].split(), "<eos>", "<pad>"]
    assert words[1] == ["<bos>", *TEXTS[2].split(), "<eos>"]
    assert lengths.tolist() == [6, 7]  # every word and <eos>, not <bos>
    with pytest.raises(ValueError, match="does not know"):
        imitation.encode(fresh, ["the cast was great ."])
    for texts in ([], "the cast was good ."):
        with pytest.raises(ValueError, match="B strings of known words"):
            imitation.encode(fresh, texts)


@pytest.mark.parametrize("prompt_words", [0, 1, 2])
def test_scores_agree_with_one_call_a_word(fresh, prompt_words):
    got = imitation.score(fresh, TEXTS, prompt_words=prompt_words)
    expected = [by_hand(fresh, text, prompt_words) for text in TEXTS]
    assert got.tolist() == pytest.approx(expected, abs=1e-9)
    alone = [imitation.score(fresh, [t], prompt_words=prompt_words).item() for t in TEXTS]
    assert got.tolist() == pytest.approx(alone, abs=1e-9), "padding leaks"


def test_a_prompt_must_leave_something_to_score(fresh):
    with pytest.raises(ValueError, match="no word after"):
        imitation.score(fresh, TEXTS, prompt_words=5)


def gradient(lm, value) -> torch.Tensor:
    parts = torch.autograd.grad(value, list(lm.model.parameters()))
    return torch.cat([part.reshape(-1) for part in parts])


class OnlyRecords(torch.optim.SGD):
    """Steps by exactly minus the gradient that it finds."""

    def __init__(self, lm):
        super().__init__(lm.model.parameters(), lr=1.0)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 16])
def test_a_step_goes_down_the_mean_over_all_tokens(fresh, micro_batch):
    lm = replace(fresh, model=copy.deepcopy(fresh.model))
    # Independent route: nats of each text, one by one; 6 + 21 + 7 + 6 tokens with EOS.
    tokens = sum(len(text.split()) + 1 for text in TEXTS)
    loss = -sum(imitation.score(fresh, [text])[0] for text in TEXTS) / tokens
    slope = gradient(fresh, loss)
    clipped = slope * min(1.0, 1.0 / (float(slope.norm()) + 1e-6))
    before = torch.cat([p.detach().reshape(-1).clone() for p in lm.model.parameters()])
    lm.model.zero_grad()
    for p in lm.model.parameters():
        p.grad = torch.ones_like(p)  # what an earlier step left behind
    record = imitation.step(lm, TEXTS, OnlyRecords(lm), micro_batch=micro_batch)
    after = torch.cat([p.detach().reshape(-1) for p in lm.model.parameters()])
    assert (before - after - clipped).abs().max() < 1e-9
    assert record.nats_per_token == pytest.approx(loss.item())
    assert record.nats_per_review == pytest.approx(loss.item() * tokens / len(TEXTS))
    assert record.gradient_norm == pytest.approx(float(slope.norm()))
    assert (record.reviews, record.tokens) == (4, tokens)


def test_texts_longer_than_the_context_are_left_out():
    texts = imitation.draw(500, torch.Generator().manual_seed(0), 12)
    assert 100 < len(texts) < 500 and max(len(text.split()) for text in texts) <= 10
    assert len(imitation.draw(50, torch.Generator().manual_seed(0))) == 50


def test_conditionals_are_the_grammars_own(reviews):
    table = imitation.exact_conditionals(reviews, TEXTS)
    vocabulary = reviews.tokenizer.get_vocab()
    assert table.shape == (4, 21, len(reviews.tokenizer))
    ids, lengths = imitation.encode(reviews, TEXTS)
    for i, text in enumerate(TEXTS):
        inside = table[i, : int(lengths[i])]
        assert torch.allclose(inside.exp().sum(-1), torch.ones(1, dtype=torch.float64))
        chosen = inside.gather(-1, ids[i, 1 : 1 + int(lengths[i]), None]).sum()
        assert float(chosen) == pytest.approx(REVIEWS.logprob(text))
        assert bool((table[i, int(lengths[i]) :] == -torch.inf).all())
    assert float(table[0, 5, vocabulary["<eos>"]].exp()) == pytest.approx(6 / 8)  # by the rules


def test_kl_along_a_review_by_hand(reviews):
    truth = imitation.exact_conditionals(reviews, TEXTS)
    got = imitation.kl_along(reviews, TEXTS, truth)
    vocabulary = reviews.tokenizer.get_vocab()
    for i, text in enumerate(TEXTS):
        words, total = text.split(), 0.0
        for t in range(len(words) + 1):
            prefix = " ".join(words[:t])
            ids = torch.tensor([reviews.tokenizer(prefix).input_ids])
            with torch.no_grad():
                logits = reviews.model(input_ids=ids).logits[0, -1].double().log_softmax(-1)
            for word, p in REVIEWS.next_word(prefix).items():
                total += p * (math.log(p) - float(logits[vocabulary[word or "<eos>"]]))
        assert float(got[i]) == pytest.approx(total, abs=1e-4)
    assert bool((got > 0).all())


def test_training_yields_a_record_a_step_and_learns(generator):
    shipped = models.load(models.REVIEWS_MODEL)
    lm = replace(shipped, model=tiny_models.new_reviews_model(len(shipped.tokenizer), seed=0))
    records = list(imitation.train(lm, 40, generator, batch=16))
    assert len(records) == 40 and all(r.reviews == 16 for r in records)
    assert records[0].nats_per_token == pytest.approx(math.log(62), abs=0.6)
    assert records[-1].nats_per_token < 0.7 * records[0].nats_per_token


def test_two_routes_to_the_divergence_of_the_shipped_model(reviews, generator):
    measured = imitation.measure(reviews, 2000, generator)
    texts = imitation.draw(200, generator, reviews.context_length)
    along = imitation.kl_along(reviews, texts, imitation.exact_conditionals(reviews, texts))
    error = math.hypot(float(along.std()) / 200**0.5, measured["kl_standard_error"])
    apart = float(along.mean()) - measured["kl_grammar_to_model_nats_per_review"]
    assert abs(apart) < 4 * error and error < 0.03
    assert measured["grammar_entropy_nats_per_review"] == pytest.approx(13.0293, abs=1e-4)
