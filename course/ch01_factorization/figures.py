"""Figures of chapter 01, the autoregressive factorization."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from torch import Tensor

from course.exact import oracle
from course.kit import style
from course.kit.style import COLORS, PROBABILITIES, SHADES


def conditionals(rows: Mapping[str, Sequence[float]], words: Sequence[str]) -> Figure:
    """Next-word distributions side by side.

    Args:
        rows: title → probabilities, one panel each.
        words: the x axis.
    """
    figure = Figure(figsize=(7.4, 3.0))
    figure.subplots_adjust(left=0.08, right=0.985, top=0.9, bottom=0.15, wspace=0.12)
    axes = figure.subplots(1, len(rows), squeeze=False)[0]
    for ax, (title, probs) in zip(axes, rows.items(), strict=True):
        style.word_bars(ax, words, probs, title=title)
        ax.set(xlabel="next word", ylabel="")
        ax.xaxis.set_label_coords(0.5, -0.1)
    axes[0].set_ylabel("probability")
    axes[0].yaxis.set_label_coords(-0.15, 0.5)
    return figure


def icicle(
    ax: Axes, levels: Sequence[Tensor], words: Sequence[str], path: Sequence[int] = ()
) -> None:
    """The prefix tree as nested boxes: a box's height is the probability of its prefix.

    Args:
        ax: where to draw.
        levels: T tensors (n^k, A) of log π(a | s), from `oracle.state_logprobs`.
        words: A strings; those from n on end the completion.
        path: word ids of the prefix to outline.
    """
    n = levels[1].shape[0]
    starts, heights = [0.0], [1.0]
    boxes, colors = [], []
    for depth, level in enumerate(levels):
        next_starts, next_heights = [], []
        for start, height, probs in zip(starts, heights, level.exp().tolist(), strict=True):
            for word, prob in enumerate(probs):
                box = height * prob
                boxes.append(_rectangle(depth, start, box))
                colors.append(SHADES[word % len(SHADES)])
                if box > 0.045:
                    label = style.tick(words[word])
                    ax.text(
                        depth + 0.5,
                        start + box / 2,
                        label,
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="white" if word < 2 else "black",
                    )
                if word < n:
                    next_starts.append(start)
                    next_heights.append(box)
                start += box
        starts, heights = next_starts, next_heights
    ax.add_collection(PolyCollection(boxes, facecolors=colors, edgecolors="white", linewidths=0.4))
    start, height, row = 0.0, 1.0, 0
    outlines = []
    for depth, word in enumerate(path):
        probs = levels[depth][row].exp().tolist()
        start, height = start + height * sum(probs[:word]), height * probs[word]
        outlines.append(_rectangle(depth, start, height))
        row = row * n + word
    ax.add_collection(
        PolyCollection(outlines, facecolors="none", edgecolors=COLORS["behavior"], linewidths=2.2)
    )
    ax.set(xlim=(0, len(levels)), ylim=(1, 0))
    style.label_x(ax, {k + 0.5: f"word {k + 1}" for k in range(len(levels))})
    style.label_y(ax, PROBABILITIES)
    ax.set_ylabel("probability (box height)")


def _rectangle(left: float, top: float, height: float) -> list[tuple[float, float]]:
    return [(left, top), (left + 1, top), (left + 1, top + height), (left, top + height)]


def prefix_tree(
    levels: Sequence[Tensor], words: Sequence[str], prompt: str, path: Sequence[int] = ()
) -> Figure:
    """The tree on the left, the next-word distribution after `path` on the right.

    Args:
        levels: T tensors (n^k, A) of log π(a | s), from `oracle.state_logprobs`.
        words: A strings.
        prompt: for the title.
        path: word ids walked so far.
    """
    n = levels[1].shape[0]
    ended = len(path) == len(levels) or any(word >= n for word in path)
    logp = sum(float(factor.detach()) for factor in oracle.along(levels, path))
    figure, (left, right) = style.quick_figure((1.25, 1), wspace=0.22)
    icicle(left, [level.detach() for level in levels], words, path)
    left.set_title(f"all completions of “{prompt}”")
    prefix = " ".join(words[word] for word in path)
    if ended:
        right.set_axis_off()
        numbers = f"log p = {logp:.3f} nats\np = {math.exp(logp):.5f}"
        right.text(
            0.5,
            0.5,
            f"“{prefix}”\nis complete.\n\n{numbers}",
            ha="center",
            va="center",
            fontsize=11,
        )
    else:
        probs = levels[len(path)][oracle.rank(path, n)].detach().exp().tolist()
        title = f"next word after “{prefix}”" if path else "first word"
        style.word_bars(right, words, probs, title=title)
        right.set_xlabel(f"log p of the prefix so far: {logp:.3f} nats")
    return figure


def sampled_against_exact(
    texts: Sequence[str], frequencies: Sequence[float], exact: Sequence[float], *, count: int
) -> Figure:
    """Sampled frequencies as bars with their standard error, exact values as black dashes.

    Args:
        texts: the outcomes shown.
        frequencies: sampled share of each.
        exact: exact probability of each.
        count: N, the number of samples.
    """
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    errors = [(p * (1 - p) / count) ** 0.5 for p in exact]
    positions = range(len(texts))
    ax.bar(
        positions,
        frequencies,
        yerr=errors,
        color=COLORS["policy"],
        capsize=2,
        width=0.7,
        label=f"sampled, N = {count:,} (bar: ± 1 standard error)",
    )
    style.exact_dashes(ax, exact, label="exact")
    ax.set_xticks(positions, [style.tick(text) for text in texts], rotation=45, ha="right")
    ax.set(ylabel="probability of the completion")
    ax.legend()
    return figure


def running_product(curves: Mapping[str, tuple[Sequence[float], str, str]]) -> Figure:
    """Log-probability of a growing text, for several ways of computing it.

    Args:
        curves: label → (log₁₀ after 1, 2, … tokens; role; line style). −inf ends a curve.
            Curves that lie on each other stay visible: the first is wide and pale.
    """
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    for k, (label, (values, role, look)) in enumerate(curves.items()):
        finite = [value for value in values if value > -math.inf]
        line = ax.plot(
            range(1, len(finite) + 1),
            finite,
            look,
            color=COLORS[role],
            label=label,
            linewidth=1.6 if role == "exact" else max(3, 8 - 5 * k),
            alpha=1.0 if k else 0.35,
        )[0]
        if len(finite) < len(values):
            ax.plot(len(finite), finite[-1], "x", color=line.get_color(), markersize=9)
            ax.annotate(
                f"0 after {len(finite) + 1} tokens",
                (len(finite), finite[-1]),
                fontsize=8,
                xytext=(8, 4),
                textcoords="offset points",
                color=line.get_color(),
            )
    ax.set(xlabel="number of tokens multiplied", ylabel="log₁₀ of the probability")
    ax.legend()
    return figure


def diagonal(exact: Sequence[float], model: Sequence[float], *, xlabel: str, ylabel: str) -> Figure:
    """A cloud of points against the black dashed diagonal where it would be exact.

    Args:
        exact: x values.
        model: y values.
        xlabel: with unit.
        ylabel: with unit.
    """
    figure = Figure(figsize=(4.4, 3.6), layout="constrained")
    ax = figure.subplots()
    ax.scatter(exact, model, s=9, color=COLORS["policy"], alpha=0.6, label="one review each")
    ends = [min(exact), max(exact)]
    ax.plot(ends, ends, "--", color=COLORS["exact"], label="model = grammar")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return figure


def samplers(
    words: Sequence[str],
    model: Sequence[float],
    sampler: Sequence[float],
    texts: Sequence[str],
    model_joint: Sequence[float],
    sampler_joint: Sequence[float],
) -> Figure:
    """What the model says against what a sampler draws: the first word, and whole completions.

    Args:
        words: A strings.
        model: (A,) the model's probabilities of the first word.
        sampler: (A,) the sampler's.
        texts: the completions shown.
        model_joint: the model's probability of each.
        sampler_joint: the sampler's.
    """
    figure, (left, right) = style.quick_figure((1, 1.25), wspace=0.55)
    look: dict[str, Any] = {"color": COLORS["behavior"], "hatch": "//", "edgecolor": "white"}
    left.bar(range(len(words)), sampler, width=0.7, **look)
    style.exact_dashes(left, model)
    left.set(ylabel="probability", title="first word", ylim=(0, 1))
    style.label_x(left, dict(enumerate(map(style.tick, words))))
    style.label_y(left, PROBABILITIES)
    rows = range(len(texts))
    right.barh(rows, sampler_joint, height=0.7, label="the sampler draws from this", **look)
    right.vlines(
        model_joint,
        [y - 0.42 for y in rows],
        [y + 0.42 for y in rows],
        colors=COLORS["exact"],
        linestyles="dashed",
        label="the model's p, exact",
    )
    largest = max([*sampler_joint, *model_joint])
    limit = next(end for end in (0.25, 0.5, 1.0) if 0.98 * end >= largest or end == 1.0)
    right.set(xlabel="probability", title="the model's most probable completions")
    right.set(xlim=(0, limit * 1.02), ylim=(len(texts) + 0.9, -0.6))  # room for the legend
    style.label_y(right, dict(enumerate(map(style.tick, texts))))
    style.label_x(right, {limit * k / 2: f"{limit * k / 2:g}" for k in range(3)})
    right.legend(loc="lower right")
    return figure
