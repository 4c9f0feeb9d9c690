"""Ascent on token worlds: what is drawn, what is scored, and that J really rises."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from course.exact import ascent, gradients, oracle, tables
from course.worlds import tiny_models, word_world
from helpers import models

PAID = {"awful": -1.0, "decent": 1.0, "superb": 2.0}


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def climb(policy, parameters, world, generator=None, **settings):
    """The exact J before the first step and after each."""
    records = ascent.climb(
        policy, parameters, world, ascent.Settings(**settings), generator=generator
    )
    return [record["objective"] for record in records]


def test_the_draws_follow_the_exact_distribution(world, table):
    with torch.no_grad():
        probs = oracle.completion_logprobs(table, world, "praise").exp()
    rows = ascent.draw(table, world, "praise", 20_000, generator=fresh())
    counts = torch.bincount(rows, minlength=341)
    assert oracle.chi_square_p_value(counts, probs) > 1e-3
    again = ascent.draw(table, world, "praise", 20_000, generator=fresh())
    assert torch.equal(rows, again), "the generator is the only source of chance"
    colder = oracle.completion_logprobs(lambda ids: table(ids) / 0.7, world, "praise").exp()
    assert oracle.chi_square_p_value(counts, colder.detach()) < 1e-6, "the test can fail"


def test_scores_are_the_words_of_the_joint(world, other_world):
    for place in (world, other_world):
        table = tables.TablePolicy(place, std=1.0, generator=fresh())
        prompt = place.prompts[-1]
        number = len(oracle.enumerate_completions(place).texts)
        token_logprobs, mask = ascent.score(table, place, prompt, torch.arange(number))
        joint = oracle.completion_logprobs(table, place, prompt)
        assert_close(token_logprobs.sum(-1), joint, rtol=0, atol=1e-12)
        assert torch.equal(mask.sum(-1), oracle.enumerate_completions(place).lengths)
        assert bool((token_logprobs[~mask] == 0).all())


def test_every_pair_of_texts_averages_to_the_gradient():
    """E[ĝ] over all batches of two, for three texts: nine batches, by hand weighted."""
    world = ascent.bandit(PAID)
    table = tables.TablePolicy(world, std=1.0, generator=fresh())
    probs = table.logits[0, 0].softmax(-1).tolist()
    mean = torch.zeros(3, dtype=torch.float64)
    for i, j in itertools.product(range(3), repeat=2):
        found = ascent.estimate(table, [table.logits], world, "taste", torch.tensor([i, j]))
        mean = mean + probs[i] * probs[j] * found
    p = torch.tensor(probs, dtype=torch.float64)
    paid = torch.tensor(list(PAID.values()), dtype=torch.float64)
    assert_close(mean, p * (paid - p @ paid), rtol=0, atol=1e-12)  # p (R − J)


def test_an_estimate_is_the_mean_of_reward_times_score(world):
    transformer = tiny_models.word_transformer(world, seed=7, width=8, layers=1)
    policy, weights = models.as_policy(transformer), list(transformer.parameters())
    problem = gradients.gradient_problem(policy, weights, world, "pan")
    rows = torch.tensor([0, 5, 5, 77, 340])
    expected = (problem.rewards[:, None] * problem.scores)[rows].mean(0)
    found = ascent.estimate(policy, weights, world, "pan", rows)
    assert_close(found, expected, rtol=0, atol=1e-10)


def test_one_exact_step_by_hand():
    world = ascent.bandit({"no": 0.0, "yes": 1.0})
    table = tables.TablePolicy(world)
    heights = climb(table, [table.logits], world, lr=2.0, steps=1)
    # p = ½, ∇J = p (R − J) = (−¼, ¼); z = (−½, ½); J = 1 / (1 + e^(−1))
    assert table.logits[0, 0].tolist() == pytest.approx([-0.5, 0.5])
    assert heights == pytest.approx([0.5, 1 / (1 + 2.718281828**-1)])


def test_both_prompts_count_equally(world):
    table = tables.TablePolicy(world)
    before = [oracle.objective_gradient(table, [table.logits], world, c) for c in world.prompts]
    climb(table, [table.logits], world, lr=3.0, steps=1)
    expected = 3.0 * (before[0] + before[1]) / 2
    assert_close(table.logits.detach().reshape(-1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_table_learns_from_samples(world, seed):
    table = tables.TablePolicy(world)
    heights = climb(table, [table.logits], world, fresh(seed), lr=2.0, steps=25, group_size=16)
    assert heights[0] == pytest.approx(-0.4096, abs=1e-4)  # uniform: the same at every seed
    assert heights[-1] > heights[0] + 0.5


@pytest.mark.parametrize("seed", range(3))
def test_a_transformer_learns_from_samples(world, seed):
    transformer = tiny_models.word_transformer(world, seed=7, width=16, layers=1)
    heights = climb(
        models.as_policy(transformer),
        list(transformer.parameters()),
        world,
        fresh(seed),
        lr=0.03,
        steps=25,
        group_size=16,
    )
    assert heights[-1] > heights[0] + 0.25


def test_moments_of_a_loss_are_those_of_its_terms():
    world = ascent.bandit(PAID)
    table = tables.TablePolicy(world, std=1.0, generator=fresh())
    problem = gradients.gradient_problem(table, [table.logits], world, "taste")
    expected = gradients.of_terms(problem, problem.rewards[:, None] * problem.scores, count=3)

    def right(scores, rewards, mask):
        return -(scores.sum(-1) * rewards).mean()

    def two_means(scores, rewards, mask):
        return -scores.sum(-1).mean() * rewards.mean()

    found = ascent.moments_of_loss(right, table, problem, world, "taste", batch_size=3)
    assert found.bias < 1e-12 and found.variance == pytest.approx(expected.variance)
    assert found.variance_along == pytest.approx(expected.variance_along)
    # of 3·3 pairs, 3 have a text and its own reward; the others average to 0: 3/9 of ∇J
    mixed = ascent.moments_of_loss(two_means, table, problem, world, "taste", batch_size=3)
    assert mixed.scale == pytest.approx(1 / 3) and mixed.cosine == pytest.approx(1)
    with pytest.raises(ValueError, match="too many"):
        ascent.moments_of_loss(right, table, problem, world, "taste", batch_size=10)


def test_turning_keeps_every_length_and_angle(world):
    transformer = tiny_models.word_transformer(world, seed=7, width=8, layers=1)
    policy, weights = models.as_policy(transformer), list(transformer.parameters())
    problem = gradients.gradient_problem(policy, weights, world, "praise")
    turned = problem.turned()
    assert turned.word_scores.shape == (425, 425)
    gram = problem.word_scores @ problem.word_scores.T
    assert_close(turned.word_scores @ turned.word_scores.T, gram, rtol=1e-9, atol=1e-9)
    pair = [gradients.of_terms(p, p.rewards[:, None] * p.scores) for p in (problem, turned)]
    assert pair[0].variance == pytest.approx(pair[1].variance, rel=1e-9)
    assert pair[0].variance_along == pytest.approx(pair[1].variance_along, rel=1e-9)
    assert float(pair[0].truth.norm()) == pytest.approx(float(pair[1].truth.norm()), rel=1e-9)


def test_what_is_refused():
    world = ascent.bandit(PAID)
    table = tables.TablePolicy(world)
    assert isinstance(world, word_world.TokenWorld) and world.reward([""], ["superb"]) == [2.0]
    with pytest.raises(ValueError, match="count must be ≥ 1"):
        ascent.draw(table, world, "taste", 0, generator=fresh())
    with pytest.raises(ValueError, match="generator"):
        climb(table, [table.logits], world, lr=1.0, steps=1, group_size=4)
    with pytest.raises(ValueError, match="lr must be finite"):
        climb(table, [table.logits], world, lr=float("inf"), steps=3)
    with pytest.raises(ValueError, match="not finite"):
        climb(lambda ids: table(ids) * float("nan"), [table.logits], world, lr=1.0, steps=3)
