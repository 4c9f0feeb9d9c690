"""Figures of chapter 04, on-policy and off-policy."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor

from course.kit import style
from course.kit.style import COLORS

ENDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # where an axis may end, reward units
Curves = Mapping[str, tuple[Tensor, str, str]]  # label → (errors (seeds, K), role, line style)


def learning_curves(panels: Mapping[str, Curves], at: Sequence[int], *, ylabel: str) -> Figure:
    """Errors against the number of texts, one thin line a seed, both axes logarithmic.

    Args:
        panels: title → curves.
        at: the K numbers of texts.
        ylabel: with unit.
    """
    figure = Figure(figsize=(7.4, 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for label, (errors, role, look) in curves.items():
            for seed, line in enumerate(errors.tolist()):
                ax.loglog(
                    at,
                    line,
                    look,
                    color=COLORS[role],
                    linewidth=1.2,
                    alpha=0.8,
                    label="_hidden" if seed else f"{label}, {len(errors)} seeds",
                )
        ax.set(title=title, xlabel="texts learned from", ylabel=ylabel)
        ax.label_outer()
        ax.legend(fontsize=8)
    return figure


def two_answers(
    words: Sequence[str],
    answers: Mapping[str, tuple[Sequence[float], Sequence[float], str]],
    *,
    prefix: str,
) -> Figure:
    """Q of every next word at one state, as two methods learned it, with both exact values.

    Args:
        words: A strings.
        answers: panel title → (learned (A,), exact (A,), role).
        prefix: the state, for the axis.
    """
    figure = Figure(figsize=(7.4, 3.2), layout="constrained")
    axes = figure.subplots(1, len(answers), sharey=True)
    for ax, (title, (learned, exact, role)) in zip(axes, answers.items(), strict=True):
        hatch = "//" if role == "behavior" else ""
        ax.bar(
            range(len(words)),
            learned,
            width=0.7,
            color=COLORS[role],
            hatch=hatch,
            edgecolor="white",
            label="learned",
        )
        style.exact_dashes(ax, exact, label="exact")
        ax.axhline(0, color="black", linewidth=0.6)
        ax.set(title=title, ylabel="Q (reward units)", xlabel=f"next word after “{prefix}”")
        ax.set_xticks(range(len(words)), [style.tick(word) for word in words])
        best = max(range(len(words)), key=lambda word: exact[word])
        ax.get_xticklabels()[best].set_fontweight("bold")
        ax.label_outer()
        ax.margins(y=0.2)  # room for the legend
        ax.legend(fontsize=8, loc="upper left", ncols=2)
    return figure


def maximisation_bias(
    counts: Sequence[int], exact: Sequence[float], points: Mapping[str, tuple[Sequence[float], str]]
) -> Figure:
    """What a maximum over noisy estimates promises when nothing is better than anything.

    Args:
        counts: numbers of words, the x axis.
        exact: expected maximum at each, in standard errors.
        points: label → (simulated values, marker).
    """
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    ax.plot(counts, exact, "--", color=COLORS["exact"], label="expected maximum, exact")
    for label, (values, marker) in points.items():
        ax.plot(counts[: len(values)], values, marker, color=COLORS["policy"], label=label)
    ax.axhline(0, color=COLORS["reference"], linewidth=1.2, linestyle="-.", label="the truth")
    ax.set(
        xscale="log",
        xlabel="words that the maximum is over",
        ylabel="value claimed\n(standard errors of one estimate)",
    )
    ax.legend(fontsize=8)
    return figure


def running_estimates(
    counts: Sequence[int], runs: Mapping[str, tuple[Tensor, str, str]], *, exact: float
) -> Figure:
    """Estimates as more and more texts come in, several runs each.

    Args:
        counts: K numbers of texts.
        runs: panel title → (estimates (runs, K), role, line style).
        exact: what is estimated.
    """
    figure = Figure(figsize=(7.4, 3.2), layout="constrained")
    axes = figure.subplots(1, len(runs), sharey=True)
    for ax, (title, (estimates, role, look)) in zip(axes, runs.items(), strict=True):
        for line in estimates.tolist():
            ax.semilogx(counts, line, look, color=COLORS[role], linewidth=1.0, alpha=0.7)
        ax.axhline(exact, color=COLORS["exact"], linestyle="--", label="exact value of π")
        ax.set(title=f"{title}, {len(estimates)} runs", xlabel="texts of μ")
        ax.set_ylabel("estimate (reward units)")
        ax.label_outer()
        ax.legend(fontsize=8)
    return figure


def estimators(
    numbers: Mapping[str, tuple[float, float, float]], *, exact: float, title: str
) -> Figure:
    """Mean and spread of estimators on the left, their bias and standard deviation on the right.

    Args:
        numbers: name → (mean, |bias|, standard deviation), reward units, from N texts each. The
            first row is π's own texts, for comparison.
        exact: the value that is estimated.
        title: who wrote what, for the left panel.
    """
    figure = Figure(figsize=(7.4, 3.6))  # fixed places: fitting them would double the delay
    figure.subplots_adjust(left=0.18, right=0.985, top=0.9, bottom=0.15, wspace=0.1)
    left, right = figure.subplots(1, 2)
    triples = {name: (mean, spread) for name, (mean, _, spread) in numbers.items()}
    shades = _mean_and_spread(left, triples, exact=exact, title=title)
    left.yaxis.set_label_coords(-0.38, 0.5)
    rows = range(len(numbers))
    deviations = [deviation for _, _, deviation in numbers.values()]
    biases = [bias for _, bias, _ in numbers.values()]
    limit = next((end for end in ENDS if end >= max(*deviations, *biases)), 16.0)
    right.barh(
        [y - 0.2 for y in rows],
        deviations,
        height=0.38,
        edgecolor="white",
        hatch="//",
        color=shades,
        label="standard deviation",
    )
    right.barh([y + 0.2 for y in rows], biases, height=0.38, color="#4D4D4D", label="|bias|")
    right.set(xlim=(0, limit), title="error", xlabel="reward units")
    style.label_x(right, {limit * k / 2: f"{limit * k / 2:g}" for k in range(3)})
    style.label_y(right, {})
    right.set_ylim(left.get_ylim())
    right.xaxis.set_label_coords(0.5, -0.09)
    right.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8)
    return figure


def _mean_and_spread(
    ax: Axes, numbers: Mapping[str, tuple[float, float]], *, exact: float, title: str
) -> list[str]:
    """Mean ± standard deviation a row, around the exact value; returns the rows' colours."""
    rows = range(len(numbers))
    shades = [COLORS["policy"], *[COLORS["behavior"]] * (len(numbers) - 1)]
    reaches = [abs(mean - exact) + deviation for mean, deviation in numbers.values()]
    whole = next((end for end in ENDS if 1.05 * end >= max(reaches)), 16.0)
    pairs = list(numbers.values())
    ax.hlines(rows, [m - d for m, d in pairs], [m + d for m, d in pairs], shades, linewidth=3)
    ax.scatter([m for m, _ in pairs], rows, s=45, color=shades, marker="D", zorder=3)
    ax.axvline(exact, color=COLORS["exact"], linestyle="--")
    ax.set(xlim=(exact - 1.1 * whole, exact + 1.1 * whole), title=title, ylabel="estimator")
    ax.set(
        ylim=(len(numbers) - 0.4, -0.6), xlabel="mean ± 1 std, from the exact value (reward units)"
    )
    ax.xaxis.set_label_coords(0.5, -0.09)
    style.label_y(ax, dict(zip(rows, numbers, strict=True)))
    style.label_x(
        ax,
        {exact: f"exact {exact:.2f}"}
        | {exact + k * whole: f"{k * whole:+g}".replace("-", "−") for k in (-1, -0.5, 0.5, 1)},
    )
    return shades


def mean_and_spread(
    numbers: Mapping[str, tuple[float, float]], *, exact: float, title: str
) -> Figure:
    """Mean and spread of estimators, a row each.

    Args:
        numbers: name → (mean, standard deviation), reward units. The first row is π's own texts.
        exact: the value that is estimated.
        title: who wrote what.
    """
    figure = Figure(figsize=(7.4, 2.4))
    figure.subplots_adjust(left=0.15, right=0.985, top=0.87, bottom=0.23)
    ax = figure.subplots()
    _mean_and_spread(ax, numbers, exact=exact, title=title)
    ax.xaxis.set_label_coords(0.5, -0.15)
    ax.yaxis.set_label_coords(-0.14, 0.5)
    return figure


def variance_growth(
    lengths: Sequence[int],
    variances: Mapping[str, tuple[Sequence[float], str, str]],
    tokens: Sequence[int],
    samples: Mapping[str, tuple[Sequence[float], str]],
) -> Figure:
    """Variance against length in small worlds, and what it means for long texts.

    Args:
        lengths: limits T of the small worlds.
        variances: label → (exact variance of ρ or of a term, above 0, role, line style).
        tokens: lengths of long texts.
        samples: label → (log₁₀ of the texts of μ that are worth one of π by (4.14), line style).
    """
    figure = Figure(figsize=(7.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, (line, role, look) in variances.items():
        left.semilogy(lengths, line, look, color=COLORS[role], label=label, markersize=6)
    left.set(xlabel="longest text T (words)", ylabel="variance of ρ, exact (no unit)")
    left.set_xticks(list(lengths))
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("")
    left.legend(fontsize=8)
    for label, (line, look) in samples.items():
        right.plot(tokens, line, look, color=COLORS["behavior"], label=label)
    right.set(xlabel="tokens", ylabel="log₁₀ of texts of μ worth one of π, by (4.14)")
    right.legend(fontsize=8)
    return figure
