"""Widgets, driven as a reader would drive them, without a browser."""

import math

import pytest
import torch

from helpers import ascent, exact, models, plotting, values, widgets


@pytest.fixture
def explorer(world, table):
    plotting.use_style()
    return widgets.TreeExplorer(table, world)


def test_clicking_words_walks_the_tree(explorer, world, table):
    pictures = {explorer.image.value}
    for word in ("not", "very", "good"):
        explorer.words[world.words.index(word)].click()
        pictures.add(explorer.image.value)
    assert explorer.path == world.encode("not very good") and len(pictures) == 4
    with torch.no_grad():
        levels = exact.state_logprobs(table, world, "praise")
        logp = float(levels[0][0, 0] + levels[1][0, 1] + levels[2][1, 2])
        following = levels[3][4 * 1 + 2].exp().tolist()
    assert f"log p = {logp:.3f} nats" in explorer.state.value
    assert "not very good" in explorer.state.value
    shown = [button.description for button in explorer.words]
    assert shown == [f"{w}  {p:.2f}" for w, p in zip(world.words, following, strict=True)]


def test_the_product_in_the_text_is_the_probability(explorer, world):
    explorer.walk(world.encode("not very"))
    line = explorer.state.value.split("<br>")[1]
    factors, total = line.split(" = ")[1:3]
    product = math.prod(float(x) for x in factors.split(" × "))
    assert product == pytest.approx(float(total.split(",")[0]), abs=2e-3)


def test_back_start_over_and_the_other_prompt(explorer):
    assert explorer.back.disabled and explorer.restart.disabled
    explorer.walk([0, 1])
    explorer.back.click()
    assert explorer.path == [0]
    first = explorer.image.value
    explorer.restart.click()
    assert explorer.path == [] and explorer.image.value != first
    explorer.walk([0])
    explorer.prompt.value = "pan"
    assert explorer.path == [] and "pan" in explorer.state.value


def test_a_walk_ends_at_eos_and_at_the_limit(explorer, world):
    for text in ("good .", "good good good good"):
        explorer.walk(world.encode(text))
        assert all(button.disabled for button in explorer.words)
        assert "complete" in explorer.state.value and not explorer.back.disabled
    explorer.walk(world.encode("good . bad bad"))
    assert explorer.path == world.encode("good .")


def test_typing_walks_and_a_typo_is_explained(explorer, world):
    explorer.typed.value = "not bad ."
    assert explorer.path == world.encode("not bad .") and explorer.typed.value == ""
    for typed, message in (("great", "no word great"), ("not not not not good", "at most 4")):
        explorer.typed.value = typed
        assert message in explorer.state.value and explorer.path == world.encode("not bad .")


def test_sliders_redraw_with_the_exact_kl(world, table):
    plotting.use_style()
    lab = widgets.SamplerExplorer(table, world)
    before = lab.image.value
    assert "= <b>0.000 nats" in lab.state.value
    for temperature, k in ((0.5, 5), (0.5, 3), (2.0, 2)):
        lab.temperature.value, lab.top_k.value = temperature, k
        assert lab.image.value != before

        def q(ids, temperature=temperature, k=k):  # without the house's own sampler
            weights = (table(ids) / temperature).exp()
            smallest = weights.sort(dim=-1).values[..., 5 - k, None]
            return (weights * (weights >= smallest)).log()

        with torch.no_grad():
            expected = float(exact.kl(q, table, world, "praise"))
        assert expected > 0.1 and f"<b>{expected:.3f} nats" in lab.state.value
    lab.reset.click()
    assert "= <b>0.000 nats" in lab.state.value and lab.image.value == before
    for control in (lab.temperature, lab.top_k, lab.top_p):
        assert control.description


def test_unreachable_mass_is_the_models_own(world):
    policy = models.as_policy(models.word_transformer(world, seed=7))
    _, numbers = widgets.compare_sampler(policy, world, "praise", top_k=1)
    with torch.no_grad():
        logp = exact.completion_logprobs(policy, world, "praise")
        ids, greedy = [world.prompt_id("praise")], []
        while len(greedy) < 4 and 4 not in greedy:
            greedy.append(int(policy(torch.tensor([[*ids, *greedy]]))[0, -1].argmax()))
    index = exact.enumerate_completions(world).texts.index(world.decode(greedy))
    assert numbers["unreachable"] == pytest.approx(1 - float(logp[index].exp()))
    assert numbers["kl"] == pytest.approx(-float(logp[index]))  # log 1 − log p
    assert numbers["sampler_entropy"] == pytest.approx(0.0, abs=1e-9)


@pytest.fixture
def values_explorer(world, table):
    plotting.use_style()
    return widgets.ValueExplorer(table, world)


def test_the_value_explorer_shows_the_swept_numbers(values_explorer, world, table):
    values_explorer.walk(world.encode("not very"))
    row, pictures = 1, set()
    with torch.no_grad():
        found = values.policy_values(table, world, "praise")
    shown = {"V": found.value[3][4 * row : 4 * row + 4].tolist() + [0.0],
             "Q": found.q_value[2][row].tolist(),
             "A": found.advantage[2][row].tolist()}  # fmt: skip
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
        (explorer.gamma, 0.5), (explorer.writer, "uniform"), (explorer.writer, "the best one"),
        (explorer.payment, widgets.PAYMENTS[2]), (explorer.prompt, "pan"),
    ):  # fmt: skip
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
    before, after = (float(s.split("V(s) = <b>")[1].split("<")[0])
                     for s in (plain[0], values_explorer.state.value))  # fmt: skip
    assert before - after == pytest.approx(1.0, abs=2e-3)  # “good .” would earn 1


@pytest.fixture
def playground():
    plotting.use_style()
    return widgets.SimplexPlayground()


def test_the_playground_steps_along_the_exact_gradient(playground):
    # uniform, R = (−1, 1, 2): J = 2/3, ∇J = p (R − J) = (−5, 1, 4)/9, η = 1
    assert "J = <b>+0.667</b>" in playground.state.value
    playground.exact_step.click()
    weights = [math.exp(x / 9) for x in (-5, 1, 4)]
    expected = [w / sum(weights) for w in weights]
    assert playground._paths["exact"][-1] == pytest.approx(expected)
    value = -expected[0] + expected[1] + 2 * expected[2]
    assert f"J = <b>{value:+.3f}</b>" in playground.state.value
    playground.reset.click()
    assert "J = <b>+0.667</b>" in playground.state.value
    assert len(playground._paths["exact"]) == 1


def test_sampled_steps_are_their_own_path(playground):
    playground.sampled_step.click()
    playground.sampled_step.click()
    assert [len(playground._paths[name]) for name in ("exact", "sampled")] == [1, 3]
    first = [tuple(probs) for probs in playground._paths["sampled"]]
    playground.reset.click()
    playground.sampled_step.click()
    playground.sampled_step.click()
    assert [tuple(probs) for probs in playground._paths["sampled"]] == first, "seeded"


def test_a_constant_reward_moves_the_spread_and_not_the_gradient(playground):
    def numbers():
        return [float(part.split("</b>")[0]) for part in playground.state.value.split("<b>")[1:]]

    before = numbers()
    playground.shift.value = 10
    after = numbers()
    assert after[0] == pytest.approx(before[0] + 10) and after[1] == before[1]
    assert after[2] > 5 * before[2]
    playground.count.value = 64  # 16 → 64: half the spread
    assert numbers()[2] == pytest.approx(after[2] / 2, abs=2e-3)


def test_every_control_of_the_playground_redraws(playground):
    for control, value in (
        (playground.preset, "0, 0, +1: only one is paid"), (playground.rewards[0], 2.0),
        (playground.begin, "“superb” is rare (1 %)"), (playground.lr, 3.0),
        (playground.count, 4),
    ):  # fmt: skip
        before = playground.image.value
        control.value = value
        assert playground.image.value != before and control.description, control.description
    assert [slider.value for slider in playground.rewards] == [2.0, 0.0, 1.0]


def test_sampled_moves_scatter_around_the_exact_one():
    world = ascent.bandit({"a": -1.0, "b": 1.0, "c": 2.0})
    start = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    moves = widgets.simplex_moves(world, start, lr=0.7, count=4, seed=3)
    truth = moves.moments.truth
    assert moves.exact == pytest.approx((start + 0.7 * truth).softmax(-1).tolist())
    spread = (moves.gradients - truth).pow(2).sum(-1).mean()
    assert 0.3 < float(spread) / moves.moments.variance < 3  # 30 batches
    far = (moves.gradients.mean(0) - truth).norm()
    assert float(far) < 4 * (moves.moments.variance / 30) ** 0.5
