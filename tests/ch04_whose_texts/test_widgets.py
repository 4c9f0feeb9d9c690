"""The laboratory of behaviour policies, driven as a reader would drive it, without a browser."""

import pytest

from course.ch04_whose_texts import widgets
from course.exact import off_policy, tables
from course.kit import style


def test_the_behaviour_laboratory_shows_the_exact_numbers(world, table):
    style.use_style()
    lab = widgets.BehaviorLab(table, world)
    assert "worth about <b>16.0</b> of π" in lab.state.value, "no distance, no loss"
    pictures = {lab.image.value}
    for name, value in (("temperature", 2.0), ("epsilon", 0.3), ("count", 4), ("reward", True)):
        getattr(lab, name).value = value
        pictures.add(lab.image.value)
    lab.prompt.value = "pan"
    pictures.add(lab.image.value)
    assert len(pictures) == 6
    behavior = tables.exploring(table, world, temperature=2.0, epsilon=0.3)
    problem = off_policy.off_policy(table, behavior, world, "pan")
    size = 4 / float(problem.probability @ problem.ratio**2)
    assert f"4 texts of μ are worth about <b>{size:.1f}</b>" in lab.state.value


def test_the_laboratory_draws_the_bars_that_it_computes(world, table):
    figure, found, size = widgets.compare_estimators(
        table,
        tables.exploring(table, world, temperature=0.6),
        world,
        "praise",
        title="μ",
        count=16,
        per_word=True,
    )
    own, naive, *_, last = found.values()
    assert list(found)[0] == "own texts" and own.bias == pytest.approx(0, abs=1e-12)
    assert abs(naive.bias) > 1e-3 and 1 < size < 16
    widths = [patch.get_width() for patch in figure.axes[1].patches]
    assert widths[0] == pytest.approx(own.variance**0.5)
    assert widths[-1] == pytest.approx(abs(last.bias))
