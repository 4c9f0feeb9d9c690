"""Figures of chapter 00: they draw, and show the numbers that they were given."""

from course.ch00_start import figures
from tests import figure_battery


def examples() -> dict:
    return {
        "reward": figures.reward_and_share([0.0, 1.0], [1.0, 0.5], start=0.0, mark=1),
        "loop": figures.loop_diagram(),
    }


def test_every_figure_is_reproducible_and_its_axes_are_labelled():
    figure_battery.check(examples, schematic={"loop"})
