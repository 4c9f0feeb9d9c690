"""Gradients of the loop against the oracle and against a written-out pass."""

import pytest
import torch
from torch.testing import assert_close

from course.exact import oracle
from course.worlds import tiny_models
from course.worlds.reviews import sentiment_reward
from helpers import models, train
from helpers.settings import Config
from tests.helpers import example_loops


@pytest.mark.parametrize(
    "settings", [example_loops.PLAIN, example_loops.FAST], ids=["plain", "fast"]
)
def test_with_a_reference_it_climbs_the_reward_less_the_divergence(world, settings):
    other = tiny_models.word_language_model(world, tiny_models.word_transformer(world, seed=8))
    loop = example_loops.word_loop(world, ref_policy=other, kl_coef=0.3, **settings)
    batch, chance, texts = example_loops.every_completion(world, loop)
    asked = ["praise"] * 341 + ["pan"] * 341
    _, token_rewards, divergences = loop.judge(asked, batch, texts)
    loop.credit(batch, token_rewards.sum(1) * chance * len(chance) / 2)
    policy, ref = models.as_policy(loop.lm.model), models.as_policy(other.model)
    goal = (
        sum(
            oracle.objective(policy, world, p) - 0.3 * oracle.kl_divergence(policy, ref, world, p)
            for p in world.prompts
        )
        / 2
    )
    weights = list(loop.lm.model.parameters())
    slopes = torch.autograd.grad(goal, weights, allow_unused=True, materialize_grads=True)
    assert (
        example_loops.relative(
            -example_loops.gradient(loop), torch.cat([s.flatten() for s in slopes])
        )
        < 1e-10
    )
    # What it calls KL and entropy are those of whole completions, on average.
    for half, prompt in enumerate(world.prompts):
        part = slice(341 * half, 341 * half + 341)
        between = chance[part] @ divergences[part].sum(1)
        assert_close(between, oracle.kl_divergence(policy, ref, world, prompt), rtol=0, atol=1e-12)
        inside = chance[part] @ batch.entropies[part].sum(1)
        assert_close(inside, oracle.entropy(policy, world, prompt), rtol=0, atol=1e-12)
        assert (divergences >= -1e-12).all() and divergences[part].sum() > 1


@pytest.mark.parametrize("settings", example_loops.SPEED_UPS, ids=example_loops.NAMES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_over_all_completions_its_gradient_is_the_oracles(world, settings, dtype, error):
    loop = example_loops.word_loop(world, dtype=dtype, **settings)
    batch, chance, texts = example_loops.every_completion(world, loop)
    paid = torch.tensor(world.reward(["praise"] * 341 + ["pan"] * 341, texts), dtype=dtype)
    assert 0 < int((paid == 0).sum()) < len(paid)  # there is something to skip
    loop.credit(batch, paid * chance * len(paid) / 2)  # J is the mean of two prompts
    policy, weights = models.as_policy(loop.lm.model), list(loop.lm.model.parameters())
    wanted = sum(oracle.objective_gradient(policy, weights, world, p) for p in world.prompts) / 2
    assert example_loops.relative(-example_loops.gradient(loop), wanted) < error


@pytest.mark.parametrize("settings", example_loops.SPEED_UPS, ids=example_loops.NAMES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_on_ragged_prompts_its_gradient_is_the_written_out_ones(reviews, settings, temperature):
    config = Config(
        prompts_per_step=4, group_size=8, max_new_tokens=20, temperature=temperature, **settings
    )
    loop = train.Loop(reviews, example_loops.PROMPTS, sentiment_reward, config)
    batch = example_loops.sampled(reviews, temperature)
    judged = torch.randn(32, generator=torch.Generator().manual_seed(1))
    judged[::3] = 0.0
    judged[8:16] = 0.0  # a whole group has nothing to teach
    wanted = example_loops.written_out(reviews, batch, judged, temperature)
    loop.credit(batch, judged)
    assert example_loops.relative(example_loops.gradient(loop), wanted) < 1e-5
    loop.credit(batch, judged)  # gradients of the step before are not added to
    assert example_loops.relative(example_loops.gradient(loop), wanted) < 1e-5
    per_token = judged.unsqueeze(1).expand_as(batch.old_logprobs)
    loop.credit(batch, per_token * batch.completion_mask)
    assert example_loops.relative(example_loops.gradient(loop), wanted) < 1e-5
    loop.credit(batch, torch.zeros(32))
    assert example_loops.gradient(loop).abs().max() == 0
