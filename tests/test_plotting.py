"""Figures: they draw, they are reproducible, and they show the numbers that they were given."""

import sys

import pytest
import torch

from helpers import exact, models, plotting, values


@pytest.fixture(autouse=True)
def style():
    plotting.use_style()


def figures(world, table) -> dict:
    with torch.no_grad():
        levels = exact.state_logprobs(table, world, "praise")
    words, probs = list(world.words), [0.1, 0.2, 0.3, 0.25, 0.15]
    return {
        "conditionals": plotting.conditionals({"z": probs, "2 z": probs}, words),
        "tree": plotting.prefix_tree(levels, words, "praise", [0, 1]),
        "tree, ended": plotting.prefix_tree(levels, words, "praise", [2, 4]),
        "tree, cut": plotting.prefix_tree(levels, words, "praise", [2, 2, 2, 2]),
        "sampled": plotting.sampled_against_exact(words, probs, probs, count=100),
        "product": plotting.running_product(
            {"sum": ([-1.0, -2.0, -3.0], "exact", "--"),
             "product": ([-1.0, -2.0, -torch.inf], "policy", "-")}
        ),
        "samplers": plotting.samplers(words, probs, probs, words, probs, probs),
        "diagonal": plotting.diagonal([-1.0, -2.0], [-1.1, -2.0], xlabel="x", ylabel="y"),
        "reward": plotting.reward_and_share([0.0, 1.0], [1.0, 0.5], start=0.0, mark=1),
        "loop": plotting.loop_diagram(),
        "values": plotting.value_tree(
            levels, probs, words, [0, 1], name="Q", title="praise", probs=probs, level=0.1
        ),
        "values, ended": plotting.value_tree(
            levels, None, words, [2, 4], name="Q", title="praise", probs=[]
        ),
        "advantage": plotting.q_and_advantage(probs, 0.2, probs, words, "not"),
        "credit": plotting.credit({"good .": [0.5, 0.5], ".": [-1.0]}, start=0.0),
        "discount": plotting.discount_curves(
            [0.0, 1.0], {"start": {"good": [0.0, 1.0]}}, {"start": [0.0, 1.0]}
        ),
        "along": plotting.rewards_along(
            ["good", "."], {"a": [0.0, 1.0], "b": [1.0, 0.0]}, {"a": [1.0, 1.0], "b": [1.0, 0.0]}
        ),
        "clouds": plotting.clouds(
            {"a": torch.eye(2), "b": 2 * torch.eye(2)}, truth=0.5, count=8
        ),
        "parabolas": plotting.parabolas(
            [0.0, 1.0], {"a": [1.0, 2.0], "b": [1.0, 3.0]},
            {"a": {"b*": (0.0, 1.0)}, "b": {"b*": (0.0, 1.0)}},
        ),
        "bars": plotting.moment_bars(
            [("V", 0.5, 1.0, 0.0), ("z", 2.0, 1.4, 9.0)], chosen="V", title="K = 4"
        ),
        "bernoulli": plotting.bernoulli_curves([0.1, 0.9], {"none": [1.0, 0.1]}, group_size=4),
        "difficulty": plotting.difficulty(
            [0.1, 0.9], {"K = 2": [1.0, 1.0], "limit": [3.0, 3.0]}, "limit", [2, 4],
            {"0 or 1": [0.0, 3.0]},
        ),
        "trade-off": plotting.trade_off([0.0, 1.0], [0.5, 0.0], [1.0, 2.0], [4, 16]),
        "learning": plotting.learning_curves([("V", [0.0, 1.0])], best=2.0, title="J"),
        "learning, nothing yet": plotting.learning_curves([], best=2.0),
    }  # fmt: skip


def test_every_figure_draws_the_same_twice_and_its_axes_are_labelled(world, table):
    again = figures(world, table)
    for name, figure in figures(world, table).items():
        picture = plotting.png(figure)
        assert picture.startswith(b"\x89PNG") and picture == plotting.png(again[name]), name
        visible = [ax for ax in figure.axes if ax.axison]
        assert all(ax.get_ylabel() or ax.get_title(loc="left") for ax in visible), name
        assert name == "loop" or any(ax.get_ylabel() for ax in figure.axes), name


def test_box_heights_of_the_tree_are_probabilities(world, table):
    with torch.no_grad():
        levels = exact.state_logprobs(table, world, "praise")
        probs = exact.completion_logprobs(table, world, "praise").exp()
    figure = plotting.Figure()
    ax = figure.subplots()
    plotting.icicle(ax, levels, world.words, path=[1, 2])
    boxes, outline = ax.collections
    heights = [p.vertices[:, 1].max() - p.vertices[:, 1].min() for p in boxes.get_paths()]
    assert len(heights) == 5 * 85
    # one box a prefix: all of level k sum to the probability of writing a (k+1)-th word
    assert sum(heights[:5]) == pytest.approx(1.0)
    every = exact.enumerate_completions(world)
    assert sum(heights[-256 - 64 :]) == pytest.approx(float(probs[every.lengths == 4].sum()))
    last = outline.get_paths()[-1].vertices[:, 1]
    expected = (levels[0][0, 1] + levels[1][1, 2]).exp()
    assert last.max() - last.min() == pytest.approx(float(expected))


def test_colours_of_roles_are_distinct_and_exact_is_black():
    assert len(set(plotting.COLORS.values())) == len(plotting.COLORS)
    assert plotting.COLORS["exact"] == "#000000"


def test_no_figure_goes_through_pyplot(world, table):
    figures(world, table)
    models.word_transformer(world, seed=0)
    assert "matplotlib.pyplot" not in sys.modules


def test_the_value_tree_colours_what_can_still_be_written(world, table):
    with torch.no_grad():
        levels = values.policy_values(table, world, "praise").q_value
    for path, boxes in (([], 5 * 85), ([1], 1 + 5 * 21), ([1, 2, 0], 3 + 5), ([1, 4], 2)):
        figure = plotting.Figure()
        ax = figure.subplots()
        plotting.number_tree(ax, levels, world.words, path)
        drawn = ax.collections[0]
        assert len(drawn.get_paths()) == boxes

    ax = plotting.Figure().subplots()
    plotting.number_tree(ax, levels, world.words)
    red, green = torch.tensor(ax.collections[0].get_facecolors()[:5, :2]).T
    clear = levels[0][0].abs() > 0.1
    assert clear.sum() >= 3
    assert ((green > red) == (levels[0][0] > 0))[clear].all(), "brown below 0, green above"
