"""The explorer of values, driven as a reader would drive it, without a browser."""

import pytest
import torch

from course.ch03_token_mdp import widgets
from course.exact import values
from course.kit import style


@pytest.fixture
def values_explorer(world, table):
    style.use_style()
    return widgets.ValueExplorer(table, world)


def test_the_value_explorer_shows_the_swept_numbers(values_explorer, world, table):
    values_explorer.walk(world.encode("not very"))
    row, pictures = 1, set()
    with torch.no_grad():
        found = values.policy_values(table, world, "praise")
    shown = {
        "V": found.value[3][4 * row : 4 * row + 4].tolist() + [0.0],
        "Q": found.q_value[2][row].tolist(),
        "A": found.advantage[2][row].tolist(),
    }
    for name, numbers in shown.items():
        values_explorer.shown.value = name
        pictures.add(values_explorer.image.value)
        labels = [button.description for button in values_explorer.words]
        assert labels == [f"{w}  {x:+.2f}" for w, x in zip(world.words, numbers, strict=True)]
    assert len(pictures) == 3
    assert f"V(s) = <b>{float(found.value[2][row]):+.3f}" in values_explorer.state.value
    assert f"<b>{float(found.start):+.3f}</b>" in values_explorer.state.value


def test_every_control_of_the_value_explorer_counts(values_explorer, world):
    explorer, seen = values_explorer, set()
    for control, value in (
        (explorer.gamma, 0.5),
        (explorer.writer, "uniform"),
        (explorer.writer, "the best one"),
        (explorer.payment, widgets.PAYMENTS[2]),
        (explorer.prompt, "pan"),
    ):
        before = explorer.image.value, explorer.state.value
        control.value = value
        assert (explorer.image.value, explorer.state.value) != before, control.description
        assert control.description
        seen.add(explorer.state.value)
    assert len(seen) == 5


def test_the_best_writer_with_the_bonus_never_ends(values_explorer, world):
    values_explorer.writer.value, values_explorer.payment.value = (
        "the best one",
        widgets.PAYMENTS[2],
    )
    # four times “very”: 4 · 2 for the bonus, −1 for the cut
    assert "<b>+7.000</b>" in values_explorer.state.value
    values_explorer.walk(world.encode("very very very very"))
    assert "complete" in values_explorer.state.value and "V = 0" in values_explorer.state.value


def test_shaped_payment_moves_values_by_the_potential_and_keeps_advantages(values_explorer, world):
    values_explorer.walk(world.encode("good"))
    values_explorer.gamma.value, values_explorer.shown.value = 0.8, "A"
    plain = values_explorer.state.value, [b.description for b in values_explorer.words]
    values_explorer.payment.value = widgets.PAYMENTS[1]
    assert [b.description for b in values_explorer.words] == plain[1]
    before, after = (
        float(s.split("V(s) = <b>")[1].split("<")[0])
        for s in (plain[0], values_explorer.state.value)
    )
    assert before - after == pytest.approx(1.0, abs=2e-3)  # “good .” would earn 1
