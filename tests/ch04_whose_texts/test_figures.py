"""Figures of chapter 04: they draw, and show the numbers that they were given."""

import torch

from course.ch04_whose_texts import figures
from tests import figure_battery


def examples(world) -> dict:
    words, probs = list(world.words), [0.1, 0.2, 0.3, 0.25, 0.15]
    return {
        "learning curves": figures.learning_curves(
            {"a": {"b": (torch.tensor([[1.0, 0.5], [0.9, 0.4]]), "policy", "-")}},
            [10, 100],
            ylabel="error",
        ),
        "two answers": figures.two_answers(
            words, {"a": (probs, probs, "policy"), "b": (probs, probs, "behavior")}, prefix="not"
        ),
        "maximum": figures.maximisation_bias([2, 10], [0.5, 1.5], {"a": ([0.5], "o")}),
        "running": figures.running_estimates(
            [1, 10],
            {"a": (torch.ones(2, 2), "policy", "-"), "b": (torch.ones(2, 2), "kl", "-")},
            exact=1.0,
        ),
        "estimators": figures.estimators(
            {"own texts": (0.1, 0.0, 0.2), "no ratio": (0.3, 0.2, 0.1)}, exact=0.1, title="a"
        ),
        "spread": figures.mean_and_spread(
            {"own texts": (0.1, 0.2), "no ratio": (0.3, 0.1)}, exact=0.1, title="a"
        ),
        "variance": figures.variance_growth(
            [1, 2], {"a": ([1.0, 2.0], "policy", "o-")}, [0, 10], {"b": ([0.0, 1.0], "-")}
        ),
    }


def test_every_figure_is_reproducible_and_its_axes_are_labelled(world):
    figure_battery.check(lambda: examples(world))
