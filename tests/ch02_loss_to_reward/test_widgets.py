"""The widgets of chapter 02, driven as a reader would drive them."""

import math

import pytest
import torch

from course.ch02_loss_to_reward import widgets
from course.kit import style
from course.worlds import reviews, rewards


@pytest.fixture(autouse=True)
def course_style():
    style.use_style()


@pytest.fixture
def bench(generator):
    return {
        "sentiment": (reviews.sentiment_reward, "words"),
        "length": (rewards.length_reward, "words"),
        "<mine>": (lambda prompts, texts: [float("x" in t) for t in texts], "units"),
    }


@pytest.mark.parametrize(("data", "model"), [(0.4, 0.4), (0.4, 0.7), (0.05, 0.95), (0.0, 0.3)])
def test_numbers_of_the_mixture_agree_with_sampled_reviews(data, model, generator):
    _, numbers = widgets.mix_critics(data_share=data, model_share=model)
    truth, other = reviews.reviews_grammar(data), reviews.reviews_grammar(model)
    texts = truth.sample(400, generator)
    gaps = torch.tensor([truth.logprob(t) - other.logprob(t) for t in texts])
    assert abs(gaps.mean() - numbers["kl"]) <= 4 * gaps.std() / 20 + 1e-6
    assert numbers["entropy"] == pytest.approx(truth.entropy())
    assert numbers["cross_entropy"] == pytest.approx(numbers["entropy"] + numbers["kl"])
    assert numbers["data_sentiment"] == pytest.approx(truth.expected_score())
    assert numbers["model_sentiment"] == pytest.approx(other.expected_score())


def test_a_model_that_never_praises_is_refused():
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="strictly between"):
            widgets.mix_critics(data_share=0.4, model_share=share)


def test_imitating_meets_the_floor_and_pleasing_leaves_it():
    lab = widgets.CriticsExplorer()
    before = lab.image.value
    lab.imitate.click()
    assert lab.model_share.value == pytest.approx(0.4)
    assert "KL 0.000" in lab.state.value and lab.image.value != before
    lab.please.click()
    assert lab.model_share.value == pytest.approx(0.99)
    gap = 0.4 * math.log(0.4 / 0.99) + 0.6 * math.log(0.6 / 0.01)
    assert f"KL {gap:.3f}" in lab.state.value
    lab.data_share.value = 0.0
    lab.imitate.click()
    assert lab.model_share.value == pytest.approx(0.01)  # the slider's end, not an error


def test_the_bench_shows_every_reward_and_the_judge(bench, generator):
    honest = reviews.REVIEWS.sample(40, generator, prefix="the cast")
    lab = widgets.RewardBench(bench, "the cast", honest, "was good .")
    logp = reviews.REVIEWS.logprob("was good .", prefix="the cast")
    assert f"log p(x | c) is {logp:.1f} nats" in lab.state.value
    assert "sentiment <b>1</b>" in lab.state.value and "length <b>3</b>" in lab.state.value
    assert "&lt;mine&gt;" in lab.state.value  # a reader's name is no markup
    before = lab.image.value
    lab.typed.value = "good " * 5 + "x"
    assert "cannot write this" in lab.state.value and lab.image.value != before
    assert "sentiment <b>5</b>" in lab.state.value and "&lt;mine&gt; <b>1</b>" in lab.state.value
    lab.typed.value = ""
    assert "length <b>0</b>" in lab.state.value and "cannot write this" in lab.state.value


def test_static_twin_and_bench_are_one_figure(bench, generator):
    honest = reviews.REVIEWS.sample(40, generator, prefix="the cast")
    lab = widgets.RewardBench(bench, "the cast", honest, "was good .")
    figure, numbers = widgets.try_completion(bench, "the cast", honest, "was good .")
    assert style.png(figure) == lab.image.value
    assert numbers["sentiment"] == 1 and numbers["length"] == 3
