"""Figures of chapter 02, from loss to reward."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course.kit import style
from course.kit.style import COLORS

BINS = 48


def two_teachers() -> Figure:
    """Who writes, who judges, what the gradient is: imitation above, reward below."""
    figure = Figure(figsize=(6.8, 2.3))
    ax = figure.add_axes((0, 0, 1, 1))
    rows = (
        (1.55, "imitation", "behavior", "a critic writes x", "each word is a target"),
        (0.25, "reward", "policy", "the model writes x", "R(c, x), one number"),
    )
    for bottom, name, role, who, judge in rows:
        middle = bottom + 0.42
        ax.text(0.1, middle, name, fontsize=11, weight="bold", va="center")
        push = "1 · ∇ log $p_θ$(x)" if name == "imitation" else "R(c, x) · ∇ log $p_θ$(x | c)"
        stations = ((1.75, who, role), (4.4, judge, "reward"), (7.05, push, "policy"))
        for left, text, color in stations:
            ax.add_patch(
                FancyBboxPatch(
                    (left, bottom),
                    2.1,
                    0.84,
                    boxstyle="round,pad=0.08",
                    facecolor="white",
                    edgecolor=COLORS[color],
                    linewidth=2,
                )
            )
            ax.text(left + 1.05, middle, text, fontsize=9.5, ha="center", va="center")
        for left in (3.97, 6.62):
            ax.add_patch(
                FancyArrowPatch(
                    (left, middle), (left + 0.32, middle), arrowstyle="-|>", mutation_scale=14
                )
            )
    ax.set(xlim=(0, 9.4), ylim=(0, 2.7))
    ax.set_axis_off()
    return figure


def learning_curve(
    nats_per_review: Sequence[float], *, floor: float, steps: int, window: int = 10
) -> Figure:
    """Cross-entropy on fresh reviews, step by step, over the grammar's entropy.

    Drawn in a training loop, so margins and labels have fixed places.

    Args:
        nats_per_review: one value a step so far.
        floor: exact entropy, nats a review.
        steps: length of the whole run: the width of the figure.
        window: steps of the running mean.
    """
    figure = Figure(figsize=(6.6, 3.4))
    ax = figure.add_axes((0.09, 0.14, 0.89, 0.82))
    xs = range(1, len(nats_per_review) + 1)
    ax.plot(
        xs,
        nats_per_review,
        ".",
        color=COLORS["policy"],
        markersize=3,
        alpha=0.45,
        label="one batch of fresh reviews",
    )
    means = [
        sum(part) / len(part) for part in (nats_per_review[max(0, k - window) : k] for k in xs)
    ]
    ax.plot(xs, means, color=COLORS["policy"], linewidth=2, label=f"mean of the last {window}")
    ax.axhline(floor, color=COLORS["exact"], linestyle="--", label="entropy of the grammar, exact")
    ax.set(xlim=(0, steps), ylim=(0, 56), ylabel="cross-entropy (nats per review)")
    ax.set_xlabel("step")
    style.label_x(ax, {steps * k / 5: f"{steps * k // 5}" for k in range(6)})
    style.label_y(ax, {float(y): f"{y}" for y in range(0, 51, 10)})
    ax.xaxis.set_label_coords(0.5, -0.09)
    ax.yaxis.set_label_coords(-0.06, 0.5)
    ax.legend(loc="upper right")
    return figure


def entropy_plus_kl(
    steps: Sequence[int],
    kl: Sequence[float],
    cross_entropy: Sequence[float],
    errors: Sequence[float],
    *,
    entropy: float,
) -> Figure:
    """Checkpoints of a run: two stacked bars, and the loss measured on other reviews.

    Args:
        steps: of each checkpoint.
        kl: KL(data ‖ model), nats a review, by the chain rule.
        cross_entropy: estimate from other reviews, nats a review.
        errors: its standard errors.
        entropy: exact, nats a review.
    """
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    ax = figure.subplots()
    xs = range(len(steps))
    ax.bar(xs, [entropy] * len(steps), color="#D9D9D9", width=0.62, label="entropy, exact")
    ax.bar(
        xs,
        kl,
        bottom=entropy,
        color=COLORS["kl"],
        width=0.62,
        hatch="//",
        edgecolor="white",
        label="KL(data ‖ model), by the chain rule",
    )
    ax.errorbar(
        xs,
        cross_entropy,
        yerr=[2 * e for e in errors],
        fmt="o",
        color=COLORS["policy"],
        markersize=5,
        capsize=3,
        label="cross-entropy on other reviews (± 2 standard errors)",
    )
    _write_divergences(ax, kl, entropy, cross_entropy)
    ax.axhline(entropy, color=COLORS["exact"], linestyle="--", label="_floor")
    ax.set_xticks(xs, [str(step) for step in steps])
    ax.set(xlabel="steps of training", ylabel="nats per review")
    ax.set_ylim(0, max(cross_entropy) * 1.15)
    ax.legend(loc="upper right")
    return figure


def _write_divergences(
    ax: Axes, kl: Sequence[float], entropy: float, markers: Sequence[float]
) -> None:
    """Write each KL above its bar, and above the marker near the top of the bar."""
    for x, (height, top) in enumerate(zip(kl, markers, strict=True)):
        ax.annotate(
            f"{height:.2f}",
            (x, max(top, entropy + height)),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=COLORS["kl"],
        )


def gradient_norms(
    counts: Sequence[int],
    runs: Mapping[str, Sequence[Sequence[float]]],
    *,
    exact: float,
) -> Figure:
    """Length of the mean gradient of N texts, for texts of the data and of the model itself.

    Args:
        counts: N, the x axis.
        runs: `data` and `own`, each with one line a seed.
        exact: length of the expected gradient on the data.
    """
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    looks = {
        "data": ("behavior", "s-", "somebody else's texts"),
        "own": ("policy", "o-", "the model's own texts"),
    }
    for name, lines in runs.items():
        role, look, label = looks[name]
        for k, line in enumerate(lines):
            ax.plot(
                counts,
                line,
                look,
                color=COLORS[role],
                markersize=3,
                linewidth=1,
                alpha=0.7,
                label=f"{label} ({len(lines)} seeds)" if k == 0 else "_more",
            )
    ax.axhline(exact, color=COLORS["exact"], linestyle="--", label="expected, on the data: exact")
    first = runs["own"][0][0]
    guide = [first * (counts[0] / n) ** 0.5 for n in counts]
    ax.plot(counts, guide, ":", color=COLORS["reference"], label="falls as $1/\\sqrt{N}$, to 0")
    ax.set(xscale="log", yscale="log", xlabel="N, texts in the mean")
    ax.set_ylabel("length of the mean of ∇ log $p_θ$(x)")
    ax.legend(loc="lower left")
    return figure


def two_critics(
    shares: Sequence[float],
    losses: Sequence[float],
    sentiments: Sequence[float],
    *,
    data: tuple[float, float, float],
    model: tuple[float, float, float],
) -> Figure:
    """What imitation and what a reward would choose, for every mixture of two critics.

    Args:
        shares: shares of praise that the model may write: the x axis.
        losses: cross-entropy on the data at each, nats a review, exact.
        sentiments: mean sentiment that the model then writes, exact.
        data: the data's share, the floor (its entropy) and its mean sentiment.
        model: the marked model's share, loss and mean sentiment.
    """
    figure = Figure(figsize=(7.4, 3.4))
    figure.subplots_adjust(left=0.085, right=0.985, top=0.9, bottom=0.15, wspace=0.25)
    left, right = figure.subplots(1, 2)
    dash = {"color": COLORS["exact"], "linestyle": "--", "linewidth": 1.4}
    left.plot(shares, losses, color=COLORS["policy"], label="cross-entropy of the model")
    left.axhline(data[1], label="entropy of the data, exact", **dash)
    left.plot(model[0], model[1], "o", color=COLORS["policy"], markersize=8)
    left.set(ylabel="nats per review", title="what imitation looks at", ylim=(11.4, 17.2))
    style.label_y(left, {float(y): str(y) for y in range(12, 18)})
    right.plot(shares, sentiments, color=COLORS["reward"], label="mean sentiment of the model")
    right.axhline(data[2], label="mean sentiment of the data, exact", **dash)
    right.plot(model[0], model[2], "o", color=COLORS["reward"], markersize=8)
    right.set(ylabel="praise − blame words", title="what a reward looks at", ylim=(-1.6, 1.7))
    style.label_y(right, {-1.0: "−1", 0.0: "0", 1.0: "1"})
    for ax, (low, high) in ((left, (0.0, 0.68)), (right, (0.36, 1.0))):  # not through the legend
        ax.axvline(
            data[0], low, high, color=COLORS["behavior"], linestyle=":", label="share in the data"
        )
        ax.set(xlim=(0, 1), xlabel="share of reviews that start with praise")
        style.label_x(ax, {k / 4: f"{k / 4:g}" for k in range(5)})
        ax.xaxis.set_label_coords(0.5, -0.1)
        ax.yaxis.set_label_coords(-0.09, 0.5)
    left.legend(loc="upper center")
    right.legend(loc="lower right")
    return figure


def honest_and_gaming(
    panels: Mapping[str, tuple[Sequence[float], float, str]], *, honest: str, gaming: str
) -> Figure:
    """What honest texts earn under each reward, and what one other text earns.

    Args:
        panels: reward's name → (rewards of honest texts, reward of the other text, unit).
        honest: what the honest texts are, with their number.
        gaming: what the other text is.
    """
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(7.4, 1.9 * rows + 0.5))
    figure.subplots_adjust(
        left=0.04,
        right=0.985,
        top=1 - 0.62 / (1.9 * rows + 0.5),
        bottom=0.5 / (1.9 * rows + 0.5),
        wspace=0.1,
        hspace=0.75,
    )
    axes = figure.subplots(rows, 2, squeeze=False).flatten()
    for ax, (name, (values, other, unit)) in zip(axes, panels.items(), strict=False):
        low, high = min([*values, other]), max([*values, other])
        margin = 0.05 * (high - low) or 0.5
        width = (high - low + 2 * margin) / BINS
        edges = [low - margin + width * k for k in range(BINS + 1)]
        heights = [0] * BINS
        for value in values:
            heights[int((value - edges[0]) / width)] += 1
        ax.stairs(
            heights,
            edges,
            fill=True,
            color=COLORS["behavior"],
            hatch="//",
            edgecolor="white",
            label=honest,
        )
        ax.axvline(other, color=COLORS["policy"], linewidth=2.5, label=gaming)
        ax.set(title=name, xlim=(edges[0], edges[-1]), ylim=(0, 1.05 * max(1, *heights)))
        ax.set(xlabel=unit, ylabel="reviews", yticks=[])
        ax.xaxis.set_label_coords(0.5, -0.16)
        ax.yaxis.set_label_coords(-0.03, 0.5)
        ticks = [low, high] if high - low > 1e-9 else [low]
        style.label_x(ax, {value: f"{value:.3g}".replace("-", "−") for value in ticks})
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=2, fontsize=8)
    return figure
