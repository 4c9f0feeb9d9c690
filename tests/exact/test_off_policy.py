"""Exact moments against enumerated pairs and triples, hand numbers, and sampling."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from course.exact import importance, off_policy, oracle, tables, values
from course.worlds import word_world
from helpers import logprobs

PAYS = {".": 1.0, "a .": 3.0, "a a": -2.0}
SMALL = word_world.TokenWorld(
    ("a", "."), ("p",), 2, lambda prompts, texts: [PAYS[x] for x in texts]
)


def two_step(first: float, second: float) -> tables.TablePolicy:
    rows = [[first, 1 - first], [second, 1 - second]]
    return tables.table_policy(torch.tensor(rows, dtype=torch.float64), SMALL)


@pytest.fixture
def small() -> off_policy.OffPolicy:
    return off_policy.off_policy(two_step(0.5, 0.2), two_step(0.25, 0.5), SMALL, "p", gamma=0.5)


@pytest.fixture
def problem(world, table) -> off_policy.OffPolicy:
    generator = torch.Generator().manual_seed(9)
    target = tables.TablePolicy(world, std=1.0, generator=generator)
    return off_policy.off_policy(target, table, world, "praise")


def test_the_small_world_by_hand(small):
    # texts `.`, `a .`, `a a`; μ: 0.75, 0.125, 0.125; π: 0.5, 0.4, 0.1; ratios 2/3, 3.2, 0.8
    assert_close(small.probability, torch.tensor([0.75, 0.125, 0.125]).double())
    assert_close(small.ratio, torch.tensor([2 / 3, 3.2, 0.8]).double())
    assert_close(small.returns, torch.tensor([1, 1.5, -1.0]).double())  # γ = 0.5
    assert small.truth == pytest.approx(0.5 * 1 + 0.4 * 1.5 - 0.1)  # 1.0
    terms = small.terms()
    # own-word ratios: `.` 0.5/0.75 = 2/3; the second `.` 0.8/0.5 = 1.6; the second a 0.2/0.5
    expected = {
        "no ratio": [1, 1.5, -1.0],
        "token ratios": [2 / 3, 1.6 * 1.5, -0.4],
        "ordinary": [2 / 3, 4.8, -0.8],
        "per-decision": [2 / 3, 4.8, -0.8],
    }
    assert terms.keys() == expected.keys()
    for name, numbers in expected.items():
        assert_close(terms[name], torch.tensor(numbers).double())
    found = off_policy.of_each_kind(small, count=4)
    assert found["ordinary"].bias == pytest.approx(0.0, abs=1e-12)
    # E = 0.75·1 + 0.125·1.5 − 0.125 = 0.8125; E² part: 0.75 + 0.125·2.25 + 0.125 = 1.15625
    assert found["no ratio"].mean == pytest.approx(0.8125)
    assert found["no ratio"].variance == pytest.approx((1.15625 - 0.8125**2) / 4)
    # 0.75·(2/3) + 0.125·(2.4 − 0.4) = 0.75
    assert found["token ratios"].bias == pytest.approx(0.75 - 1.0)
    # N (E ρ)² / E ρ²: E ρ² = 0.75·4/9 + 0.125·(10.24 + 0.64) = 1.69333
    size = off_policy.expected_sample_size(small.probability, small.ratio, count=4)
    assert size == pytest.approx(4 / (1 / 3 + 1.36))


def test_rmse_has_both_parts():
    assert off_policy.Moments(mean=1.3, truth=1.0, variance=0.16).rmse == pytest.approx(0.5)


def test_rewards_of_words_are_read_along_the_text():
    rewards = [torch.tensor([[10.0, 20.0]]).double(), torch.tensor([[3.0, 4.0]]).double()]
    assert oracle.read_moves(rewards, oracle.word_moves(SMALL)).tolist() == [
        [20, 0],
        [10, 4],
        [10, 3],
    ]


def test_returns_are_the_worlds_rewards(world, other_world, table):
    for any_world in (world, other_world):
        policy = table if any_world is world else tables.TablePolicy(any_world)
        prompt = any_world.prompts[-1]
        found = off_policy.off_policy(policy, policy, any_world, prompt)
        assert_close(found.returns, oracle.rewards(any_world, prompt))
        with torch.no_grad():
            assert found.truth == pytest.approx(float(oracle.objective(policy, any_world, prompt)))
            logp = oracle.completion_logprobs(policy, any_world, prompt).double()
        assert_close(found.probability, logp.exp())
        assert_close(found.ratio, torch.ones_like(found.ratio))


def brute_force(probability, ratios, returns, count):
    """Mean and variance of the self-normalised estimate over all M^N samples."""
    rows = torch.tensor(list(itertools.product(range(len(ratios)), repeat=count)))
    weights = ratios[rows]
    total = weights.sum(-1)
    above = (weights * returns[rows]).sum(-1)
    estimate = torch.where(total > 0, above / total.clamp(min=1e-300), 0.0)
    chance = probability[rows].prod(-1)
    mean = chance @ estimate
    return float(mean), float(chance @ (estimate - mean) ** 2)


def check_self_normalised(probability, ratios, returns, count):
    found = off_policy.of_self_normalised(probability, ratios, returns, count=count, truth=0.0)
    mean, variance = brute_force(probability, ratios, returns, count)
    assert found.mean == pytest.approx(mean, abs=1e-10)
    assert found.variance == pytest.approx(variance, abs=1e-10)


def test_self_normalised_against_all_pairs_of_the_word_world(problem):
    check_self_normalised(problem.probability, problem.ratio, problem.returns, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_self_normalised_against_all_samples_of_the_small_world(small, count):
    check_self_normalised(small.probability, small.ratio, small.returns, count)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_self_normalised_with_ratios_of_zero_and_far_apart(count, scale):
    probability = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    ratios = torch.tensor([0.0, 1e-7, 1.0, 50.0]).double() * scale
    returns = torch.tensor([5.0, -2.0, 1.0, 3.0]).double()
    check_self_normalised(probability, ratios, returns, count)


def test_self_normalised_against_sampling(problem):
    count, runs = 16, 20_000
    generator = torch.Generator().manual_seed(0)
    rows = torch.multinomial(problem.probability, count * runs, True, generator=generator)
    rho, returns = problem.ratio[rows].view(runs, -1), problem.returns[rows].view(runs, -1)
    estimates = (rho * returns).sum(-1) / rho.sum(-1)
    found = off_policy.of_each_kind(problem, count=count)["self-normalised"]
    error = (found.variance / runs) ** 0.5
    assert abs(float(estimates.mean()) - found.mean) < 5 * error
    assert float(estimates.var()) == pytest.approx(found.variance, rel=0.06)
    assert abs(found.bias) > 5 * error, "a bias that could be seen"
    one = importance.self_normalised(rho[0], returns[0])
    assert float(estimates[0]) == pytest.approx(float(one))


def test_the_bias_of_self_normalising_falls_like_one_over_n(problem):
    biases = [
        off_policy.of_self_normalised(
            problem.probability, problem.ratio, problem.returns, count=n, truth=problem.truth
        ).bias
        for n in (50_000, 100_000)
    ]
    assert biases[0] / biases[1] == pytest.approx(2.0, rel=0.03)


def test_the_bias_without_coverage_is_the_reward_out_of_reach(world, table):
    def top_2(ids):
        return logprobs.sampling_logits(table(ids), top_k=2)

    found = off_policy.off_policy(table, top_2, world, "praise")
    with torch.no_grad():
        never = oracle.completion_logprobs(top_2, world, "praise") == -torch.inf
        pi = oracle.completion_logprobs(table, world, "praise").exp()
    missing = float((pi * oracle.rewards(world, "praise"))[never].sum())
    assert len(found.probability) == int((~never).sum()) < 341
    assert off_policy.of_each_kind(found, count=3)["ordinary"].bias == pytest.approx(-missing)
    assert abs(missing) > 0.01


def test_rewards_for_words_keep_the_return_and_change_per_decision(world, table):
    target = tables.exploring(table, world, temperature=0.7)
    rewards = values.transition_rewards(world, "pan")
    shaped = values.shape_rewards(rewards, values.stopping_rewards(rewards, world))
    end, word = (
        off_policy.of_each_kind(
            off_policy.off_policy(target, table, world, "pan", rewards=r), count=1
        )
        for r in (rewards, shaped)
    )
    for name in ("ordinary", "per-decision"):
        assert end[name].bias == pytest.approx(0, abs=1e-12)
        assert word[name].bias == pytest.approx(0, abs=1e-12)
    assert end["per-decision"].variance == pytest.approx(end["ordinary"].variance)
    assert word["ordinary"].variance == pytest.approx(end["ordinary"].variance)
    assert word["per-decision"].variance != pytest.approx(end["per-decision"].variance, rel=0.02)


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_the_second_moment_of_independent_words(limit):
    world = word_world.TokenWorld(
        ("a", "b", "c"), ("p",), limit, lambda p, x: [0.0] * len(x), False
    )
    pi, mu = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]]).double()
    states = sum(3**k for k in range(limit))
    policies = [tables.table_policy(row.expand(states, 3), world) for row in (pi, mu)]
    found = off_policy.off_policy(*policies, world, "p")
    second = float(found.probability @ found.ratio**2)
    assert second == pytest.approx(float((pi**2 / mu).sum()) ** limit)  # 1.5633…^T


def test_nonsense_is_refused(problem):
    for count, ratios in ((0, problem.ratio), (2, torch.zeros_like(problem.ratio))):
        with pytest.raises(ValueError, match="N ≥ 1|some above 0"):
            off_policy.of_self_normalised(
                problem.probability, ratios, problem.returns, count=count, truth=0.0
            )
