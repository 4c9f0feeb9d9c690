"""Figures of chapter 00, the start page."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course.kit.style import COLORS


def loop_diagram() -> Figure:
    """The five stations of the loop, as a ring, each with the chapter that opens it."""
    figure = Figure(figsize=(6.6, 3.0), layout="constrained")
    ax = figure.subplots()
    stations = (
        (0.5, 2.1, "write", "sample x ∼ $p_θ(·|c)$", "chapters 01, 04", "policy"),
        (4.2, 2.1, "judge", "reward R(c, x)", "chapter 02", "reward"),
        (7.9, 2.1, "compare", "advantage Â = R − b", "chapter 06", "reward"),
        (7.9, 0.0, "credit", "Â · ∇ log $p_θ(x|c)$", "chapters 03, 05", "policy"),
        (0.5, 0.0, "step uphill", "θ ← θ + η · gradient", "chapters 05, 07", "policy"),
    )
    width, height = 2.9, 1.25
    for left, bottom, name, formula, chapter, role in stations:
        box = dict(boxstyle="round,pad=0.1", facecolor="white", edgecolor=COLORS[role], linewidth=2)
        ax.add_patch(
            FancyBboxPatch((left, bottom), width, height, **box)  # type: ignore[arg-type]
        )
        middle = left + width / 2
        ax.text(middle, bottom + 0.98, name, ha="center", va="center", fontsize=10, weight="bold")
        ax.text(middle, bottom + 0.6, formula, ha="center", va="center", fontsize=9)
        ax.text(
            middle, bottom + 0.2, chapter, ha="center", va="center", fontsize=8, color="#555555"
        )
    for tail, head in (
        ((3.5, 2.7), (4.1, 2.7)),
        ((7.2, 2.7), (7.8, 2.7)),
        ((9.35, 2.0), (9.35, 1.35)),
        ((7.8, 0.62), (3.5, 0.62)),
        ((1.95, 1.35), (1.95, 2.0)),
    ):
        ax.add_patch(
            FancyArrowPatch(tail, head, arrowstyle="-|>", mutation_scale=14, linewidth=1.5)
        )
    ax.set(xlim=(0.2, 11.1), ylim=(-0.25, 3.6))
    ax.set_axis_off()
    return figure


def reward_and_share(
    rewards: Sequence[float], shares: Sequence[float], *, start: float, mark: int | None = None
) -> Figure:
    """Two stacked curves over the steps: the reward, and how much of the text is still a review.

    Args:
        rewards: mean reward a step.
        shares: share of completions that the grammar could have written, a step.
        start: exact mean reward of the grammar's own reviews.
        mark: a step at which to draw a vertical line; an inset shows the rewards up to it.
    """
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    steps = range(1, len(rewards) + 1)
    above.plot(steps, rewards, color=COLORS["reward"], marker="o", markersize=3)
    above.axhline(start, color=COLORS["exact"], linestyle="--", label="grammar's reviews, exact")
    above.set(ylabel="mean reward\n(praise − blame words)")
    below.plot(steps, shares, color=COLORS["policy"], marker="s", markersize=3)
    below.set(xlabel="step of gradient ascent", ylabel="share of texts\nthat are reviews")
    below.set_ylim(-0.05, 1.05)
    if mark is not None:
        for ax in (above, below):
            ax.axvline(mark, color=COLORS["reference"], linestyle=":")
        below.annotate(
            f"step {mark}", (mark, 0), xytext=(4, 0), textcoords="offset points", fontsize=9
        )
        _inset(above, rewards[:mark], start)
    above.legend(loc="upper left")
    return figure


def _inset(ax: Axes, rewards: Sequence[float], start: float) -> None:
    small = ax.inset_axes((0.09, 0.36, 0.28, 0.38))
    steps = range(1, len(rewards) + 1)
    small.plot(steps, rewards, color=COLORS["reward"], marker="o", markersize=2)
    small.axhline(start, color=COLORS["exact"], linestyle="--")
    small.tick_params(labelsize=8)
    small.set_title(f"the first {len(rewards)} steps", fontsize=8)
