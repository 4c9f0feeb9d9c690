"""The simplex playground, driven as a reader would drive it, without a browser."""

import math

import pytest
import torch

from course.ch05_reinforce import widgets
from course.exact import ascent
from course.kit import style


@pytest.fixture
def playground():
    style.use_style()
    return widgets.SimplexPlayground()


def test_the_playground_steps_along_the_exact_gradient(playground):
    # uniform, R = (−1, 1, 2): J = 2/3, ∇J = p (R − J) = (−5, 1, 4)/9, η = 1
    assert "J = <b>+0.667</b>" in playground.state.value
    playground.exact_step.click()
    weights = [math.exp(x / 9) for x in (-5, 1, 4)]
    expected = [w / sum(weights) for w in weights]
    assert playground._paths["exact"][-1] == pytest.approx(expected)
    value = -expected[0] + expected[1] + 2 * expected[2]
    assert f"J = <b>{value:+.3f}</b>" in playground.state.value
    playground.reset.click()
    assert "J = <b>+0.667</b>" in playground.state.value
    assert len(playground._paths["exact"]) == 1


def test_sampled_steps_are_their_own_path(playground):
    playground.sampled_step.click()
    playground.sampled_step.click()
    assert [len(playground._paths[name]) for name in ("exact", "sampled")] == [1, 3]
    first = [tuple(probs) for probs in playground._paths["sampled"]]
    playground.reset.click()
    playground.sampled_step.click()
    playground.sampled_step.click()
    assert [tuple(probs) for probs in playground._paths["sampled"]] == first, "seeded"


def test_a_constant_reward_moves_the_spread_and_not_the_gradient(playground):
    def numbers():
        return [float(part.split("</b>")[0]) for part in playground.state.value.split("<b>")[1:]]

    before = numbers()
    playground.shift.value = 10
    after = numbers()
    assert after[0] == pytest.approx(before[0] + 10) and after[1] == before[1]
    assert after[2] > 5 * before[2]
    playground.count.value = 64  # 16 → 64: half the spread
    assert numbers()[2] == pytest.approx(after[2] / 2, abs=2e-3)


def test_every_control_of_the_playground_redraws(playground):
    for control, value in (
        (playground.preset, "0, 0, +1: only one is paid"),
        (playground.rewards[0], 2.0),
        (playground.begin, "“superb” is rare (1 %)"),
        (playground.lr, 3.0),
        (playground.count, 4),
    ):
        before = playground.image.value
        control.value = value
        assert playground.image.value != before and control.description, control.description
    assert [slider.value for slider in playground.rewards] == [2.0, 0.0, 1.0]


def test_sampled_moves_scatter_around_the_exact_one():
    world = ascent.bandit({"a": -1.0, "b": 1.0, "c": 2.0})
    start = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    moves = widgets.simplex_moves(world, start, lr=0.7, count=4, seed=3)
    truth = moves.moments.truth
    assert moves.exact == pytest.approx((start + 0.7 * truth).softmax(-1).tolist())
    spread = (moves.estimates - truth).pow(2).sum(-1).mean()
    assert 0.3 < float(spread) / moves.moments.variance < 3  # 30 batches
    far = (moves.estimates.mean(0) - truth).norm()
    assert float(far) < 4 * (moves.moments.variance / 30) ** 0.5
