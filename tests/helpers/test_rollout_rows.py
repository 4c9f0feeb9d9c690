"""Each completion is what the plainest loop would have written, whoever else is written."""

import pytest
import torch
from torch.testing import assert_close

from helpers import models, probe, rollout
from tests.helpers import example_loops


@torch.no_grad()
def slow_sample(lm, prompt, uniforms, limit, temperature):
    """One completion without a cache, a batch or padding: the plainest loop there is."""
    ids, written = torch.tensor([lm.tokenizer(prompt).input_ids]), []
    for number in uniforms[:limit]:
        logits = lm.model(input_ids=ids).logits[0, -1] / temperature
        summed = logits.double().softmax(-1).cumsum(0)
        written.append(int((summed <= number).sum()))
        ids = torch.cat([ids, torch.tensor([[written[-1]]])], dim=1)
        if written[-1] in lm.eos_ids:
            break
    return written


@pytest.mark.parametrize("temperature", [1.0, 1.4])
def test_each_completion_is_the_plain_loops_whoever_else_is_written(reviews, temperature):
    uniforms = rollout.draw_uniforms((24, 25), torch.Generator().manual_seed(2))
    batch = rollout.sample(
        reviews.model,
        *reviews.encode(example_loops.PROMPTS),
        rollout.SamplingSettings(reviews.eos_ids, 25, group_size=6, temperature=temperature),
        uniforms=uniforms,
    )
    assert batch.lengths.min() < 5 and batch.lengths.max() > 15  # rows have left meanwhile
    assert probe.reading(reviews.model).cached, "right by reading each text whole, and slow"
    for row in range(24):
        wanted = slow_sample(
            reviews, example_loops.PROMPTS[row // 6], uniforms[row], 25, temperature
        )
        assert batch.completion_ids[row, : batch.lengths[row]].tolist() == wanted


def test_uniforms_and_generator_are_checked(reviews):
    ids, mask = reviews.encode(["the film"])
    for wrong in (
        {},
        {"uniforms": torch.rand(2, 4)},
        {"uniforms": torch.rand(1, 4), "generator": torch.Generator()},
    ):
        with pytest.raises(ValueError, match=r"generator, or uniforms of shape \(1, 4\)"):
            rollout.sample(reviews.model, ids, mask, rollout.SamplingSettings((2,), 4), **wrong)


def test_entropies_are_those_of_the_distribution_that_was_drawn_from(reviews):
    batch = example_loops.sampled(reviews, temperature=0.7)
    token_ids = torch.cat([batch.prompt_ids, batch.completion_ids], dim=1)
    mask = torch.cat([batch.prompt_mask, batch.completion_mask], dim=1)
    with torch.no_grad():
        logp = (models.forward(reviews.model, token_ids, mask).logits / 0.7).log_softmax(-1)
    width = batch.completion_ids.shape[1]
    wanted = (
        -(logp.exp() * logp).sum(-1)[:, -width - 1 : -1].masked_fill(~batch.completion_mask, 0.0)
    )
    assert_close(batch.entropies, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_last_token_is_not_read(reviews, limit):
    """As many calls of the model as tokens: the prompt's, and one for each token but the last."""
    calls = []
    hook = reviews.model.register_forward_hook(lambda *_: calls.append(1))
    with hook:
        rollout.sample(
            reviews.model,
            *reviews.encode(["the film"]),
            eos_ids=(),
            max_new_tokens=limit,
            generator=torch.Generator().manual_seed(0),
        )
    assert len(calls) == limit
