"""Figures: they draw, they are reproducible, and they show the numbers that they were given."""

import sys

import pytest
import torch

from helpers import exact, models, plotting


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
        "learning curves": plotting.learning_curves(
            {"a": {"b": (torch.tensor([[1.0, 0.5], [0.9, 0.4]]), "policy", "-")}}, [10, 100],
            ylabel="error",
        ),
        "two answers": plotting.two_answers(
            words, {"a": (probs, probs, "policy"), "b": (probs, probs, "behavior")}, prefix="not"
        ),
        "maximum": plotting.maximisation_bias([2, 10], [0.5, 1.5], {"a": ([0.5], "o")}),
        "running": plotting.running_estimates(
            [1, 10], {"a": (torch.ones(2, 2), "policy", "-"), "b": (torch.ones(2, 2), "kl", "-")},
            exact=1.0,
        ),
        "estimators": plotting.estimators(
            {"own texts": (0.1, 0.0, 0.2), "no ratio": (0.3, 0.2, 0.1)}, exact=0.1, title="a"
        ),
        "variance": plotting.variance_growth(
            [1, 2], {"a": ([1.0, 2.0], "policy", "o-")}, [0, 10], {"b": ([0.0, 1.0], "-")}
        ),
    }  # fmt: skip


def test_every_figure_draws_and_its_axes_are_labelled(world, table):
    for name, figure in figures(world, table).items():
        assert plotting.png(figure).startswith(b"\x89PNG"), name
        visible = [ax for ax in figure.axes if ax.axison]
        assert all(ax.get_ylabel() or ax.get_title(loc="left") for ax in visible), name
        assert name == "loop" or any(ax.get_ylabel() for ax in figure.axes), name


def test_the_same_figure_gives_the_same_bytes(world, table):
    first, second = figures(world, table), figures(world, table)
    for name in first:
        assert plotting.png(first[name]) == plotting.png(second[name]), name


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
