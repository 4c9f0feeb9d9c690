"""Figures of chapter 06: they draw, and show the numbers that they were given."""

import torch

from course.ch06_baselines import figures
from tests import figure_battery


def examples() -> dict:
    return {
        "clouds": figures.clouds({"a": torch.eye(2), "b": 2 * torch.eye(2)}, truth=0.5, count=8),
        "parabolas": figures.parabolas(
            [0.0, 1.0],
            {"a": [1.0, 2.0], "b": [1.0, 3.0]},
            {"a": {"b*": (0.0, 1.0)}, "b": {"b*": (0.0, 1.0)}},
        ),
        "bars": figures.moment_bars(
            [("V", 0.5, 1.0, 0.0), ("z", 2.0, 1.4, 9.0)], chosen="V", title="K = 4: "
        ),
        "bernoulli": figures.bernoulli_curves([0.1, 0.9], {"none": [1.0, 0.1]}),
        "difficulty": figures.difficulty(
            [0.1, 0.9],
            {"K = 2": [1.0, 1.0], "limit": [3.0, 3.0]},
            "limit",
            [2, 4],
            {"0 or 1": [0.0, 3.0]},
        ),
        "trade-off": figures.trade_off([0.0, 1.0], [0.5, 0.0], [1.0, 2.0], [4, 16]),
        "learning": figures.objective_curves([("V", [0.0, 1.0])], best=2.0, title="J"),
        "learning, nothing yet": figures.objective_curves([], best=2.0),
    }


def test_every_figure_is_reproducible_and_its_axes_are_labelled():
    figure_battery.check(examples, schematic={"bars"})


def test_bars_without_axes_say_in_words_what_they_show():
    figure = examples()["bars"]
    written = {text.get_text() for text in figure.texts}
    assert {"baseline", "K = 4: variance / none", "mean along ∇L / ‖∇L‖"} <= written
    assert "biased: × 1.40, 9.0°" in written and sum("biased" in t for t in written) == 1
