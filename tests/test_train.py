"""The training loop against the oracle, against a written-out step, and against itself."""

import dataclasses
import itertools

import pytest
import torch
from torch.testing import assert_close

from helpers import (
    advantages,
    baselines,
    exact,
    losses,
    microbatches,
    models,
    reference,
    rollout,
    train,
    worlds,
)

SPEED_UPS = [
    {"share_prompts": share, "skip_zero_advantages": skip, "tokens_per_micro_batch": budget}
    for share, skip, budget in itertools.product((False, True), (False, True), (64, 10**6))
]
PLAIN, FAST = SPEED_UPS[1], SPEED_UPS[-2]
NAMES = [" ".join(str(value) for value in each.values()) for each in SPEED_UPS]
PROMPTS = ["the film", "i", "the cast was not very", "the ending felt dull but"]


def word_loop(world, seed=3, dtype=torch.float64, config=None, ref_policy=None, **settings):
    model = models.word_transformer(world, seed=seed, dtype=dtype)
    lm = models.word_language_model(world, model)
    config = config or train.Config(
        prompts_per_step=2, group_size=341, max_new_tokens=4, baseline="none", **settings
    )
    return train.Loop(lm, list(world.prompts), world.reward, config, ref_policy)


def every_completion(world, loop):
    """All completions of all prompts as one batch, scored by the loop's policy; and p (B,)."""
    every, size = exact.enumerate_completions(world), len(world.prompts)
    ids, mask = loop.lm.encode(list(world.prompts))
    policy = models.as_policy(loop.lm.model)
    with torch.no_grad():
        tokens = [exact.state_logprobs(policy, world, prompt) for prompt in world.prompts]
        chance = torch.cat([exact.completion_logprobs(policy, world, p) for p in world.prompts])
    words = exact.word_moves(world)  # (N, T) state·A + word
    old = [exact.read_moves(levels, words) for levels in tokens]
    inside = [[-(x.exp() * x).sum(-1, keepdim=True).expand_as(x) for x in t] for t in tokens]
    entropies = [exact.read_moves(levels, words) for levels in inside]
    batch = rollout.pack(
        ids, mask, every.completion_ids.repeat(size, 1), torch.cat(old), torch.cat(entropies),
        world.eos_ids, len(every.texts),
    )  # fmt: skip
    assert torch.equal(batch.lengths[:341], every.lengths)
    return batch, chance.exp(), list(every.texts) * size


def gradient(loop):
    return torch.cat([p.grad.flatten() for p in loop.lm.model.parameters()])


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


# --- exact gradients ---


@pytest.mark.parametrize("settings", SPEED_UPS, ids=NAMES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_over_all_completions_its_gradient_is_the_oracles(world, settings, dtype, error):
    loop = word_loop(world, dtype=dtype, **settings)
    batch, chance, texts = every_completion(world, loop)
    paid = torch.tensor(world.reward(["praise"] * 341 + ["pan"] * 341, texts), dtype=dtype)
    assert 0 < int((paid == 0).sum()) < len(paid)  # there is something to skip
    loop.credit(batch, paid * chance * len(paid) / 2)  # J is the mean of two prompts
    policy, weights = models.as_policy(loop.lm.model), list(loop.lm.model.parameters())
    wanted = sum(exact.objective_gradient(policy, weights, world, p) for p in world.prompts) / 2
    assert relative(-gradient(loop), wanted) < error


@pytest.mark.parametrize("settings", [PLAIN, FAST], ids=["plain", "fast"])
def test_with_a_reference_it_climbs_the_reward_less_the_divergence(world, settings):
    other = models.word_language_model(world, models.word_transformer(world, seed=8))
    loop = word_loop(world, ref_policy=other, kl_coef=0.3, **settings)
    batch, chance, texts = every_completion(world, loop)
    asked = ["praise"] * 341 + ["pan"] * 341
    _, token_rewards, divergences = loop.judge(asked, batch, texts)
    loop.credit(batch, token_rewards.sum(1) * chance * len(chance) / 2)
    policy, ref = models.as_policy(loop.lm.model), models.as_policy(other.model)
    goal = sum(exact.objective(policy, world, p) - 0.3 * exact.kl(policy, ref, world, p)
               for p in world.prompts) / 2  # fmt: skip
    weights = list(loop.lm.model.parameters())
    slopes = torch.autograd.grad(goal, weights, allow_unused=True, materialize_grads=True)
    assert relative(-gradient(loop), torch.cat([s.flatten() for s in slopes])) < 1e-10
    # What it calls KL and entropy are those of whole completions, on average.
    for half, prompt in enumerate(world.prompts):
        part = slice(341 * half, 341 * half + 341)
        between = chance[part] @ divergences[part].sum(1)
        assert_close(between, exact.kl(policy, ref, world, prompt), rtol=0, atol=1e-12)
        inside = chance[part] @ batch.entropies[part].sum(1)
        assert_close(inside, exact.entropy(policy, world, prompt), rtol=0, atol=1e-12)
        assert (divergences >= -1e-12).all() and divergences[part].sum() > 1


def sampled(reviews, temperature=1.0, seed=0):
    return rollout.sample(
        reviews.model, *reviews.encode(PROMPTS), eos_ids=reviews.eos_ids, max_new_tokens=20,
        generator=torch.Generator().manual_seed(seed), group_size=8, temperature=temperature,
    )  # fmt: skip


def written_out(lm, batch, judged, temperature=1.0):
    """Chapter 00's credit: one padded pass over everything, minus the mean of A·log p."""
    lm.model.zero_grad()
    token_logprobs = rollout.completion_logprobs(lm.model, batch, temperature=temperature)
    (-(judged * (token_logprobs * batch.completion_mask).sum(1)).mean()).backward()
    return torch.cat([p.grad.flatten() for p in lm.model.parameters()])


@pytest.mark.parametrize("settings", SPEED_UPS, ids=NAMES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_on_ragged_prompts_its_gradient_is_the_written_out_ones(reviews, settings, temperature):
    config = train.Config(
        prompts_per_step=4, group_size=8, max_new_tokens=20, temperature=temperature, **settings
    )
    loop = train.Loop(reviews, PROMPTS, worlds.sentiment_reward, config)
    batch = sampled(reviews, temperature)
    judged = torch.randn(32, generator=torch.Generator().manual_seed(1))
    judged[::3] = 0.0
    judged[8:16] = 0.0  # a whole group has nothing to teach
    wanted = written_out(reviews, batch, judged, temperature)
    loop.credit(batch, judged)
    assert relative(gradient(loop), wanted) < 1e-5
    loop.credit(batch, judged)  # gradients of the step before are not added to
    assert relative(gradient(loop), wanted) < 1e-5
    per_token = judged.unsqueeze(1).expand_as(batch.old_logprobs)
    loop.credit(batch, per_token * batch.completion_mask)
    assert relative(gradient(loop), wanted) < 1e-5
    loop.credit(batch, torch.zeros(32))
    assert gradient(loop).abs().max() == 0


def test_a_step_is_the_written_out_one():
    """Sampling, leave-one-out, credit and AdamW, by hand and by the loop: same weights."""
    config = train.Config(prompts_per_step=4, group_size=8, max_new_tokens=20, lr=1e-3, seed=5)
    lm = models.load(models.REVIEWS_MODEL, dtype=torch.float64)  # AdamW divides by small moments
    byhand = models.load(models.REVIEWS_MODEL, dtype=torch.float64)
    loop = train.Loop(lm, PROMPTS, worlds.sentiment_reward, config)
    optimizer = torch.optim.AdamW(byhand.model.parameters(), lr=1e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(5)
    for step in range(3):
        record = loop.step()
        texts = [PROMPTS[i] for i in torch.randperm(4, generator=generator)]
        batch = rollout.sample(
            byhand.model, *byhand.encode(texts), eos_ids=byhand.eos_ids, max_new_tokens=20,
            generator=generator, group_size=8,
        )  # fmt: skip
        asked = [text for text in texts for _ in range(8)]
        completions = byhand.decode(batch.completion_ids, batch.lengths)
        assert record.step == step and record.prompts == asked
        assert record.completions == completions
        rewards = torch.tensor(worlds.sentiment_reward(asked, completions), dtype=torch.float64)
        rewards = rewards.view(4, 8)
        others = (rewards.sum(1, keepdim=True) - rewards) / 7
        slope = written_out(byhand, batch, (rewards - others).view(-1))
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


# --- sampling ---


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
        reviews.model, *reviews.encode(PROMPTS), eos_ids=reviews.eos_ids, max_new_tokens=25,
        uniforms=uniforms, group_size=6, temperature=temperature,
    )  # fmt: skip
    assert batch.lengths.min() < 5 and batch.lengths.max() > 15  # rows have left meanwhile
    for row in range(24):
        wanted = slow_sample(reviews, PROMPTS[row // 6], uniforms[row], 25, temperature)
        assert batch.completion_ids[row, : batch.lengths[row]].tolist() == wanted


def test_uniforms_and_generator_are_checked(reviews):
    ids, mask = reviews.encode(["the film"])
    for wrong in ({}, {"uniforms": torch.rand(2, 4)},
                  {"uniforms": torch.rand(1, 4), "generator": torch.Generator()}):  # fmt: skip
        with pytest.raises(ValueError, match=r"generator, or uniforms of shape \(1, 4\)"):
            rollout.sample(reviews.model, ids, mask, eos_ids=(2,), max_new_tokens=4, **wrong)


def test_entropies_are_those_of_the_distribution_that_was_drawn_from(reviews):
    batch = sampled(reviews, temperature=0.7)
    token_ids = torch.cat([batch.prompt_ids, batch.completion_ids], dim=1)
    mask = torch.cat([batch.prompt_mask, batch.completion_mask], dim=1)
    with torch.no_grad():
        logp = (models.forward(reviews.model, token_ids, mask).logits / 0.7).log_softmax(-1)
    width = batch.completion_ids.shape[1]
    wanted = (
        -(logp.exp() * logp).sum(-1)[:, -width - 1 : -1].masked_fill(~batch.completion_mask, 0.0)
    )
    assert_close(batch.entropies, wanted, rtol=0, atol=1e-4)


# --- micro-batches ---


def test_micro_batches_hold_every_row_once_within_their_budget():
    lengths = torch.tensor([3, 9, 1, 9, 4, 2, 30])
    pieces = microbatches.split(lengths, budget=20, prompt_tokens=1)
    assert sorted(torch.cat(pieces).tolist()) == list(range(7))
    for piece in pieces:
        assert len(piece) == 1 or len(piece) * (int(lengths[piece].max()) + 1) <= 20
    assert [piece.tolist() for piece in pieces] == [[2, 5, 0, 4], [1, 3], [6]]  # 4·5, 2·10, 31
    with pytest.raises(ValueError, match="at least 1 token"):
        microbatches.split(lengths, budget=0)


# --- baselines ---


def judged_by(world, baseline, rewards, memory=None, **settings):
    config = train.Config(
        prompts_per_step=2, group_size=4, max_new_tokens=4, baseline=baseline, **settings
    )
    loop = word_loop(world, config=config)
    loop.state.memory = memory or {}
    batch = microbatches.select(every_completion(world, loop)[0], torch.arange(200, 208))
    token_rewards = reference.token_rewards(
        rewards, torch.zeros_like(batch.old_logprobs), batch.completion_mask
    )
    return loop.compare(batch, token_rewards)


REWARDS = torch.tensor([1.0, 2.0, 2.0, 5.0, 0.0, 0.0, 0.0, -3.0], dtype=torch.float64)


@pytest.mark.parametrize("name", baselines.GROUP_JUDGES)
def test_groups_are_judged_as_in_chapter_06(world, name):
    found, memory = judged_by(world, name, REWARDS)
    assert_close(found, baselines.GROUP_JUDGES[name](REWARDS.view(2, 4)).view(-1))
    assert memory == {}


def test_constants_and_the_running_mean(world):
    assert_close(judged_by(world, "none", REWARDS)[0], REWARDS)
    assert_close(judged_by(world, "constant", REWARDS, constant=1.5)[0], REWARDS - 1.5)
    first, memory = judged_by(world, "running mean", REWARDS)
    assert_close(first, REWARDS)  # nothing is known yet; the batch itself must not be used
    assert float(memory["mean"]) == pytest.approx(7 / 8)  # (10 − 3) / 8
    second, memory = judged_by(world, "running mean", REWARDS + 8, memory)
    assert_close(second, REWARDS + 8 - 7 / 8)
    assert float(memory["mean"]) == pytest.approx(0.9 * 7 / 8 + 0.1 * (8 + 7 / 8))


def test_a_learned_value_is_fitted_to_past_batches_only(world):
    config = train.Config(prompts_per_step=2, group_size=341, max_new_tokens=4,
                          baseline="learned V(s)")  # fmt: skip
    loop = word_loop(world, config=config)
    batch, _, _ = every_completion(world, loop)
    mask = batch.completion_mask
    constant = torch.full((len(mask),), 3.0, dtype=torch.float64)
    paid = reference.token_rewards(constant, torch.zeros_like(batch.old_logprobs), mask)
    judged, memory = loop.compare(batch, paid)
    assert_close(judged, 3.0 * mask.double())  # V is 0 before anything was seen
    loop.state.memory = memory
    judged, _ = loop.compare(batch, paid)  # what always pays 3 is worth 3 in every state
    assert judged.abs().max() < 0.05


# --- it learns ---


def exact_objective(lm, world):
    policy = models.as_policy(lm.model)
    with torch.no_grad():
        return float(sum(exact.objective(policy, world, p) for p in world.prompts)) / 2


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("baseline", ["leave-one-out", "learned V(s)"])
def test_it_raises_the_exact_objective(world, seed, baseline):
    model = models.word_transformer(world, seed=seed, dtype=torch.float32)
    lm = models.word_language_model(world, model)
    start = exact_objective(lm, world)
    config = train.Config(steps=40, prompts_per_step=2, group_size=16, max_new_tokens=4,
                          lr=3e-3, seed=seed, baseline=baseline)  # fmt: skip
    records = list(train.train(lm, world.prompts, world.reward, config))
    assert [record.step for record in records] == list(range(40))
    assert exact_objective(lm, world) > start + 1.0


def test_every_prompt_has_its_turn_and_none_comes_twice():
    lm = models.load(models.REVIEWS_MODEL)
    config = train.Config(steps=3, prompts_per_step=4, group_size=2, max_new_tokens=2)
    for record in train.train(lm, PROMPTS, worlds.sentiment_reward, config):
        assert sorted(record.prompts[::2]) == sorted(PROMPTS)
        assert record.prompts[::2] == record.prompts[1::2]  # groups are neighbours
    many = dataclasses.replace(config, steps=1, prompts_per_step=6)
    [record] = train.train(lm, PROMPTS, worlds.sentiment_reward, many)
    assert set(record.prompts) == set(PROMPTS)  # more than there are: some twice


def test_dropout_is_off_and_other_weights_stay(reviews):
    lm = models.load(models.REVIEWS_MODEL)
    lm.model.train()
    frozen = lm.model.transformer.wpe.weight.requires_grad_(False).clone()
    config = train.Config(steps=1, prompts_per_step=2, group_size=4, max_new_tokens=6)
    list(train.train(lm, PROMPTS, worlds.sentiment_reward, config))
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
