"""Whole steps: equal to a written-out one, and they raise the exact J."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from course.exact import oracle
from course.worlds import tiny_models
from course.worlds.reviews import sentiment_reward
from helpers import advantages, losses, models, rollout, train
from helpers.settings import Config
from tests.helpers import example_loops


def test_a_step_is_the_written_out_one():
    """Sampling, leave-one-out, credit and AdamW, by hand and by the loop: same weights."""
    config = Config(prompts_per_step=4, group_size=8, max_new_tokens=20, lr=1e-3, seed=5)
    lm = models.load(models.REVIEWS_MODEL, dtype=torch.float64)  # AdamW divides by small moments
    byhand = models.load(models.REVIEWS_MODEL, dtype=torch.float64)
    loop = train.Loop(lm, example_loops.PROMPTS, sentiment_reward, config)
    optimizer = torch.optim.AdamW(byhand.model.parameters(), lr=1e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(5)
    for step in range(3):
        record = loop.step()
        texts = [example_loops.PROMPTS[i] for i in torch.randperm(4, generator=generator)]
        batch = rollout.sample(
            byhand.model,
            *byhand.encode(texts),
            rollout.SamplingSettings(byhand.eos_ids, 20, group_size=8),
            generator=generator,
        )
        asked = [text for text in texts for _ in range(8)]
        completions = byhand.decode(batch.completion_ids, batch.lengths)
        assert record.step == step and record.prompts == asked
        assert record.completions == completions
        rewards = torch.tensor(sentiment_reward(asked, completions), dtype=torch.float64)
        rewards = rewards.view(4, 8)
        others = (rewards.sum(1, keepdim=True) - rewards) / 7
        slope = example_loops.written_out(byhand, batch, (rewards - others).view(-1))
        assert record.reward == pytest.approx(float(rewards.mean()))
        assert record.reward_std == pytest.approx(float(rewards.std(correction=0)))
        assert record.nll == pytest.approx(-float(batch.old_logprobs.sum(1).mean()), abs=1e-4)
        assert record.length == pytest.approx(float(batch.lengths.float().mean()))
        assert record.finished == pytest.approx(float(batch.finished.float().mean()))
        assert record.silent == pytest.approx(float((rewards == others).float().mean()))
        assert record.grad_norm == pytest.approx(float(slope.norm()), rel=1e-4)
        torch.nn.utils.clip_grad_norm_(byhand.model.parameters(), 1.0)
        optimizer.step()
    for ours, theirs in zip(lm.model.parameters(), byhand.model.parameters(), strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-9)


def exact_objective(lm, world):
    policy = models.as_policy(lm.model)
    with torch.no_grad():
        return float(sum(oracle.objective(policy, world, p) for p in world.prompts)) / 2


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("baseline", ["leave_one_out", "learned_value"])
def test_it_raises_the_exact_objective(world, seed, baseline):
    model = tiny_models.word_transformer(world, seed=seed, dtype=torch.float32)
    lm = tiny_models.word_language_model(world, model)
    start = exact_objective(lm, world)
    config = Config(
        steps=40,
        prompts_per_step=2,
        group_size=16,
        max_new_tokens=4,
        lr=3e-3,
        seed=seed,
        baseline=baseline,
    )
    records = list(train.train(lm, world.prompts, world.reward, config))
    assert [record.step for record in records] == list(range(40))
    assert exact_objective(lm, world) > start + 1.0


def test_every_prompt_has_its_turn_and_none_comes_twice():
    lm = models.load(models.REVIEWS_MODEL)
    config = Config(steps=3, prompts_per_step=4, group_size=2, max_new_tokens=2)
    for record in train.train(lm, example_loops.PROMPTS, sentiment_reward, config):
        assert sorted(record.prompts[::2]) == sorted(example_loops.PROMPTS)
        assert record.prompts[::2] == record.prompts[1::2]  # groups are neighbours
    many = dataclasses.replace(config, steps=1, prompts_per_step=6)
    [record] = train.train(lm, example_loops.PROMPTS, sentiment_reward, many)
    assert set(record.prompts) == set(example_loops.PROMPTS)  # more than there are: some twice


def test_dropout_is_off_and_other_weights_stay(reviews):
    lm = models.load(models.REVIEWS_MODEL)
    lm.model.train()
    frozen = lm.model.transformer.wpe.weight.requires_grad_(False).clone()
    config = Config(steps=1, prompts_per_step=2, group_size=4, max_new_tokens=6)
    list(train.train(lm, example_loops.PROMPTS, sentiment_reward, config))
    assert not lm.model.training
    assert torch.equal(lm.model.transformer.wpe.weight, frozen)


def test_losses_of_micro_batches_are_shares_of_one_mean():
    """The identity behind `credit`: Σ n_m/B · mean_m = mean over B."""
    token_logprobs, judged = torch.randn(6, 3), torch.randn(6)
    mask = torch.ones(6, 3, dtype=torch.bool)
    whole = losses.reinforce_loss(token_logprobs, judged, mask)
    parts = sum(
        losses.reinforce_loss(token_logprobs[rows], judged[rows], mask[rows]) * len(rows) / 6
        for rows in (torch.arange(1), torch.arange(1, 6))
    )
    assert_close(parts, whole)
    assert advantages.leave_one_out(judged.view(2, 3)).shape == (2, 3)
