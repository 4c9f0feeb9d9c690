"""Figures of chapter 01: they draw, and show the numbers that they were given."""

import pytest
import torch
from matplotlib.figure import Figure

from course.ch01_factorization import figures
from course.exact import oracle
from tests import figure_battery


def examples(world, table) -> dict:
    with torch.no_grad():
        levels = oracle.state_logprobs(table, world, "praise")
    words, probs = list(world.words), [0.1, 0.2, 0.3, 0.25, 0.15]
    return {
        "conditionals": figures.conditionals({"z": probs, "2 z": probs}, words),
        "tree": figures.prefix_tree(levels, words, "praise", [0, 1]),
        "tree, ended": figures.prefix_tree(levels, words, "praise", [2, 4]),
        "tree, cut": figures.prefix_tree(levels, words, "praise", [2, 2, 2, 2]),
        "sampled": figures.sampled_against_exact(words, probs, probs, count=100),
        "product": figures.running_product(
            {
                "sum": ([-1.0, -2.0, -3.0], "exact", "--"),
                "product": ([-1.0, -2.0, -torch.inf], "policy", "-"),
            }
        ),
        "samplers": figures.samplers(words, probs, probs, words, probs, probs),
        "diagonal": figures.diagonal([-1.0, -2.0], [-1.1, -2.0], xlabel="x", ylabel="y"),
    }


def test_every_figure_is_reproducible_and_its_axes_are_labelled(world, table):
    figure_battery.check(lambda: examples(world, table))


def test_box_heights_of_the_tree_are_probabilities(world, table):
    with torch.no_grad():
        levels = oracle.state_logprobs(table, world, "praise")
        probs = oracle.completion_logprobs(table, world, "praise").exp()
    figure = Figure()
    ax = figure.subplots()
    figures.icicle(ax, levels, world.words, path=[1, 2])
    boxes, outline = ax.collections
    heights = [p.vertices[:, 1].max() - p.vertices[:, 1].min() for p in boxes.get_paths()]
    assert len(heights) == 5 * 85
    # one box a prefix: all of level k sum to the probability of writing a (k+1)-th word
    assert sum(heights[:5]) == pytest.approx(1.0)
    every = oracle.enumerate_completions(world)
    assert sum(heights[-256 - 64 :]) == pytest.approx(float(probs[every.lengths == 4].sum()))
    last = outline.get_paths()[-1].vertices[:, 1]
    expected = (levels[0][0, 1] + levels[1][1, 2]).exp()
    assert last.max() - last.min() == pytest.approx(float(expected))
