"""Figures of chapter 03: they draw, and show the numbers that they were given."""

import torch
from matplotlib.figure import Figure

from course.ch03_token_mdp import figures
from course.exact import oracle, values
from tests import figure_battery


def examples(world, table) -> dict:
    with torch.no_grad():
        levels = oracle.state_logprobs(table, world, "praise")
    words, probs = list(world.words), [0.1, 0.2, 0.3, 0.25, 0.15]
    return {
        "values": figures.value_tree(
            levels, probs, words, [0, 1], name="Q", title="praise", probs=probs, level=0.1
        ),
        "values, ended": figures.value_tree(
            levels, None, words, [2, 4], name="Q", title="praise", probs=[]
        ),
        "values, colours": figures.colored_tree(levels, words, title="praise"),
        "advantage": figures.q_and_advantage(probs, 0.2, probs, words, "not"),
        "credit": figures.credit({"good .": [0.5, 0.5], ".": [-1.0]}, start=0.0),
        "discount": figures.discount_curves(
            [0.0, 1.0], {"start": {"good": [0.0, 1.0]}}, {"start": [0.0, 1.0]}
        ),
        "along": figures.rewards_along(
            ["good", "."], {"a": [0.0, 1.0], "b": [1.0, 0.0]}, {"a": [1.0, 1.0], "b": [1.0, 0.0]}
        ),
    }


def test_every_figure_is_reproducible_and_its_axes_are_labelled(world, table):
    figure_battery.check(lambda: examples(world, table))


def test_the_value_tree_colours_what_can_still_be_written(world, table):
    with torch.no_grad():
        levels = values.policy_values(table, world, "praise").q_value
    for path, boxes in (([], 5 * 85), ([1], 1 + 5 * 21), ([1, 2, 0], 3 + 5), ([1, 4], 2)):
        figure = Figure()
        ax = figure.subplots()
        figures.number_tree(ax, levels, world.words, path)
        drawn = ax.collections[0]
        assert len(drawn.get_paths()) == boxes

    ax = Figure().subplots()
    figures.number_tree(ax, levels, world.words)
    red, green = torch.tensor(ax.collections[0].get_facecolors()[:5, :2]).T
    clear = levels[0][0].abs() > 0.1
    assert clear.sum() >= 3
    assert ((green > red) == (levels[0][0] > 0))[clear].all(), "brown below 0, green above"
