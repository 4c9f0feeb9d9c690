"""Figures of chapter 05: they draw, and show the numbers that they were given."""

import pytest

from course.ch05_reinforce import figures
from tests import figure_battery


def examples(world) -> dict:
    probs = [0.1, 0.2, 0.3, 0.25, 0.15]
    return {
        "simplex": figures.simplex(
            ["a", "b", "c"],
            [-1.0, 1.0, 2.0],
            {
                "arrows": {
                    "start": probs[:3],
                    "tips": [[0, 0, 1]],
                    "mean": [0, 1, 0],
                    "exact": [1, 0, 0],
                },
                "paths": {"exact": [[1, 0, 0], [0, 0, 1]], "sampled": [[[1, 0, 0], [0, 1, 0]]]},
            },
        ),
        "playground": figures.playground(
            ["a", "b", "c"],
            [1.0, 1.0, 1.0],
            [0.2, 0.3, 0.5],
            [[0, 0, 1]],
            [0, 1, 0],
            [1, 0, 0],
            {"exact": [[0.2, 0.3, 0.5]], "sampled": [[0.2, 0.3, 0.5]]},
            title="level",
        ),
        "cloud": figures.gradient_cloud({"N = 1": [(0.5, 0.1), (1.2, 0.0)]}, (1.0, 0.0)),
        "errors": figures.error_curves([1, 4], [[1.0, 0.6], [0.9, 0.4]], [1.0, 0.5]),
        "estimator bars": figures.estimator_bars(
            {"angle, degrees": ({"a": 0.0, "b": 3.0}, 0.0), "scale": ({"a": -1.0, "b": 1.0}, 1.0)}
        ),
        "variances": figures.estimator_bars({"x": ({"a": 1.0}, None), "y": ({"a": 2.0}, None)}),
        "curves": figures.curves(
            [0, 1], {"left": {"a": [1.0, 2.0]}}, xlabel="x", looks={"a": {}}, ylabels=["y"]
        ),
        "ascent": figures.ascent_curves({"table": ([0.0, 1.0], [[0.0, 0.9]])}, best=2.0),
    }


def test_every_figure_is_reproducible_and_its_axes_are_labelled(world):
    figure_battery.check(lambda: examples(world))


def test_the_triangle_places_probabilities_and_levels_where_they_belong():
    ax = figures.simplex(
        ["a", "b", "c"],
        [0.0, 0.0, 8.0],
        {"p": {"start": [0.0, 0.0, 1.0], "tips": [], "mean": None, "exact": [0.5, 0.5, 0.0]}},
    ).axes[0]
    [dot] = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert tuple(dot.get_xydata()[0]) == pytest.approx((0.5, 0.866)), "all on the third text"
    [arrow] = [t for t in ax.texts if getattr(t, "arrow_patch", None)]
    assert arrow.xy == pytest.approx((0.5, 0.0)), "half and half of the first two"
    # J = 8 p₃: seven level lines, J = 1 … 7, parallel to the base, at the height 0.866 J / 8
    levels = [c for c in ax.collections if len(c.get_segments()) == 7]
    heights = sorted(segment[0][1] for segment in levels[0].get_segments())
    assert heights == pytest.approx([0.866 * k / 8 for k in range(1, 8)])
    assert all(s[0][1] == pytest.approx(s[1][1]) for s in levels[0].get_segments())
