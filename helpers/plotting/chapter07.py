"""Figures of chapter 07, REINFORCE on a language model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.plotting.chapter06 import LINES
from helpers.plotting.style import COLORS, label_x, label_y

# What the laboratory shows: column of a record → title of its panel.
PANELS = {
    "reward": "reward R, its own units",
    "reviews": "share of texts that are reviews",
    "entropy": "entropy, nats a text",
    "kl": "KL to the start, nats a text",
    "length": "length, tokens a text",
}
MOST_CURVES = 7  # as many looks as there are
Look = tuple[str, Any, float]  # colour, line style, line width


def laboratory(
    runs: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    exact: Mapping[str, float],
    exact_label: str = "exact, the grammar's own",
    title: str = "",
    alike: str = "",
) -> Figure:
    """Small multiples over the steps of one or more runs, each run in a look of its own.

    Args:
        runs: label → column of `PANELS` → one number a step; nan is left out, and a column that
            is missing is not drawn. Of more than seven runs the last seven are drawn.
        exact: column → its exact value: black dashes.
        exact_label: what the dashes are; by default where training starts.
        title: above the legend.
        alike: what all runs are, such as "five seeds": they are drawn alike, under this label.
    """
    figure = Figure(figsize=(7.4, 4.4))
    figure.subplots_adjust(left=0.065, right=0.97, top=0.93, bottom=0.075, wspace=0.25, hspace=0.42)
    axes = list(figure.subplots(2, 3).flat)
    shown = list(runs.items())[-MOST_CURVES:]
    looks: list[Look] = [(color, style, 1.4) for color, style, _ in LINES]
    if alike:
        looks = [(COLORS["policy"], "-", 0.9)] * len(shown)
    steps = max([10, *(len(column) - 1 for _, run in shown for column in run.values())])
    for ax, (name, heading) in zip(axes, PANELS.items(), strict=False):
        curves = [run.get(name, ()) for _, run in shown]
        _panel(ax, curves, looks, steps, exact.get(name), whole=name == "reviews")
        ax.set_title(heading, fontsize=9, loc="left")
    last = axes[-1]
    last.set_axis_off()
    last.text(0, 1.06, title, fontsize=9, va="bottom", transform=last.transAxes)
    labels = [alike] if alike else [label for label, _ in shown]
    for label, (color, style, width) in zip(labels, looks, strict=False):
        last.plot([], [], color=color, linestyle=style, linewidth=width, label=label)
    if exact:
        last.plot([], [], color=COLORS["exact"], linestyle="--", label=exact_label)
    if shown or exact:
        last.legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(-0.06, 1.04), frameon=False)
    return figure


def _panel(
    ax: Axes,
    curves: Sequence[Sequence[float]],
    looks: Sequence[Look],
    steps: int,
    exact: float | None,
    *,
    whole: bool,
) -> None:
    """One quantity over the steps."""
    for heights, (color, style, width) in zip(curves, looks, strict=False):
        ax.plot(range(len(heights)), heights, color=color, linestyle=style, linewidth=width)
    frame(ax, curves, exact, steps=steps, whole=whole)


def frame(
    ax: Axes,
    curves: Sequence[Sequence[float]],
    exact: float | None,
    *,
    steps: int,
    whole: bool = False,
    room: float = 0.07,
    width: float = 1.4,
) -> None:
    """Limits of a panel, exact dashes, and labels at the ends of both axes.

    Args:
        ax: where the curves are drawn.
        curves: one number a step each.
        exact: where the dashes are, if there are any.
        steps: the end of the x axis.
        whole: show all from 0 to 1.
        room: above and below, as a share of the height.
        width: of the dashes.
    """
    found = [y for heights in curves for y in heights if math.isfinite(y)]
    found += [exact] if exact is not None else []
    found += [0.0, 1.0] if whole or not found else []
    low, high = min(found), max(found)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    if exact is not None:
        ax.axhline(exact, color=COLORS["exact"], linestyle="--", linewidth=width)
    margin = room * (high - low)
    ax.set(xlim=(0, max(steps, 1)), ylim=(low - margin, high + margin))
    label_x(ax, {0: "0", steps: f"step {steps}"})
    label_y(ax, {low: f"{low:.3g}", high: f"{high:.3g}"})
