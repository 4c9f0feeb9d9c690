"""Figures of chapter 07, REINFORCE on a language model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course.kit import style
from course.kit.style import COLORS, LINES, PALE, SHADES

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
    looks: list[Look] = [(color, look, 1.4) for color, look, _ in LINES]
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
    for label, (color, look, width) in zip(labels, looks, strict=False):
        last.plot([], [], color=color, linestyle=look, linewidth=width, label=label)
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
    for heights, (color, look, width) in zip(curves, looks, strict=False):
        ax.plot(range(len(heights)), heights, color=color, linestyle=look, linewidth=width)
    style.frame(ax, curves, exact, steps=steps, whole=whole)


def work(tokens: Mapping[str, tuple[int, int]]) -> Figure:
    """Tokens that went through the network, for writing and for scoring, as bars.

    Args:
        tokens: label → (tokens read while writing, tokens read while scoring).
    """
    figure = Figure(figsize=(7.0, 0.45 * len(tokens) + 1.1))
    figure.subplots_adjust(left=0.33, right=0.93, top=0.85, bottom=0.2)
    ax = figure.subplots()
    writing, scoring = ([pair[k] for pair in tokens.values()] for k in (0, 1))
    places = range(len(tokens))
    ax.barh(places, writing, color=COLORS["policy"], label="to write")
    ax.barh(
        places, scoring, left=writing, color=PALE, hatch="//", edgecolor="white", label="to score"
    )
    for y, (a, b) in enumerate(tokens.values()):
        ax.text(a + b, y, f" {a + b}", va="center", fontsize=8)
    ax.set_yticks(places, list(tokens), fontsize=9)
    ax.set(xlabel="token positions through the network, one step", ylabel="what was on")
    ax.invert_yaxis()
    ax.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return figure


def multiples(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    exact: Mapping[str, float] | None = None,
    roles: Mapping[str, str] | None = None,
    columns: int = 3,
) -> Figure:
    """Small multiples over the steps of a run, each with a scale of its own.

    Args:
        panels: title with unit → label → one number a step; nan is left out. A panel has one
            curve, or two and a legend: the second is broad and pale, behind the first.
        exact: title → exact value, black dashes.
        roles: title → a name of `COLORS`; the others are the policy's own numbers.
        columns: panels side by side.
    """
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(7.4, 1.95 * rows + 0.1))
    figure.subplots_adjust(
        left=0.075, right=0.97, top=1 - 0.13 / rows, bottom=0.13 / rows, wspace=0.28, hspace=0.4
    )
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, curves) in zip(axes, panels.items(), strict=False):
        ax.set_title(title, fontsize=9, loc="left")
        for k, (label, heights) in enumerate(curves.items()):
            color = COLORS[(roles or {}).get(title, "policy")]
            look = {"color": PALE, "linewidth": 3.0} if k else {"color": color, "linewidth": 1.4}
            ax.plot(range(len(heights)), heights, label=label, zorder=2.2 - 0.1 * k, **look)
        heights_of = list(curves.values())
        style.frame(
            ax,
            heights_of,
            (exact or {}).get(title),
            steps=max(map(len, heights_of)) - 1,
            room=0.08,
            width=1.3,
        )
        if len(curves) > 1:
            ax.legend(fontsize=7.5, frameon=False)
    return figure


def symptoms(
    sets: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    right: Mapping[str, Sequence[Sequence[float]]],
    *,
    exact: Mapping[str, float],
    limits: Mapping[str, tuple[float, float]],
) -> Figure:
    """One row a broken loop, one column a quantity; several seeds, the right loop behind in grey.

    Args:
        sets: name of the row → title of the column with its unit → one curve a seed.
        right: title of the column → one curve a seed.
        exact: title of the column → a value that black dashes mark.
        limits: title of the column → lowest and highest value that is shown.
    """
    titles = list(right)
    figure = Figure(figsize=(7.4, 1.35 * len(sets) + 0.7))
    figure.subplots_adjust(left=0.14, right=0.97, top=0.92, bottom=0.06, wspace=0.25, hspace=0.3)
    grid = figure.subplots(len(sets), len(titles), squeeze=False)
    for j, title in enumerate(titles):
        low, high = limits[title]
        room, steps = 0.06 * (high - low), len(right[title][0]) - 1
        for i, (name, each) in enumerate(sets.items()):
            ax = grid[i, j]
            for heights in right[title]:
                ax.plot(heights, color=COLORS["reference"], linewidth=0.9, alpha=0.6)
            for heights in each[title]:
                ax.plot(heights, color=COLORS["policy"], linewidth=1.1)
            ax.axhline(exact[title], color=COLORS["exact"], linestyle="--", linewidth=1.1)
            ax.set(xlim=(0, steps), ylim=(low - room, high + room))
            style.label_x(ax, {0: "0", steps: f"step {steps}"})
            style.label_y(ax, {low: f"{low:.2g}", high: f"{high:.2g}"})
            if j == 0:
                ax.set_ylabel(name, rotation=0, fontsize=14, labelpad=26, va="center")
        grid[0, j].set_title(title, fontsize=9, loc="left")
    return figure


def steps_to_threshold(
    panels: Mapping[str, Mapping[str, Sequence[float]]], *, most: int, title: str
) -> Figure:
    """Steps that each method needed: a dot a seed, a bar at the median.

    Args:
        panels: title → method → steps of each seed; nan for those that did not get there.
        most: steps after which a run was given up; those dots stand right of the line there.
        title: of the x axis.
    """
    methods = list(next(iter(panels.values())))
    figure = Figure(figsize=(7.4, 0.36 * len(methods) + 1.2))
    figure.subplots_adjust(left=0.2, right=0.97, top=0.88, bottom=0.2, wspace=0.1)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    beyond = 1.18 * most
    for ax, (name, found) in zip(axes, panels.items(), strict=True):
        ax.set_title(name, fontsize=9, loc="left")
        for y, method in enumerate(methods):
            ends = sorted(beyond if math.isnan(x) else x for x in found[method])
            spread = [y + 0.3 * (k / max(len(ends) - 1, 1) - 0.5) for k in range(len(ends))]
            ax.plot(ends, spread, "o", color=COLORS["policy"], markersize=4, alpha=0.7)
            middle = ends[len(ends) // 2]
            ax.vlines(middle, y - 0.32, y + 0.32, color=SHADES[0], linewidth=2.5)
        ax.axvline(1.08 * most, color=COLORS["reference"], linestyle=":", linewidth=1.2)
        ax.set(xlim=(0, 1.28 * most), ylim=(len(methods) - 0.5, -0.5))
        ax.set_xlabel(title)
        half = most // 2
        style.label_x(ax, {0: "0", half: str(half), most: str(most), beyond: "never"})
        ax.xaxis.set_label_coords(0.5, -0.11)
        style.label_y(ax, dict(enumerate(methods)) if ax is axes[0] else {})
    return figure
