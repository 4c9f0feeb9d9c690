"""Baselines of the loop, alone and divided over processes."""

import concurrent.futures
import threading
import types

import pytest
import torch
from torch.testing import assert_close

from course.worlds import tiny_models
from helpers import advantages, scoring, settings, train
from helpers.settings import Config
from tests.helpers import example_loops


def judged_by(world, baseline, rewards, memory=None, **more):
    config = Config(prompts_per_step=2, group_size=4, max_new_tokens=4, baseline=baseline, **more)
    loop = example_loops.word_loop(world, config=config)
    loop.state.memory = memory or {}
    batch = scoring.select(example_loops.every_completion(world, loop)[0], torch.arange(200, 208))
    token_rewards = scoring.token_rewards(
        rewards, torch.zeros_like(batch.old_logprobs), batch.completion_mask
    )
    return loop.compare(batch, token_rewards)


REWARDS = torch.tensor([1.0, 2.0, 2.0, 5.0, 0.0, 0.0, 0.0, -3.0], dtype=torch.float64)


@pytest.mark.parametrize("name", advantages.GROUP_COMPARISONS)
def test_groups_are_judged_as_in_chapter_06(world, name):
    found, memory = judged_by(world, name, REWARDS)
    assert_close(found, advantages.GROUP_COMPARISONS[name](REWARDS.view(2, 4)).view(-1))
    assert memory == {}


def test_constants_and_the_running_mean(world):
    assert_close(judged_by(world, "none", REWARDS)[0], REWARDS)
    assert_close(judged_by(world, "constant", REWARDS, constant=1.5)[0], REWARDS - 1.5)
    first, memory = judged_by(world, "running_mean", REWARDS)
    assert_close(first, REWARDS)  # nothing is known yet; the batch itself must not be used
    assert float(memory["mean"]) == pytest.approx(7 / 8)  # (10 − 3) / 8
    second, memory = judged_by(world, "running_mean", REWARDS + 8, memory)
    assert_close(second, REWARDS + 8 - 7 / 8)
    assert float(memory["mean"]) == pytest.approx(0.9 * 7 / 8 + 0.1 * (8 + 7 / 8))


def test_a_learned_value_is_fitted_to_past_batches_only(world):
    config = Config(prompts_per_step=2, group_size=341, max_new_tokens=4, baseline="learned_value")
    loop = example_loops.word_loop(world, config=config)
    batch, _, _ = example_loops.every_completion(world, loop)
    mask = batch.completion_mask
    constant = torch.full((len(mask),), 3.0, dtype=torch.float64)
    paid = scoring.token_rewards(constant, torch.zeros_like(batch.old_logprobs), mask)
    judged, memory = loop.compare(batch, paid)
    assert_close(judged, 3.0 * mask.double())  # V is 0 before anything was seen
    loop.state.memory = memory
    judged, _ = loop.compare(batch, paid)  # what always pays 3 is worth 3 in every state
    assert judged.abs().max() < 1e-9


class Together:
    """What the loop asks of an Accelerator, for threads that take turns at a barrier."""

    def __init__(self, count):
        self.barrier, self.parts = threading.Barrier(count, timeout=60), [None] * count

    def seat(self, rank):
        def meet(mine):
            self.parts[rank] = mine.clone()
            self.barrier.wait()
            everyone = list(self.parts)
            self.barrier.wait()
            return everyone

        return types.SimpleNamespace(
            device=torch.device("cpu"),
            process_index=rank,
            num_processes=len(self.parts),
            gather=lambda mine: torch.cat(meet(mine)),
            reduce=lambda mine, how: sum(meet(mine)),
        )


def loop_of(world, config, accelerator=None):
    lm = tiny_models.word_language_model(world, tiny_models.word_transformer(world, seed=3))
    ref = tiny_models.word_language_model(world, tiny_models.word_transformer(world, seed=8))
    return train.Loop(lm, list(world.prompts), world.reward, config, ref, accelerator)


def weights_after(loop):
    records = [loop.step() for _ in range(loop.config.steps)]
    return torch.cat([p.detach().flatten() for p in loop.lm.model.parameters()]), records


@pytest.mark.parametrize("baseline", settings.BASELINES)
def test_two_processes_make_the_update_of_one(world, baseline):
    config = Config(
        steps=3,
        prompts_per_step=4,
        group_size=3,
        max_new_tokens=4,
        kl_coef=0.1,
        baseline=baseline,
        constant=0.5,
    )
    alone, records = weights_after(loop_of(world, config))
    together = Together(2)
    loops_of_two = [loop_of(world, config, together.seat(rank)) for rank in (0, 1)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = list(pool.map(weights_after, loops_of_two))
    for weights, theirs in both:
        assert_close(weights, alone, rtol=0, atol=1e-9)
        for one, other in zip(records, theirs, strict=True):
            for name in ("reward", "reward_std", "entropy", "kl", "length", "silent", "grad_norm"):
                assert getattr(one, name) == pytest.approx(getattr(other, name)), name
    for one, *parts in zip(records, both[0][1], both[1][1], strict=True):
        assert one.completions == parts[0].completions + parts[1].completions


def test_groups_that_would_be_split_are_refused(world):
    with pytest.raises(ValueError, match="multiple of the number of processes"):
        config = Config(prompts_per_step=3, group_size=2, max_new_tokens=4)
        loop_of(world, config, Together(2).seat(0))
