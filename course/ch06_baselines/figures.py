"""Figures of chapter 06, baselines and the advantage."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from torch import Tensor

from course.kit import style
from course.kit.style import COLORS, LINES, PALE

GREY = (COLORS["reference"], "-.", "x")  # a run without a baseline
UNCOMPARED: dict[str, Any] = {"color": COLORS["reference"], "linestyle": "-."}
COMPARED: dict[str, Any] = {"color": COLORS["policy"], "linestyle": "-"}


def clouds(panels: Mapping[str, Tensor], truth: float, *, count: int) -> Figure:
    """Sampled gradient estimates around the exact gradient, one panel a setting.

    Each panel has a scale of its own, or the smaller cloud would be a speck; the ticks say which.

    Args:
        panels: title → (M, 2) coordinates of estimates: along ∇L, and along one direction
            at a right angle to it.
        truth: ‖∇L‖, the length of the exact arrow.
        count: completions an estimate.
    """
    figure, axes = style.quick_figure((1, 1), wspace=0.22)
    for ax, (title, points) in zip(axes, panels.items(), strict=True):
        reach = 1.1 * float(points.abs().max())
        ax.plot(points[:, 0], points[:, 1], ".", color=COLORS["policy"], alpha=0.35, markersize=3)
        mean = points.mean(0).tolist()
        ax.plot(*mean, "o", color=COLORS["policy"], markersize=9, markeredgecolor="white", zorder=5)
        ax.axvline(truth, linestyle="--", color=COLORS["exact"], linewidth=1.2)
        ax.axhline(0, linestyle="--", color=COLORS["exact"], linewidth=1.2)
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), title=title)
        ax.set_xlabel(f"along ∇L, reward units; a dot = {count} texts")
        tick = float(f"{0.8 * reach:.1g}")
        ticks = {x: f"{x:g}" for x in (-tick, 0.0, tick)}
        style.label_x(ax, ticks)
        style.label_y(ax, ticks)
    axes[0].set_ylabel("across, reward units")
    return figure


def parabolas(
    grid: Sequence[float],
    panels: Mapping[str, Sequence[float]],
    marks: Mapping[str, Mapping[str, tuple[float, float]]],
) -> Figure:
    """Exact variance against the constant that is subtracted, one panel a policy.

    Args:
        grid: constants, reward units.
        panels: title → variance at each of them, as a share of that at 0.
        marks: title → name → (constant, variance) of what is marked.
    """
    figure, axes = style.quick_figure((1, 1), wspace=0.22)
    signs = ("o", "s", "v", "D")
    for ax, (title, heights) in zip(axes, panels.items(), strict=True):
        ax.plot(grid, heights, color=COLORS["policy"])
        for k, (name, (x, y)) in enumerate(marks[title].items()):
            color = COLORS[("exact", "policy", "reference")[min(k, 2)]]
            ax.plot([x], [y], signs[k], color=color, label=f"{name} = {x:+.2f}", zorder=4)
        lowest = next(iter(marks[title].values()))
        ax.axvline(lowest[0], color=COLORS["exact"], linestyle="--", linewidth=1.2)
        ax.set(title=title, xlabel="constant b, reward units", ylim=(0, 1.4 * max(heights)))
        ax.legend(fontsize=8, loc="upper right")
    axes[0].set_ylabel("variance (that of b = 0 is 1)")
    return figure


def moment_bars(
    rows: Sequence[tuple[str, float, float, float]],
    *,
    chosen: str = "",
    title: str = "",
    gradient: str = "∇L",
) -> Figure:
    """Every baseline's exact variance and bias as bars, in the order of the rows.

    The axis of the variance is linear, and longer bars are cut at 1.2; if most bars are below a
    tenth, it is logarithmic. A slider waits for this picture, and texts and axes are what takes
    time: one text a row holds name and variance, on the right only what is biased has numbers,
    and both panels share one axis, where the left one is 1 wide.

    Args:
        rows: (name, variance as a share of that without a baseline, length of the mean along
            the gradient as a share of its length, its angle to it in degrees), best row first.
        chosen: name of the row to mark.
        title: of the left panel, before what its bars are.
        gradient: what the exact gradient is called: ∇L of one prompt, ∇J of several.
    """
    log = sorted(row[1] for row in rows)[len(rows) // 2] < 0.1
    powers = {0.0: "0.001", 1.0: "0.01", 2.0: "0.1", 3.0: "1", 4.0: "10"}
    ticks = powers if log else {0.0: "0", 0.5: "0.5", 1.0: "1"}
    one, end = (3.0, 4.8) if log else (1.0, 1.25)  # where 1 lies, and where the left panel ends
    zero, right_end = 1.07, 1.89  # where the right panel begins and ends
    unit = (right_end - zero) / max(1.1, *(1.05 * row[2] for row in rows))  # 1 on the right
    floor, top = -0.6, len(rows) - 0.4

    figure = Figure(figsize=(7.4, 3.6))
    ax = figure.add_axes((0.285, 0.075, 0.7, 0.835), xlim=(0, right_end), ylim=(floor, top))
    ax.set_axis_off()
    boxes, colors, texts = [], [], []
    for y, row in enumerate(rows[::-1]):
        shown = 3 + math.log10(max(row[1], 1.2e-3)) if log else min(row[1], 1.2)
        boxes += [_box(0, y, shown / end), _box(zero, y, row[2] * unit)]
        colors += 2 * [COLORS["policy"] if row[0] == chosen or not chosen else PALE]
        cut = shown / end if not log and row[1] > shown else None
        texts += _words_of_row(y, row, chosen, digits=4 if log else 2, cut=cut, zero=zero)
    marks = [*((x / end, text) for x, text in ticks.items()), (zero, "0"), (zero + unit, "1")]
    texts += [(x, floor - 0.2, text, {"ha": "center", "va": "top"}) for x, text in marks]
    texts.append((-0.19, top + 0.25, "baseline", {"va": "bottom", "ha": "right", "fontsize": 9}))
    titles = (f"{title}variance / none" + " (log)" * log, f"mean along {gradient} / ‖{gradient}‖")
    for x, text in zip((0.0, zero), titles, strict=True):
        texts.append((x, top + 0.25, text, {"va": "bottom", "fontsize": 10}))
    for place, height, text, look in texts:  # of the figure: `ax.text` would prepare to clip each
        look = {"va": "center", "fontsize": 8, "transform": ax.transData, **look}
        figure.text(place, height, text, **look)
    ax.vlines(one / end, floor, top, "#C8C8C8", linewidth=0.8, zorder=0)
    ax.add_collection(PolyCollection(boxes, facecolors=colors), autolim=False)
    ax.vlines((0, zero), floor, top, "black", linewidth=0.8, clip_on=False)
    ax.hlines((floor, floor), (0, zero), (1, right_end), "black", linewidth=0.8, clip_on=False)
    ax.vlines(zero + unit, floor, top, COLORS["exact"], "--", linewidth=1.6)
    return figure


def _words_of_row(
    y: int,
    row: tuple[str, float, float, float],
    chosen: str,
    *,
    digits: int,
    cut: float | None,
    zero: float,
) -> list[tuple[float, float, str, dict[str, Any]]]:
    """Name and numbers of one row of `moment_bars`: place, height, text, look."""
    name, variance, scale, angle = row
    number = f"{variance:.{digits}f}" if variance < 100 else f"{variance:.1e}"
    label = "▸ " * (name == chosen) + f"{name}   {number}"
    texts: list[tuple[float, float, str, dict[str, Any]]] = [(-0.03, y, label, {"ha": "right"})]
    ink = "black" if chosen not in ("", name) else "white"
    if cut is not None:
        texts.append((cut, y, "» ", {"ha": "right", "color": ink}))
    if abs(scale - 1) > 1e-6 or angle > 1e-3:
        texts.append((zero + 0.02, y, f"biased: × {scale:.2f}, {angle:.1f}°", {"color": ink}))
    return texts


def _box(left: float, middle: float, width: float) -> list[tuple[float, float]]:
    low, high = middle - 0.36, middle + 0.36
    return [(left, low), (left + width, low), (left + width, high), (left, high)]


def line_panel(
    ax: Axes,
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    log: bool = False,
    dashed: str = "",
    markers: bool = False,
) -> None:
    """Several curves over one axis; colour and dashes both tell them apart.

    Args:
        ax: where to draw.
        x: what they are drawn over.
        lines: name → one number for each x.
        xlabel: with units.
        ylabel: with units.
        title: of the panel.
        log: whether the vertical axis is logarithmic.
        dashed: name of the line that is exact, or a limit: black dashes.
        markers: whether each number gets a mark.
    """
    for k, (name, numbers) in enumerate(lines.items()):
        color, look, marker = LINES[k % len(LINES)]
        if name == dashed:
            color, look = COLORS["exact"], "--"
        ax.plot(
            x,
            numbers,
            color=color,
            linestyle=look,
            label=name,
            marker=marker if markers else None,
            markersize=4,
        )
    if log:
        ax.set_yscale("log")
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.legend(fontsize=8)


def bernoulli_curves(rates: Sequence[float], lines: Mapping[str, Sequence[float]]) -> Figure:
    """Variance over ‖∇L‖² of one text's estimate against the probability of the rewarded action.

    Args:
        rates: probabilities p.
        lines: name → one number for each of them.
    """
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    ax = figure.subplots()
    for name, heights in lines.items():
        ax.plot(rates, heights, label=name, **(UNCOMPARED if name == "none" else COMPARED))
    ax.set(xlabel="probability p of the action that earns 1", ylabel="variance / ‖∇L‖² (log)")
    ax.set_yscale("log")
    ax.legend(fontsize=8)
    return figure


def difficulty(
    rates: Sequence[float],
    weights: Mapping[str, Sequence[float]],
    dashed: str,
    sizes: Sequence[int],
    angles: Mapping[str, Sequence[float]],
) -> Figure:
    """How much the z-score weighs a prompt by its success rate; the angle that this makes.

    Args:
        rates: success rates p.
        weights: name → factor on the prompt's gradient, for each p.
        dashed: name of the exact limit among them.
        sizes: group sizes K.
        angles: name → angle between the mean estimate and ∇J in degrees, for each K.
    """
    figure = Figure(figsize=(7.4, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    line_panel(
        left,
        rates,
        weights,
        xlabel="success rate p of the prompt",
        dashed=dashed,
        ylabel="factor on its gradient",
        title="one prompt, reward 0 or 1",
    )
    left.set_ylim(0, 4.5)
    line_panel(
        right,
        sizes,
        angles,
        xlabel="group size K",
        ylabel="angle to ∇J, degrees",
        title="two prompts together",
        markers=True,
    )
    right.set_ylim(0, None)
    return figure


def trade_off(
    lams: Sequence[float], bias: Sequence[float], variance: Sequence[float], counts: Sequence[int]
) -> Figure:
    """GAE with a wrong V: bias² and variance over λ, and their sum for several batch sizes.

    Args:
        lams: λ in [0, 1].
        bias: squared bias over ‖∇L‖², for each λ.
        variance: of one completion's estimate over ‖∇L‖².
        counts: batch sizes N.
    """
    figure = Figure(figsize=(7.4, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    line_panel(
        left,
        lams,
        {"bias²": bias, "variance / 64": [v / 64 for v in variance]},
        xlabel="λ",
        ylabel="share of ‖∇L‖²",
        title="both are exact",
    )
    for k, count in enumerate(counts):
        color, look, _ = LINES[k]
        total = [b + v / count for b, v in zip(bias, variance, strict=True)]
        best = min(range(len(total)), key=total.__getitem__)
        right.plot(lams, total, color=color, linestyle=look, label=f"N = {count}")
        right.plot([lams[best]], [total[best]], "o", color=COLORS["exact"], markersize=6)
    right.set(xlabel="λ", ylabel="bias² + variance / N (log)", yscale="log")
    right.set_title("black dots: the best λ")
    right.set_ylim(top=8 * max(b + v / min(counts) for b, v in zip(bias, variance, strict=True)))
    right.legend(fontsize=8, ncols=3, loc="upper right")
    return figure


def _round_marks(low: float, high: float) -> dict[float, str]:
    """A few round numbers from low to high, and high itself, with their labels."""
    span = max(high - low, 1e-9)
    unit = 10.0 ** math.floor(math.log10(span / 3))
    step = next(unit * m for m in (1, 2, 5, 10) if span <= 6 * unit * m)
    marks = [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return {y: f"{y:.4g}" for y in marks if y < high - 0.05 * span} | {high: f"{high:.4g}"}


def objective_curves(
    curves: Sequence[tuple[str, Sequence[float]]], *, best: float, title: str = ""
) -> Figure:
    """Exact expected reward after each step of several runs; one label, one look.

    Args:
        curves: (label, expected reward at step 0, 1, …) of each run; a run "none" is grey.
        best: the largest expected reward that there is: black dashes.
        title: of the panel.
    """
    figure = Figure(figsize=(7.4, 3.4))
    figure.subplots_adjust(left=0.08, right=0.985, top=0.91, bottom=0.15)
    ax = figure.subplots()
    labels = list(dict.fromkeys(label for label, _ in curves))
    for k, (label, heights) in enumerate(curves):
        own = [name for name in labels if name != "none"]
        color, look, _ = LINES[own.index(label) % len(LINES)] if label in own else GREY
        first = label not in [name for name, _ in curves[:k]]
        ax.plot(
            range(len(heights)),
            heights,
            color=color,
            linestyle=look,
            label=label if first else None,
        )
    ax.axhline(best, color=COLORS["exact"], linestyle="--", linewidth=1.6)
    lowest = min([min(h) for _, h in curves if h] or [min(0.0, best - 1)])
    length = max([10, *(len(h) - 1 for _, h in curves)])
    ax.set(xlim=(0, length), ylim=(lowest - 0.1 * (best - lowest), best + 0.1 * (best - lowest)))
    style.label_x(ax, {0: "0", length // 2: str(length // 2), length: str(length)})
    style.label_y(ax, _round_marks(lowest, best))
    ax.set_ylabel("exact expected reward")
    ax.set_xlabel("gradient steps")
    ax.xaxis.set_label_coords(0.5, -0.09)
    ax.yaxis.set_label_coords(-0.06, 0.5)
    ax.set_title(title, fontsize=10)
    if curves:
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, 0.93))
    return figure
