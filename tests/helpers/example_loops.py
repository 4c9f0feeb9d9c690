"""What the tests of the training loop share: loops on the word world, and written-out credit."""

import itertools

import torch

from course.exact import oracle
from course.worlds import tiny_models
from helpers import models, rollout, train
from helpers.settings import Config

SPEED_UPS = [
    {"share_prompts": share, "skip_zero_advantages": skip, "tokens_per_micro_batch": budget}
    for share, skip, budget in itertools.product((False, True), (False, True), (64, 10**6))
]
PLAIN, FAST = SPEED_UPS[1], SPEED_UPS[-2]
NAMES = [" ".join(str(value) for value in each.values()) for each in SPEED_UPS]
PROMPTS = ["the film", "i", "the cast was not very", "the ending felt dull but"]


def word_loop(world, seed=3, dtype=torch.float64, config=None, ref_policy=None, **settings):
    model = tiny_models.word_transformer(world, seed=seed, dtype=dtype)
    lm = tiny_models.word_language_model(world, model)
    config = config or Config(
        prompts_per_step=2, group_size=341, max_new_tokens=4, baseline="none", **settings
    )
    return train.Loop(lm, list(world.prompts), world.reward, config, ref_policy)


def every_completion(world, loop):
    """All completions of all prompts as one batch, scored by the loop's policy; and p (B,)."""
    every, size = oracle.enumerate_completions(world), len(world.prompts)
    ids, mask = loop.lm.encode(list(world.prompts))
    policy = models.as_policy(loop.lm.model)
    with torch.no_grad():
        tokens = [oracle.state_logprobs(policy, world, prompt) for prompt in world.prompts]
        chance = torch.cat([oracle.completion_logprobs(policy, world, p) for p in world.prompts])
    words = oracle.word_moves(world)  # (N, T) state·A + word
    old = [oracle.read_moves(levels, words) for levels in tokens]
    inside = [[-(x.exp() * x).sum(-1, keepdim=True).expand_as(x) for x in t] for t in tokens]
    entropies = [oracle.read_moves(levels, words) for levels in inside]
    batch = rollout.pack(
        ids,
        mask,
        every.completion_ids.repeat(size, 1),
        torch.cat(old),
        torch.cat(entropies),
        world.eos_ids,
        len(every.texts),
    )
    assert torch.equal(batch.lengths[:341], every.lengths)
    return batch, chance.exp(), list(every.texts) * size


def gradient(loop):
    return torch.cat([p.grad.flatten() for p in loop.lm.model.parameters()])


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


def sampled(reviews, temperature=1.0, seed=0):
    return rollout.sample(
        reviews.model,
        *reviews.encode(PROMPTS),
        rollout.SamplingSettings(reviews.eos_ids, 20, group_size=8, temperature=temperature),
        generator=torch.Generator().manual_seed(seed),
    )


def written_out(lm, batch, judged, temperature=1.0):
    """Chapter 00's credit: one padded pass over everything, minus the mean of A·log p."""
    lm.model.zero_grad()
    token_logprobs = rollout.completion_logprobs(lm.model, batch, temperature=temperature)
    (-(judged * (token_logprobs * batch.completion_mask).sum(1)).mean()).backward()
    return torch.cat([p.grad.flatten() for p in lm.model.parameters()])
