"""Figures: they draw, they are reproducible, and they show the numbers that they were given."""

import io
import sys

import pytest
import torch
from PIL import Image

from helpers import exact, models, plotting, values


@pytest.fixture(autouse=True)
def style():
    plotting.use_style()


def figures(world, table) -> dict:
    with torch.no_grad():
        levels = exact.state_logprobs(table, world, "praise")
    words, probs = list(world.words), [0.1, 0.2, 0.3, 0.25, 0.15]
    return {
        "conditionals": plotting.conditionals({"z": probs, "2 z": probs}, words),
        "tree": plotting.prefix_tree(levels, words, "praise", [0, 1]),
        "tree, ended": plotting.prefix_tree(levels, words, "praise", [2, 4]),
        "tree, cut": plotting.prefix_tree(levels, words, "praise", [2, 2, 2, 2]),
        "sampled": plotting.sampled_against_exact(words, probs, probs, count=100),
        "product": plotting.running_product(
            {"sum": ([-1.0, -2.0, -3.0], "exact", "--"),
             "product": ([-1.0, -2.0, -torch.inf], "policy", "-")}
        ),
        "samplers": plotting.samplers(words, probs, probs, words, probs, probs),
        "diagonal": plotting.diagonal([-1.0, -2.0], [-1.1, -2.0], xlabel="x", ylabel="y"),
        "reward": plotting.reward_and_share([0.0, 1.0], [1.0, 0.5], start=0.0, mark=1),
        "loop": plotting.loop_diagram(),
        "values": plotting.value_tree(
            levels, probs, words, [0, 1], name="Q", title="praise", probs=probs, level=0.1
        ),
        "values, ended": plotting.value_tree(
            levels, None, words, [2, 4], name="Q", title="praise", probs=[]
        ),
        "values, colours": plotting.colored_tree(levels, words, title="praise"),
        "advantage": plotting.q_and_advantage(probs, 0.2, probs, words, "not"),
        "credit": plotting.credit({"good .": [0.5, 0.5], ".": [-1.0]}, start=0.0),
        "discount": plotting.discount_curves(
            [0.0, 1.0], {"start": {"good": [0.0, 1.0]}}, {"start": [0.0, 1.0]}
        ),
        "along": plotting.rewards_along(
            ["good", "."], {"a": [0.0, 1.0], "b": [1.0, 0.0]}, {"a": [1.0, 1.0], "b": [1.0, 0.0]}
        ),
        "teachers": plotting.two_teachers(),
        "learning curve": plotting.learning_curve([40.0, 20.0, 13.5], floor=13.0, steps=5),
        "entropy and kl": plotting.entropy_plus_kl([0, 5], [9.0, 1.0], [22.0, 14.0], [0.5, 0.5],
                                                   entropy=13.0),
        "gradient norms": plotting.gradient_norms(
            [1, 4], {"data": [[2.0, 1.5]], "own": [[2.0, 1.0]]}, exact=1.4),
        "critics": plotting.two_critics(
            [0.2, 0.4, 0.6], [13.2, 13.0, 13.1], [-0.5, -0.2, 0.2], data=(0.4, 13.0, -0.2),
            model=(0.6, 13.1, 0.2)),
        "honest and gaming": plotting.honest_and_gaming(
            {"length": ([3.0, 4.0, 8.0], 30.0, "words"), "flat": ([1.0, 1.0], 1.0, "units"),
             "empty": ([], 2.0, "units")}, honest="3 reviews", gaming="spam"),
        "learning curves": plotting.learning_curves(
            {"a": {"b": (torch.tensor([[1.0, 0.5], [0.9, 0.4]]), "policy", "-")}}, [10, 100],
            ylabel="error",
        ),
        "two answers": plotting.two_answers(
            words, {"a": (probs, probs, "policy"), "b": (probs, probs, "behavior")}, prefix="not"
        ),
        "maximum": plotting.maximisation_bias([2, 10], [0.5, 1.5], {"a": ([0.5], "o")}),
        "running": plotting.running_estimates(
            [1, 10], {"a": (torch.ones(2, 2), "policy", "-"), "b": (torch.ones(2, 2), "kl", "-")},
            exact=1.0,
        ),
        "estimators": plotting.estimators(
            {"own texts": (0.1, 0.0, 0.2), "no ratio": (0.3, 0.2, 0.1)}, exact=0.1, title="a"
        ),
        "spread": plotting.mean_and_spread(
            {"own texts": (0.1, 0.2), "no ratio": (0.3, 0.1)}, exact=0.1, title="a"
        ),
        "variance": plotting.variance_growth(
            [1, 2], {"a": ([1.0, 2.0], "policy", "o-")}, [0, 10], {"b": ([0.0, 1.0], "-")}
        ),
        "simplex": plotting.simplex(
            ["a", "b", "c"], [-1.0, 1.0, 2.0],
            {"arrows": {"start": probs[:3], "tips": [[0, 0, 1]], "mean": [0, 1, 0],
                        "exact": [1, 0, 0]},
             "paths": {"exact": [[1, 0, 0], [0, 0, 1]], "sampled": [[[1, 0, 0], [0, 1, 0]]]}},
        ),
        "playground": plotting.playground(
            ["a", "b", "c"], [1.0, 1.0, 1.0], [0.2, 0.3, 0.5], [[0, 0, 1]], [0, 1, 0], [1, 0, 0],
            {"exact": [[0.2, 0.3, 0.5]], "sampled": [[0.2, 0.3, 0.5]]}, title="level",
        ),
        "cloud": plotting.gradient_cloud({"N = 1": [(0.5, 0.1), (1.2, 0.0)]}, (1.0, 0.0)),
        "errors": plotting.error_curves([1, 4], [[1.0, 0.6], [0.9, 0.4]], [1.0, 0.5]),
        "estimator bars": plotting.estimator_bars(
            {"angle, degrees": ({"a": 0.0, "b": 3.0}, 0.0), "scale": ({"a": -1.0, "b": 1.0}, 1.0)}
        ),
        "variances": plotting.estimator_bars({"x": ({"a": 1.0}, None), "y": ({"a": 2.0}, None)}),
        "curves": plotting.curves(
            [0, 1], {"left": {"a": [1.0, 2.0]}}, xlabel="x", looks={"a": {}}, ylabels=["y"]
        ),
        "ascent": plotting.ascent_curves({"table": ([0.0, 1.0], [[0.0, 0.9]])}, best=2.0),
        "clouds": plotting.clouds(
            {"a": torch.eye(2), "b": 2 * torch.eye(2)}, truth=0.5, count=8
        ),
        "parabolas": plotting.parabolas(
            [0.0, 1.0], {"a": [1.0, 2.0], "b": [1.0, 3.0]},
            {"a": {"b*": (0.0, 1.0)}, "b": {"b*": (0.0, 1.0)}},
        ),
        "bars": plotting.moment_bars(
            [("V", 0.5, 1.0, 0.0), ("z", 2.0, 1.4, 9.0)], chosen="V", title="K = 4: "
        ),
        "bernoulli": plotting.bernoulli_curves([0.1, 0.9], {"none": [1.0, 0.1]}),
        "difficulty": plotting.difficulty(
            [0.1, 0.9], {"K = 2": [1.0, 1.0], "limit": [3.0, 3.0]}, "limit", [2, 4],
            {"0 or 1": [0.0, 3.0]},
        ),
        "trade-off": plotting.trade_off([0.0, 1.0], [0.5, 0.0], [1.0, 2.0], [4, 16]),
        "learning": plotting.objective_curves([("V", [0.0, 1.0])], best=2.0, title="J"),
        "learning, nothing yet": plotting.objective_curves([], best=2.0),
        "laboratory": plotting.laboratory(
            {"1: praise": {"reward": [0.0, 1.0], "kl": [0.0, float("nan")]}},
            exact={"entropy": 13.0}, title="1 run",
        ),
        "laboratory, nothing yet": plotting.laboratory({}, exact={}, title="press Run"),
        "work": plotting.work({"plain": (10, 5), "cache": (4, 5)}),
        "multiples": plotting.multiples(
            {"J": {"J": [0.0, 1.0]}, "nats": {"nll": [1.0, float("nan")], "H": [1.0, 2.0]}},
            exact={"J": 2.0},
        ),
        "symptoms": plotting.symptoms(
            {"A": {"J": [[0.0, 1.0]]}, "B": {"J": [[0.0, 0.0]]}}, {"J": [[0.0, 2.0]]},
            exact={"J": 2.0}, limits={"J": (-1.0, 2.0)},
        ),
        "steps": plotting.steps_to_threshold(
            {"as is": {"none": [3.0, float("nan"), 5.0]}}, most=10, title="steps"
        ),
    }  # fmt: skip


def test_every_figure_draws_the_same_twice_and_its_axes_are_labelled(world, table):
    again = figures(world, table)
    models.word_transformer(world, seed=0)
    assert "matplotlib.pyplot" not in sys.modules, "a figure goes through pyplot"
    for name, figure in figures(world, table).items():
        picture = plotting.png(figure)
        assert picture.startswith(b"\x89PNG") and picture == plotting.png(again[name]), name
        visible = [ax for ax in figure.axes if ax.axison]
        assert all(ax.get_ylabel() or ax.get_title(loc="left") for ax in visible), name
        if name == "bars":  # no axes, for speed: texts name the rows and what is measured
            written = {text.get_text() for text in figure.texts}
            assert {"baseline", "K = 4: variance / none", "mean along ∇L / ‖∇L‖"} <= written
            assert "biased: × 1.40, 9.0°" in written and sum("biased" in t for t in written) == 1
            continue
        if name.startswith("laboratory"):  # small multiples: the titles say what and in which unit
            titles = [ax.get_title(loc="left") for ax in visible]
            assert titles == list(plotting.PANELS.values()), name
            continue
        if name in ("multiples", "steps"):  # left titles say what and in which unit
            assert all(ax.get_title(loc="left") for ax in visible), name
            continue
        assert name in ("loop", "teachers") or any(ax.get_ylabel() for ax in figure.axes), name


def test_box_heights_of_the_tree_are_probabilities(world, table):
    with torch.no_grad():
        levels = exact.state_logprobs(table, world, "praise")
        probs = exact.completion_logprobs(table, world, "praise").exp()
    figure = plotting.Figure()
    ax = figure.subplots()
    plotting.icicle(ax, levels, world.words, path=[1, 2])
    boxes, outline = ax.collections
    heights = [p.vertices[:, 1].max() - p.vertices[:, 1].min() for p in boxes.get_paths()]
    assert len(heights) == 5 * 85
    # one box a prefix: all of level k sum to the probability of writing a (k+1)-th word
    assert sum(heights[:5]) == pytest.approx(1.0)
    every = exact.enumerate_completions(world)
    assert sum(heights[-256 - 64 :]) == pytest.approx(float(probs[every.lengths == 4].sum()))
    last = outline.get_paths()[-1].vertices[:, 1]
    expected = (levels[0][0, 1] + levels[1][1, 2]).exp()
    assert last.max() - last.min() == pytest.approx(float(expected))


def test_colours_of_roles_are_distinct_and_exact_is_black():
    assert len(set(plotting.COLORS.values())) == len(plotting.COLORS)
    assert plotting.COLORS["exact"] == "#000000"


def test_the_value_tree_colours_what_can_still_be_written(world, table):
    with torch.no_grad():
        levels = values.policy_values(table, world, "praise").q_value
    for path, boxes in (([], 5 * 85), ([1], 1 + 5 * 21), ([1, 2, 0], 3 + 5), ([1, 4], 2)):
        figure = plotting.Figure()
        ax = figure.subplots()
        plotting.number_tree(ax, levels, world.words, path)
        drawn = ax.collections[0]
        assert len(drawn.get_paths()) == boxes

    ax = plotting.Figure().subplots()
    plotting.number_tree(ax, levels, world.words)
    red, green = torch.tensor(ax.collections[0].get_facecolors()[:5, :2]).T
    clear = levels[0][0].abs() > 0.1
    assert clear.sum() >= 3
    assert ((green > red) == (levels[0][0] > 0))[clear].all(), "brown below 0, green above"


def test_the_triangle_places_probabilities_and_levels_where_they_belong():
    ax = plotting.simplex(
        ["a", "b", "c"], [0.0, 0.0, 8.0],
        {"p": {"start": [0.0, 0.0, 1.0], "tips": [], "mean": None, "exact": [0.5, 0.5, 0.0]}},
    ).axes[0]  # fmt: skip
    [dot] = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert tuple(dot.get_xydata()[0]) == pytest.approx((0.5, 0.866)), "all on the third text"
    [arrow] = [t for t in ax.texts if getattr(t, "arrow_patch", None)]
    assert arrow.xy == pytest.approx((0.5, 0.0)), "half and half of the first two"
    # J = 8 p₃: seven level lines, J = 1 … 7, parallel to the base, at the height 0.866 J / 8
    levels = [c for c in ax.collections if len(c.get_segments()) == 7]
    heights = sorted(segment[0][1] for segment in levels[0].get_segments())
    assert heights == pytest.approx([0.866 * k / 8 for k in range(1, 8)])
    assert all(s[0][1] == pytest.approx(s[1][1]) for s in levels[0].get_segments())


def test_a_class_sees_larger_figures(monkeypatch):
    def width() -> int:
        plotting.use_style()
        with Image.open(io.BytesIO(plotting.png(plotting.loop_diagram()))) as picture:
            return picture.width

    before = width()
    monkeypatch.setenv("COURSE_ZOOM", "1.5")
    assert abs(width() - 1.5 * before) <= 2
    monkeypatch.delenv("COURSE_ZOOM")
    assert width() == before
