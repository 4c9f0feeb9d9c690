"""Figures of chapter 05, the REINFORCE gradient."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from course.kit import style
from course.kit.style import COLORS

Point = Sequence[float]
CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.5, 0.866))  # of the triangle, one a text
GREY = "#909090"


def place(probs: Point) -> tuple[float, float]:
    """Where three probabilities stand in the triangle: the mean of its corners under them."""
    x = sum(p * corner[0] for p, corner in zip(probs, CORNERS, strict=True))
    y = sum(p * corner[1] for p, corner in zip(probs, CORNERS, strict=True))
    return x, y


def triangle(ax: Axes, words: Sequence[str], rewards: Sequence[float]) -> None:
    """The simplex of three texts, with level lines of J = Σ p R, each with its value.

    Args:
        ax: where to draw.
        words: three texts, one a corner.
        rewards: three rewards, reward units.
    """
    ax.set_axis_off()
    ax.set(xlim=(-0.16, 1.16), ylim=(-0.13, 1.0), aspect="equal", ylabel="mixture of the texts")
    ring = [*CORNERS, CORNERS[0]]
    ax.plot(*zip(*ring, strict=True), color="#404040", linewidth=1.2)
    low, high = min(rewards), max(rewards)
    step = next((s for s in (0.25, 0.5, 1.0, 2.0) if high - low <= 8 * s), 5.0)
    first = math.floor(low / step) + 1
    levels = [step * k for k in range(first, math.ceil(high / step))]
    lines = []
    for level in levels:
        ends = []
        for i, j in ((0, 1), (1, 2), (2, 0)):
            gap = rewards[j] - rewards[i]
            share = (level - rewards[i]) / gap if gap else -1.0
            if 0 <= share < 1:
                probs = [0.0, 0.0, 0.0]
                probs[i], probs[j] = 1 - share, share
                ends.append(place(probs))
        if len(ends) == 2:
            lines.append(ends)
            x, y = min(ends)
            ax.text(
                x - 0.015,
                y + 0.012,
                f"{level:+.3g}" if level else "0",
                fontsize=8,
                color=COLORS["reward"],
                ha="right",
            )
    ax.add_collection(LineCollection(lines, colors=COLORS["reward"], linewidths=0.8, alpha=0.7))
    for word, reward, (x, y), below in zip(words, rewards, CORNERS, (1, 1, 0), strict=True):
        ax.text(
            x,
            y - 0.03 if below else y + 0.025,
            f"“{word}”\n{reward:+g}",
            ha="center",
            va="top" if below else "bottom",
            fontsize=8,
        )


def arrows(
    ax: Axes, start: Point, tips: Sequence[Point], mean: Point | None, exact: Point | None
) -> None:
    """Thin arrows to `tips`, a wide pale line to their mean's, a black dashed one to the exact tip.

    Args:
        ax: where a triangle was drawn.
        start: three probabilities.
        tips: three probabilities each.
        mean: three probabilities; None draws no line.
        exact: three probabilities; None draws no arrow.
    """
    here = place(start)
    spokes = [(here, place(tip)) for tip in tips]
    ax.add_collection(
        LineCollection(spokes, colors=COLORS["policy"], linewidths=0.8, alpha=0.45, zorder=3)
    )
    if tips:
        ends = [place(tip) for tip in tips]
        ax.plot(*zip(*ends, strict=True), ".", color=COLORS["policy"], markersize=3, zorder=3)
    if mean is not None:
        ax.plot(
            *zip(here, place(mean), strict=True),
            color=COLORS["policy"],
            linewidth=13,
            alpha=0.35,
            solid_capstyle="butt",
            zorder=4,
        )
    if exact is not None:
        ax.annotate(
            "",
            place(exact),
            here,
            zorder=5,
            arrowprops={
                "arrowstyle": "-|>",
                "shrinkA": 0,
                "shrinkB": 0,
                "color": COLORS["exact"],
                "linewidth": 1.6,
                "linestyle": "--",
            },
        )
    ax.plot(*here, "o", color=COLORS["exact"], markersize=5, zorder=6)


def trails(ax: Axes, exact: Sequence[Point], sampled: Sequence[Sequence[Point]]) -> None:
    """Paths through the triangle: exact black dashed, a dot every 5 steps; sampled blue.

    Args:
        ax: where a triangle was drawn.
        exact: three probabilities a step.
        sampled: the same, one sequence a run.
    """
    for path in sampled:
        ax.plot(
            *zip(*map(place, path), strict=True),
            "-",
            color=COLORS["policy"],
            linewidth=1.1,
            alpha=0.75,
            zorder=3,
        )
        ax.plot(*place(path[-1]), "o", color=COLORS["policy"], markersize=4, zorder=4)
    if exact:
        ax.plot(
            *zip(*map(place, exact), strict=True),
            "--",
            color=COLORS["exact"],
            linewidth=1.6,
            marker="o",
            markersize=3.5,
            markevery=5,
            zorder=5,
        )


def simplex(
    words: Sequence[str], rewards: Sequence[float], panels: Mapping[str, Mapping[str, list]]
) -> Figure:
    """Triangles side by side, each with arrows or with paths.

    Args:
        words: three texts.
        rewards: three rewards.
        panels: title → "start", "tips", "mean" and "exact" of `arrows`, or "exact" and "sampled"
            of `trails`.
    """
    figure = Figure(figsize=(7.4, 3.4 if len(panels) < 3 else 2.7))
    figure.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.03, wspace=0.02)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, drawn) in zip(axes, panels.items(), strict=True):
        triangle(ax, words, rewards)
        ax.set_title(title, fontsize=10, loc="center")
        if "start" in drawn:
            arrows(ax, drawn["start"], drawn["tips"], drawn["mean"], drawn["exact"])
        else:
            trails(ax, drawn["exact"], drawn["sampled"])
    return figure


def playground(
    words: Sequence[str],
    rewards: Sequence[float],
    start: Point,
    tips: Sequence[Point],
    mean: Point,
    exact: Point,
    paths: Mapping[str, Sequence[Point]],
    *,
    title: str,
) -> Figure:
    """The triangle with arrows and paths on the left, J after each step on the right.

    Args:
        words: three texts.
        rewards: three rewards, reward units.
        start: three probabilities: where the arrows begin.
        tips: where single batches would lead.
        mean: where the mean of all batches would lead.
        exact: where the exact gradient would lead.
        paths: "exact" and "sampled" → the probabilities before the first and after each step.
        title: of the triangle.
    """
    figure, (left, right) = style.quick_figure((1.3, 1), wspace=0.22)
    triangle(left, words, rewards)
    left.set_title(title, fontsize=9)
    trails(left, paths["exact"], [paths["sampled"]])
    arrows(left, start, tips, mean, exact)
    looks: dict[str, dict[str, Any]] = {
        "exact": {"color": COLORS["exact"], "linestyle": "--", "marker": "o", "markersize": 3},
        "sampled": {"color": COLORS["policy"], "linestyle": "-", "marker": ".", "markersize": 4},
    }
    low, high = min(rewards), max(rewards)
    for name, look in looks.items():
        height = [sum(p * r for p, r in zip(probs, rewards, strict=True)) for probs in paths[name]]
        right.plot(range(len(height)), height, label=f"{name} steps", **look)
    longest = max(10, *(len(path) for path in paths.values()))
    margin = 0.06 * max(high - low, 0.1)
    right.set(xlim=(-0.5, longest), ylim=(low - margin, high + margin))
    right.axhline(high, color=COLORS["exact"], linewidth=1.2, linestyle="--")
    style.label_x(right, {0.0: "0", longest / 2: f"{longest / 2:g}", float(longest): f"{longest}"})
    style.label_y(right, {low: f"{low:+.3g}", high: f"{high:+.3g}"})
    right.set_xlabel("steps taken")
    right.set_ylabel("exact J, reward units")
    right.set_title("J after each step; top: the best text", fontsize=9)
    right.legend(fontsize=8, loc="lower right")
    return figure


def gradient_cloud(clouds: Mapping[str, Sequence[Point]], truth: Point) -> Figure:
    """Sampled gradient estimates as arrows in one plane, one panel a batch size.

    Args:
        clouds: title → (along ∇L, across it) of each estimate, in units of ‖∇L‖.
        truth: where the exact gradient ends in that plane.
    """
    figure = Figure(figsize=(7.4, 3.2), layout="constrained")
    axes = figure.subplots(1, len(clouds), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (title, points) in zip(axes, clouds.items(), strict=True):
        spokes = [((0.0, 0.0), tuple(point)) for point in points]
        ax.add_collection(
            LineCollection(spokes, colors=COLORS["policy"], linewidths=0.6, alpha=0.35)
        )
        ax.plot(*zip(*points, strict=True), ".", color=COLORS["policy"], markersize=3, alpha=0.7)
        ax.annotate(
            "",
            truth,
            (0, 0),
            zorder=5,
            arrowprops={
                "arrowstyle": "-|>",
                "color": COLORS["exact"],
                "linestyle": "--",
                "linewidth": 2,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
        ax.axhline(0, color=GREY, linewidth=0.5, zorder=0)
        ax.axvline(0, color=GREY, linewidth=0.5, zorder=0)
        ax.set(title=title, xlabel="along ∇L, in ‖∇L‖", aspect="equal")
        ax.autoscale_view()
    axes[0].set_ylabel("across ∇L, in ‖∇L‖")
    return figure


def error_curves(
    counts: Sequence[int], seeds: Sequence[Sequence[float]], exact: Sequence[float]
) -> Figure:
    """Distance of sampled gradients from ∇L against the number of samples, on log axes.

    Args:
        counts: completions a batch.
        seeds: one curve of errors a seed, in units of ‖∇L‖.
        exact: the exact root mean square error at each count.
    """
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    ax = figure.subplots()
    for k, errors in enumerate(seeds):
        ax.plot(
            counts,
            errors,
            ".-",
            color=COLORS["policy"],
            alpha=0.5,
            linewidth=1,
            label=f"one batch each, {len(seeds)} seeds" if k == 0 else "_hidden",
        )
    ax.plot(counts, exact, "--", color=COLORS["exact"], label="exact root mean square")
    ax.set(xscale="log", yscale="log", xlabel="N, completions in a batch", ylabel="‖ĝ − ∇L‖ / ‖∇L‖")
    ax.legend(fontsize=8)
    return figure


def estimator_bars(
    panels: Mapping[str, tuple[Mapping[str, float], float | None]], *, rows: str = "estimator"
) -> Figure:
    """Exact properties of several estimators as bars, one panel a property.

    Args:
        panels: “title, axis label” → (estimator → number, what a right estimator has: black dashes;
            None if there is no such number, and then all panels have one scale).
        rows: what the bars are.
    """
    most = max(len(numbers) for numbers, _ in panels.values())
    figure = Figure(figsize=(7.4, 0.9 + 0.42 * most), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (label, (numbers, right)) in zip(axes, panels.items(), strict=True):
        names = list(numbers)
        drawn = ax.barh(names, [numbers[name] for name in names], color=COLORS["policy"])
        ax.bar_label(drawn, [f"{numbers[name]:.2f}" for name in names], fontsize=8, padding=3)
        if right is not None:
            ax.axvline(right, color=COLORS["exact"], linestyle="--", linewidth=1.6)
        shown = [n for n, aim in panels.values() if right is None and aim is None] or [numbers]
        reach = max(0.1, right or 0.0, *(x for n in shown for x in n.values()))
        ax.set_xlim(min(0, 1.5 * min(numbers.values())), 1.22 * reach)
        title, _, unit = label.partition(", ")
        ax.set_xlabel(unit)
        ax.set_title(title, fontsize=10)
    axes[0].set_ylabel(rows)
    axes[0].invert_yaxis()
    return figure


def curves(
    x: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    xlabel: str,
    looks: Mapping[str, Mapping],
    ylabels: Sequence[str],
) -> Figure:
    """Lines over one axis, in panels side by side.

    Args:
        x: shared by all lines; a line may be shorter.
        panels: title → label → heights.
        xlabel: of every panel.
        looks: label → what `Axes.plot` takes.
        ylabels: one a panel.
    """
    figure = Figure(figsize=(7.4, 3.1), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, lines), ylabel in zip(axes, panels.items(), ylabels, strict=True):
        for label, heights in lines.items():
            ax.plot(x[: len(heights)], heights, label=label, **looks[label])
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
        ax.legend(fontsize=8)
    return figure


def ascent_curves(
    panels: Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]],
    *,
    best: float,
) -> Figure:
    """Exact J after each step: the exact gradient's path wide, sampled runs thin.

    Args:
        panels: title → J along the exact path, and J along each sampled run.
        best: the largest J there is, reward units.
    """
    figure = Figure(figsize=(7.4, 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, (exact, runs)) in zip(axes, panels.items(), strict=True):
        for k, run in enumerate(runs):
            ax.plot(
                run,
                color=COLORS["policy"],
                alpha=0.8,
                linewidth=1.2,
                label=f"sampled, {len(runs)} seeds" if k == 0 else "_hidden",
            )
        if exact:
            ax.plot(exact, color=COLORS["policy"], linewidth=2.2, label="exact gradient")
        ax.axhline(best, color=COLORS["exact"], linestyle="--", linewidth=1.4, label="best text")
        ax.set(title=title, xlabel="steps")
        ax.legend(fontsize=8, loc="lower right")
    axes[0].set_ylabel("exact J, reward units")
    return figure
