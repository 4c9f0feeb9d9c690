"""Figures of chapter 03, generation as a Markov decision process."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from course.exact import oracle
from course.kit import style
from course.kit.style import COLORS

LARGEST = 2.0  # rewards of the word world lie in [−2, 2]; one scale for all pictures
COLOR_OF = mpl.colormaps["BrBG"]  # brown below 0, green above, white at 0
SCALE = Normalize(-LARGEST, LARGEST)


def number_tree(
    ax: Axes,
    levels: Sequence[Tensor],
    words: Sequence[str],
    path: Sequence[int] = (),
    *,
    numbers: bool = True,
) -> None:
    """What comes after `path` as nested boxes of one height, coloured by a number for each.

    The words of the path fill the columns on the left; the rest of the tree is zoomed to what
    is still reachable. Brown is negative, green positive, hatched no number.

    Args:
        ax: where to draw.
        levels: T tensors (n^k, A), a number for each state and word; nan leaves a box empty.
        words: A strings; those from n on end the completion.
        path: word ids walked so far.
        numbers: write them into the boxes, beside the words.
    """
    n, boxes, colors = len(levels[1]), [], []
    walked = oracle.along(levels, path)
    for depth, number in enumerate(walked):
        boxes.append(_box(depth, 0.0, 1.0))
        colors.append(_color(float(number)))
        _label(ax, depth, 0.5, words[path[depth]], float(number), fontsize=8)
    ended = bool(path) and (path[-1] >= n or len(path) == len(levels))
    tops, height, rows = [0.0], 1.0, [oracle.rank(path, n)]
    for depth in range(len(path), 0 if ended else len(levels)):
        height /= len(words)
        next_tops, next_rows = [], []
        for top, row in zip(tops, rows, strict=True):
            for word, number in enumerate(levels[depth][row].tolist()):
                start = top + word * height
                boxes.append(_box(depth, start, height))
                colors.append(_color(number))
                if height > 0.03:
                    shown = number if numbers else float("nan")
                    size = 8 if height > 0.06 else 7
                    _label(ax, depth, start + height / 2, words[word], shown, fontsize=size)
                if word < n:
                    next_tops.append(start)
                    next_rows.append(row * n + word)
        tops, rows = next_tops, next_rows
    widths = [0.4 if box[2][1] - box[0][1] > 0.015 else 0.0 for box in boxes]
    ax.add_collection(
        PolyCollection(boxes, facecolors=colors, edgecolors="#A0A0A0", linewidths=widths)
    )
    ax.set(xlim=(0, len(levels)), ylim=(1, 0))
    style.label_x(ax, {k + 0.5: f"word {k + 1}" for k in range(len(levels))})
    style.label_y(ax, {})
    ax.set_ylabel("equal boxes, not probabilities")


def _box(left: float, top: float, height: float) -> list[tuple[float, float]]:
    return [(left, top), (left + 1, top), (left + 1, top + height), (left, top + height)]


def _color(number: float) -> Any:
    return "#E8E8E8" if number != number else COLOR_OF(SCALE(number))


def _label(ax: Axes, depth: int, y: float, word: str, number: float, *, fontsize: int) -> None:
    text = style.tick(word) if number != number else f"{style.tick(word)} {number:+.2f}"
    dark = number == number and abs(number) > 0.7 * LARGEST
    ax.text(
        depth + 0.5,
        y,
        text,
        ha="center",
        va="center",
        fontsize=fontsize,
        color="white" if dark else "black",
    )


def colored_tree(levels: Sequence[Tensor], words: Sequence[str], *, title: str) -> Figure:
    """The whole tree in colours, without a number, and what the colours mean.

    Args:
        levels: T tensors (n^k, A): the colour of each box, reward units.
        words: A strings.
        title: of the tree.
    """
    figure, (left, right) = style.quick_figure((1, 0.025), wspace=0.06)
    number_tree(left, levels, words, numbers=False)
    left.set_title(title, fontsize=10)
    left.yaxis.set_label_coords(-0.025, 0.5)
    scale = mpl.cm.ScalarMappable(SCALE, COLOR_OF)
    figure.colorbar(scale, cax=right, ticks=[-2, -1, 0, 1, 2], label="reward units")
    right.yaxis.set_label_coords(2.6, 0.5)
    figure.subplots_adjust(right=0.91)
    return figure


def value_tree(
    levels: Sequence[Tensor],
    bars: Sequence[float] | None,
    words: Sequence[str],
    path: Sequence[int],
    *,
    name: str,
    title: str,
    probs: Sequence[float],
    level: float | None = None,
) -> Figure:
    """The tree coloured by V, Q or A on the left, the next words' numbers on the right.

    Args:
        levels: T tensors (n^k, A): the colour of each box, reward units.
        bars: A numbers of the state at the end of `path`; None at a terminal state.
        words: A strings.
        path: word ids walked so far.
        name: of the bars, such as "Q(s, a)".
        title: of the tree.
        level: where to draw black dashes over the bars, such as V(s); None draws none.
        probs: A probabilities π(a | s), written below the words.
    """
    figure, (left, right) = style.quick_figure((1.35, 1), wspace=0.24)
    number_tree(left, levels, words, path)
    left.set_title(title, fontsize=10)
    prefix = " ".join(words[word] for word in path)
    if bars is None:
        right.set_axis_off()
        text = f"“{prefix}”\nis complete:\na terminal state,\nwhose value is 0."
        right.text(0.5, 0.5, text, ha="center", va="center", fontsize=11)
        return figure
    number_bars(right, bars, with_probability(words, probs), level=level)
    right.set_ylabel(f"{name}, reward units")
    right.set_title(f"next word after “{prefix}”" if path else "first word", fontsize=10)
    return figure


def with_probability(words: Sequence[str], probs: Sequence[float]) -> list[str]:
    """Words as labels of an axis, each with its probability below."""
    return [f"{style.tick(word)}\n({prob:.2f})" for word, prob in zip(words, probs, strict=True)]


def number_bars(
    ax: Axes, bars: Sequence[float], words: Sequence[str], *, level: float | None = None
) -> None:
    """One bar a word around zero, each with its number, and a level in black dashes.

    Args:
        ax: where to draw.
        bars: A numbers in reward units, within ±2.
        words: A strings.
        level: where to draw the dashes; None draws none.
    """
    colors = [COLOR_OF(SCALE(number)) for number in bars]
    drawn = ax.bar(range(len(words)), bars, width=0.7, color=colors, edgecolor="#606060")
    patch = {"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.85}
    numbers = [f"{number:+.2f}" for number in bars]
    shown = ax.bar_label(drawn, numbers, fontsize=8, padding=3, bbox=patch, zorder=4)
    for text, number in zip(shown, bars, strict=True):
        if level is not None and level < 0 and number < 0:  # clear of the dashes: above zero
            text.set(position=(0, 3), va="bottom")
            text.xy = (text.xy[0], 0.0)
    ax.axhline(0, color="#606060", linewidth=0.8)
    if level is not None:
        ax.axhline(level, color=COLORS["exact"], linestyle="--", linewidth=1.6)
        ax.text(
            0.98,
            0.95,
            f"- - -  V(s) = {level:+.2f}",
            transform=ax.transAxes,
            fontsize=8,
            ha="right",
            va="top",
        )
    reach = max([LARGEST, *(abs(number) for number in bars)])
    ax.set_ylim(-1.25 * reach, 1.45 * reach)
    style.label_x(ax, dict(enumerate(map(style.tick, words))))
    style.label_y(ax, {-reach: f"{-reach:g}", 0.0: "0", reach: f"{reach:g}"})


def q_and_advantage(
    q_value: Sequence[float], value: float, probs: Sequence[float], words: Sequence[str], title: str
) -> Figure:
    """Q of each word with V as dashes; A of each word, with π(a | s) below.

    Args:
        q_value: A numbers, reward units.
        value: V(s).
        probs: A probabilities π(a | s).
        words: A strings.
        title: which state this is.
    """
    figure, (left, right) = style.quick_figure((1, 1), wspace=0.28)
    shown = with_probability(words, probs)
    number_bars(left, q_value, shown, level=value)
    number_bars(right, [q - value for q in q_value], shown)
    left.set(ylabel="Q(s, a), reward units", title=f"Q: how good after “{title}”")
    right.set(ylabel="A(s, a), reward units", title="A: how much better than usual")
    for ax in (left, right):
        ax.set_xlabel("next word (and how probable it is)", labelpad=12)
        ax.xaxis.set_label_coords(0.5, -0.14)
    return figure


def credit(texts: Mapping[str, Sequence[float]], *, start: float) -> Figure:
    """Each text as a walk from V(c) to its reward, one step of height A(s_t, a_t) a word.

    Args:
        texts: completion → the advantages of its words, reward units.
        start: V(c).
    """
    figure = Figure(figsize=(7.4, 3.0), layout="constrained")
    axes = figure.subplots(1, len(texts), sharey=True, squeeze=False)[0]
    for ax, (text, advantages) in zip(axes, texts.items(), strict=True):
        words, level = text.split(), start
        for k, number in enumerate(advantages):
            ax.bar(
                k,
                number,
                bottom=level,
                width=0.8,
                color=COLOR_OF(SCALE(number)),
                edgecolor="#606060",
            )
            above = k == len(advantages) - 1 or number >= 0  # clear of the dotted line and dashes
            edge = max(level, level + number) + 0.1 if above else min(level, level + number) - 0.1
            ax.text(
                k, edge, f"{number:+.2f}", ha="center", va="bottom" if above else "top", fontsize=8
            )
            level += number
        style.exact_dashes(ax, [float("nan")] * (len(words) - 1) + [level])
        ax.axhline(start, color=COLORS["exact"], linestyle=":", linewidth=1)
        ax.set_title(f"“{text}”, R = {level:+.0f}", fontsize=9)
        ax.set_xticks(range(len(words)), [style.tick(word) for word in words], fontsize=8)
        ax.set(ylim=(-2.5, 2.9))
    axes[0].set_ylabel("reward units")
    figure.supxlabel("word", fontsize=9)
    return figure


def discount_curves(
    gammas: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    best: Mapping[str, Sequence[float]],
) -> Figure:
    """Discounted reward of a few texts, against γ; the best of all as black dashes.

    Args:
        gammas: the x axis.
        panels: title → label → values, one curve a label.
        best: title → the exact optimal value at each γ, in the panels that have one.
    """
    figure = Figure(figsize=(7.4, 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    styles = ("-", "-.", ":", (0, (5, 1, 1, 1)))
    shades = ("#9ECAE1", "#4292C6", "#084594", "#7F7F7F")
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for (label, values), look, shade in zip(curves.items(), styles, shades, strict=False):
            ax.plot(gammas, values, linestyle=look, color=shade, label=label, linewidth=2.4)
        if title in best:
            ax.plot(gammas, best[title], "--", color=COLORS["exact"], label="V*, exact")
        ax.set(xlabel="discount γ", title=title)
        ax.legend(fontsize=8)
    axes[0].set_ylabel("discounted reward, reward units")
    return figure


def rewards_along(
    words: Sequence[str],
    rewards: Mapping[str, Sequence[float]],
    values: Mapping[str, Sequence[float]],
) -> Figure:
    """Reward of each word, and V before each word, for two ways to pay for the same text.

    Args:
        words: of the text.
        rewards: way to pay → reward of each word.
        values: way to pay → V of the prefix before each word.
    """
    figure = Figure(figsize=(7.4, 3.0), layout="constrained")
    axes = figure.subplots(1, 2)
    color = COLORS["reward"]
    looks = (("", "o-", color), ("//", "s:", "white"))  # hatch, line, filling of the markers
    for offset, (hatch, line, filling), (name, numbers) in zip(
        (-0.2, 0.2), looks, rewards.items(), strict=True
    ):
        places = [k + offset for k in range(len(words))]
        bars = axes[0].bar(
            places,
            numbers,
            width=0.38,
            color=color,
            alpha=0.6 if hatch else 1,
            hatch=hatch,
            edgecolor="white",
            label=name,
        )
        axes[0].bar_label(bars, [f"{x:+.0f}" if x else "0" for x in numbers], fontsize=8)
        axes[1].plot(
            range(len(words)), values[name], line, color=color, markerfacecolor=filling, label=name
        )
    for ax in axes:
        ax.set_xticks(range(len(words)), [style.tick(word) for word in words])
        ax.axhline(0, color="#606060", linewidth=0.8)
        ax.margins(y=0.18)
        ax.legend(fontsize=8)
    axes[0].set(ylabel="r(s, a), reward units", xlabel="word", title="reward of each word")
    axes[1].set(ylabel="V(s), reward units", xlabel="before this word", title="value before it")
    return figure
