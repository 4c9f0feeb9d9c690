"""Widgets, driven as a reader would drive them, without a browser."""

import math

import pytest
import torch

from course.ch01_factorization import widgets
from course.exact import oracle
from course.kit import style
from course.worlds import tiny_models
from helpers import models


@pytest.fixture
def explorer(world, table):
    style.use_style()
    return widgets.TreeExplorer(table, world)


def test_clicking_words_walks_the_tree(explorer, world, table):
    pictures = {explorer.image.value}
    for word in ("not", "very", "good"):
        explorer.words[world.words.index(word)].click()
        pictures.add(explorer.image.value)
    assert explorer.path == world.encode("not very good") and len(pictures) == 4
    with torch.no_grad():
        levels = oracle.state_logprobs(table, world, "praise")
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
    style.use_style()
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
            expected = float(oracle.kl_divergence(q, table, world, "praise"))
        assert expected > 0.1 and f"<b>{expected:.3f} nats" in lab.state.value
    lab.reset.click()
    assert "= <b>0.000 nats" in lab.state.value and lab.image.value == before
    for control in (lab.temperature, lab.top_k, lab.top_p):
        assert control.description


def test_unreachable_mass_is_the_models_own(world):
    policy = models.as_policy(tiny_models.word_transformer(world, seed=7))
    _, numbers = widgets.compare_sampler(policy, world, "praise", top_k=1)
    with torch.no_grad():
        logp = oracle.completion_logprobs(policy, world, "praise")
        ids, greedy = [world.prompt_id("praise")], []
        while len(greedy) < 4 and 4 not in greedy:
            greedy.append(int(policy(torch.tensor([[*ids, *greedy]]))[0, -1].argmax()))
    index = oracle.enumerate_completions(world).texts.index(world.decode(greedy))
    assert numbers["unreachable"] == pytest.approx(1 - float(logp[index].exp()))
    assert numbers["kl"] == pytest.approx(-float(logp[index]))  # log 1 − log p
    assert numbers["sampler_entropy"] == pytest.approx(0.0, abs=1e-9)
