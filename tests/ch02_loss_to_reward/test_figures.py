"""Figures of chapter 02: they draw, and show the numbers that they were given."""

from course.ch02_loss_to_reward import figures
from tests import figure_battery


def examples(world) -> dict:
    return {
        "teachers": figures.two_teachers(),
        "learning curve": figures.learning_curve([40.0, 20.0, 13.5], floor=13.0, steps=5),
        "entropy and kl": figures.entropy_plus_kl(
            [0, 5], [9.0, 1.0], [22.0, 14.0], [0.5, 0.5], entropy=13.0
        ),
        "gradient norms": figures.gradient_norms(
            [1, 4], {"data": [[2.0, 1.5]], "own": [[2.0, 1.0]]}, exact=1.4
        ),
        "critics": figures.two_critics(
            [0.2, 0.4, 0.6],
            [13.2, 13.0, 13.1],
            [-0.5, -0.2, 0.2],
            data=(0.4, 13.0, -0.2),
            model=(0.6, 13.1, 0.2),
        ),
        "honest and gaming": figures.honest_and_gaming(
            {
                "length": ([3.0, 4.0, 8.0], 30.0, "words"),
                "flat": ([1.0, 1.0], 1.0, "units"),
                "empty": ([], 2.0, "units"),
            },
            honest="3 reviews",
            gaming="spam",
        ),
    }


def test_every_figure_is_reproducible_and_its_axes_are_labelled(world):
    figure_battery.check(lambda: examples(world), schematic={"teachers"})
