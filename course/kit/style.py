"""The course's look, and the small parts that its figures share."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {
    "policy": "#0072B2",  # blue, solid
    "reference": "#7F7F7F",  # grey, dash-dotted
    "behavior": "#E69F00",  # orange, hatched or dotted
    "reward": "#009E73",  # green
    "kl": "#8C3A94",  # purple
    "exact": "#000000",  # black, dashed
}

SHADES = ("#08519C", "#3182BD", "#6BAED6", "#9ECAE1", "#DEEBF7")  # words of the word world


def use_style() -> None:
    """Switch the course's look on; each notebook's set-up cell calls it.

    Where the variable COURSE_ZOOM is set, figures are that many times as large.

    Raises:
        ValueError: COURSE_ZOOM is no number.
    """
    mpl.style.use(Path(__file__).parent / "course.mplstyle")
    zoom = float(os.environ.get("COURSE_ZOOM", "1"))
    mpl.rcParams["savefig.dpi"] = zoom * mpl.rcParams["figure.dpi"]


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def show(figure: Figure, *, alt: str) -> None:
    """Display a figure in a notebook.

    Args:
        figure: what to show.
        alt: the message in words, for readers who cannot see it.
    """
    display(Image(data=png(figure), format="png", alt=alt))


def tick(text: str) -> str:
    """A word as an axis label; quotes only where a lone dot would be overlooked."""
    return f"“{text}”" if text == "." else text


PROBABILITIES = {0.0: "0", 0.5: "0.5", 1.0: "1"}


def label_x(ax: Axes, labels: Mapping[float, str]) -> None:
    """Labels below an axis as plain text.

    Ticks measure all their labels at every drawing, which would double a widget's delay.

    Args:
        ax: whose x axis.
        labels: position → text.
    """
    ax.set_xticks([])
    place = ax.get_xaxis_transform()
    for x, text in labels.items():
        ax.text(x, -0.025, text, transform=place, ha="center", va="top", fontsize=8)


def label_y(ax: Axes, labels: Mapping[float, str]) -> None:
    """Labels left of an axis as plain text; see `label_x`.

    Args:
        ax: whose y axis.
        labels: position → text.
    """
    ax.set_yticks([])
    place = ax.get_yaxis_transform()
    for y, text in labels.items():
        ax.text(-0.015, y, text, transform=place, ha="right", va="center", fontsize=8)


def quick_figure(ratios: tuple[float, float], *, wspace: float) -> tuple[Figure, list[Axes]]:
    """Two panels where titles and labels have fixed places.

    Fitting margins, titles and labels to the text around them measures every tick label several
    times: two thirds of the time that a widget would take to redraw.
    """
    figure = Figure(figsize=(7.4, 3.6))
    figure.subplots_adjust(left=0.08, right=0.985, top=0.91, bottom=0.15, wspace=wspace)
    axes = list(figure.subplots(1, 2, width_ratios=ratios))
    for ax in axes:
        ax.xaxis.set_label_coords(0.5, -0.11)
        ax.yaxis.set_label_coords(-0.13, 0.5)
    return figure, axes


def word_bars(ax: Axes, words: Sequence[str], probs: Sequence[float], *, title: str = "") -> None:
    """Bars of one next-word distribution, each with its value.

    Args:
        ax: where to draw.
        words: the x axis.
        probs: one value a word.
        title: of the panel.
    """
    bars = ax.bar(range(len(words)), probs, color=COLORS["policy"], width=0.7)
    ax.bar_label(bars, [f"{p:.2f}" for p in probs], fontsize=8, padding=2)
    ax.set(ylim=(0, 1.08), ylabel="probability", title=title)
    label_x(ax, dict(enumerate(map(tick, words))))
    label_y(ax, PROBABILITIES)


def exact_dashes(ax: Axes, values: Sequence[float], *, label: str = "_hidden") -> None:
    """A short black dashed line over each bar."""
    lefts = [k - 0.42 for k in range(len(values))]
    ax.hlines(
        values,
        lefts,
        [x + 0.84 for x in lefts],
        colors=COLORS["exact"],
        linestyles="dashed",
        linewidth=1.6,
        label=label,
    )


# Lines of one figure, told apart by colour and by dashes: (colour, line style, marker).
LINES = (
    (COLORS["policy"], "-", "o"),
    (COLORS["behavior"], ":", "s"),
    (COLORS["kl"], "-.", "^"),
    (COLORS["reward"], (0, (5, 1)), "D"),
    (COLORS["reference"], (0, (3, 1, 1, 1)), "v"),
    ("#8C510A", (0, (1, 1)), "P"),
    ("#01665E", "-", "X"),
)
PALE = "#9CC3DE"  # bars that are not the chosen one


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
