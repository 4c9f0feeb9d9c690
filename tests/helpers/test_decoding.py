"""The step that a GPU replays, run uncaptured on the CPU: it writes what the plain loop writes."""

import contextlib
from unittest import mock

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from helpers import decoding, models, rollout
from tests.helpers import example_loops

PROMPTS = example_loops.PROMPTS
FIELDS = ("completion_ids", "lengths", "finished")


def both(lm, prompts, decoder, seed=0, **settings):
    settings = {"max_new_tokens": 20, "group_size": 6} | settings
    return [
        rollout.sample(
            lm.model,
            *lm.encode(prompts),
            rollout.SamplingSettings(lm.eos_ids, **settings),
            decoder=one,
            generator=torch.Generator().manual_seed(seed),
        )
        for one in (None, decoder)
    ]


def assert_same(plain, replayed):
    for name in FIELDS:
        assert torch.equal(getattr(plain, name), getattr(replayed, name)), name
    for name in ("old_logprobs", "entropies"):
        assert_close(getattr(plain, name), getattr(replayed, name), rtol=0, atol=1e-5)


def test_it_writes_what_the_plain_loop_writes(reviews):
    decoder = decoding.Decoder(reviews.model, capture=False)
    plain, replayed = both(reviews, PROMPTS, decoder)
    assert plain.lengths.min() < 5 and plain.lengths.max() > 12
    assert_same(plain, replayed)
    step = decoder._step
    assert_same(*both(reviews, PROMPTS[::-1], decoder, seed=1))
    assert decoder._step is step  # same shape: nothing is captured again
    assert_same(*both(reviews, PROMPTS[:2], decoder, seed=2))
    assert_same(*both(reviews, PROMPTS, decoder, seed=3, temperature=1.3, top_k=5))
    assert_same(*both(reviews, PROMPTS, decoder, seed=4, max_new_tokens=1))


def test_a_replayed_step_follows_the_weights():
    lm = models.load(models.REVIEWS_MODEL)
    decoder = decoding.Decoder(lm.model, capture=False)
    before, _ = both(lm, PROMPTS, decoder)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.mul_(0.7)
    after, replayed = both(lm, PROMPTS, decoder)
    assert not torch.equal(before.completion_ids, after.completion_ids)
    assert_same(after, replayed)


def test_it_stops_when_all_have_ended(reviews, monkeypatch):
    monkeypatch.setitem(decoding.LOOKS, "captured", 4)
    decoder = decoding.Decoder(reviews.model, capture=False)
    plain, replayed = both(reviews, ["the film"], decoder, group_size=2, max_new_tokens=60)
    assert plain.lengths.max() < 50
    assert_same(plain, replayed)
    assert int(decoder._step.column) < plain.lengths.max() + 5  # and not 60


@pytest.mark.parametrize("limit", [1, 2, 3, 20])
def test_capturing_writes_nowhere_but_in_the_step(reviews, monkeypatch, limit):
    """CUDA's part played on the CPU, where a place out of bounds is an error and no silence."""
    decoder = decoding.Decoder(reviews.model)
    settings = rollout.SamplingSettings(reviews.eos_ids, limit, group_size=6)

    class Graph:
        def replay(self):
            decoder._one_token(decoder._step, rollout.draw, settings)

    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    for seed in (0, 1):
        try:
            pair = both(reviews, PROMPTS, decoder, seed=seed, max_new_tokens=limit)
        except (IndexError, RuntimeError) as error:
            pytest.fail(f"it wrote beyond its places: {error}")
        assert_same(*pair)


def test_rotary_positions_and_shared_keys(reviews):
    config = LlamaConfig(
        vocab_size=len(reviews.tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    lm = models.LanguageModel(model, reviews.tokenizer, reviews.eos_ids, 64)
    assert decoding.supported(model)
    assert_same(*both(lm, PROMPTS, decoding.Decoder(model, capture=False)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("limit", [1, 2, 20])
@pytest.mark.parametrize("half", [False, True])
def test_a_captured_step_writes_what_the_plain_loop_writes(half, limit):
    lm = models.load(models.REVIEWS_MODEL, device="cuda")
    decoder = decoding.Decoder(lm.model)
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
        for scale in (1.0, 0.7):
            with torch.no_grad():
                for parameter in lm.model.parameters():
                    parameter.mul_(scale)
            plain, replayed = both(lm, PROMPTS, decoder, max_new_tokens=limit)
            same = (plain.completion_ids[:, :1] == replayed.completion_ids[:, :1]).float().mean()
            if half:  # bfloat16 rounds differently in another kernel
                assert same > 0.9
            else:
                assert_same(plain, replayed)
