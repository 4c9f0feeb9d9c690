"""Figures of chapter 07: they draw, and show the numbers that they were given."""

import math

import pytest

from course.ch07_language_model import figures
from course.kit import style
from tests import figure_battery


def examples() -> dict:
    return {
        "laboratory": figures.laboratory(
            {"1: praise": {"reward": [0.0, 1.0], "kl": [0.0, float("nan")]}},
            exact={"entropy": 13.0},
            title="1 run",
        ),
        "laboratory, nothing yet": figures.laboratory({}, exact={}, title="press Run"),
        "work": figures.work({"plain": (10, 5), "cache": (4, 5)}),
        "multiples": figures.multiples(
            {"J": {"J": [0.0, 1.0]}, "nats": {"nll": [1.0, float("nan")], "H": [1.0, 2.0]}},
            exact={"J": 2.0},
        ),
        "symptoms": figures.symptoms(
            {"A": {"J": [[0.0, 1.0]]}, "B": {"J": [[0.0, 0.0]]}},
            {"J": [[0.0, 2.0]]},
            exact={"J": 2.0},
            limits={"J": (-1.0, 2.0)},
        ),
        "steps": figures.steps_to_threshold(
            {"as is": {"none": [3.0, float("nan"), 5.0]}}, most=10, title="steps"
        ),
    }


def test_every_figure_is_reproducible_and_its_axes_are_labelled():
    figure_battery.check(
        examples, titled={"laboratory", "laboratory, nothing yet", "multiples", "steps"}
    )


def test_the_laboratory_names_its_panels():
    for axes in (figures.laboratory({}, exact={}, title="").axes, examples()["laboratory"].axes):
        titles = [ax.get_title(loc="left") for ax in axes if ax.axison]
        assert titles == list(figures.PANELS.values())


def test_the_bar_is_the_median_and_who_never_arrives_stands_beyond_the_line():
    found = {"a": [9.0, 1.0, 2.0], "b": [math.nan, 3.0, math.nan]}
    [ax] = figures.steps_to_threshold({"as is": found}, most=10, title="steps").axes
    dots = [sorted(line.get_xdata()) for line in ax.lines if line.get_marker() == "o"]
    assert dots[0] == [1, 2, 9]  # a dot a seed
    assert len(dots[1]) == 3, "nobody is left out"
    assert dots[1][0] == 3 and dots[1][1] == dots[1][2] > 10  # two that were given up
    bars = [c.get_segments()[0][0][0] for c in ax.collections]
    assert bars[0] == 2 and bars[1] == dots[1][1]  # medians; of b it is “never”
    dotted = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert 10 < dotted[0] < dots[1][1]


def test_work_adds_scoring_to_writing():
    [ax] = figures.work({"plain": (10, 5), "cache": (4, 5)}).axes
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert ends == [10, 4, 15, 9]
    assert {"15", "9"} <= {text.get_text().strip() for text in ax.texts}


def test_symptoms_has_a_row_a_set_with_the_right_loop_behind():
    sets = {"A": {"J": [[0.0, 1.0]], "x": [[5.0, 5.0]]}, "B": {"J": [[0.0, 0.5]], "x": [[0, 0]]}}
    right = {"J": [[0.0, 2.0]], "x": [[1.0, 1.0]]}
    limits = {"J": (-1.0, 2.0), "x": (0.0, 3.0)}
    axes = figures.symptoms(sets, right, exact={"J": 2.0, "x": 0.0}, limits=limits).axes
    for ax, (name, title) in zip(axes, [(n, t) for n in "AB" for t in "Jx"], strict=True):
        grey, blue, dashes = ax.lines
        assert list(grey.get_ydata()) == right[title][0]
        assert list(blue.get_ydata()) == sets[name][title][0]
        assert grey.get_color() == style.COLORS["reference"]
        assert dashes.get_linestyle() == "--"
        low, high = limits[title]
        assert ax.get_ylim()[0] < low and high < ax.get_ylim()[1]


def test_multiples_leave_out_nan_and_mark_the_exact_value():
    panels = {"J": {"J": [0.0, 1.0]}, "nats": {"nll": [1.0, math.nan], "H": [1.0, 2.0]}}
    axes = figures.multiples(panels, exact={"J": 3.0}, columns=2).axes
    dashes = [line for line in axes[0].lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashes] == [3.0]
    assert axes[0].get_ylim()[1] > 3.0  # the exact value is in sight
    assert axes[1].get_ylim() == pytest.approx((1 - 0.08, 2 + 0.08))
    assert axes[0].get_legend() is None and axes[1].get_legend() is not None
