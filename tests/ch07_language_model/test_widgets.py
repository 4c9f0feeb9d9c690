"""The reward laboratory: every control counts, refusals, errors, Stop, Reset, repeatable runs."""

import ast
import time

import pytest
import torch

from course.ch07_language_model import figures, widgets
from course.kit import style
from course.worlds import rewards
from course.worlds.reviews import REVIEW_PROMPTS, REVIEWS, completion_grammar, sentiment_reward
from helpers import models, settings, train
from helpers.settings import Config

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
SECONDS = 60  # far more than anything here takes, for a busy machine
SMALL = {"steps": 2, "group_size": 2, "max_new_tokens": 6}


def small(lab, **more):
    for name, value in {**SMALL, **more}.items():
        lab.controls[name].value = value
    return lab


def run(lab):
    lab.live.run.click()
    assert lab.live.wait(SECONDS)
    return lab.live.runs[-1] if lab.live.runs else None


@pytest.fixture
def lab(reviews):
    return small(widgets.LanguageModelLab(reviews))


def test_every_control_has_a_name_and_reaches_the_config(lab):
    names = ["reward", *widgets.PRESETS["praise, with KL"]]
    assert set(names) <= set(lab.controls)
    for name, value in {
        "baseline": "none",
        "kl_coef": 0.5,
        "temperature": 0.7,
        "max_new_tokens": 9,
        "group_size": 3,
        "lr": 1e-3,
        "steps": 7,
        "seed": 4,
    }.items():
        assert lab.controls[name].description
        assert getattr(lab.config(), name) != value
        lab.controls[name].value = value
        assert getattr(lab.config(), name) == pytest.approx(value), name
    assert [name for _, name in lab.controls["baseline"].options] == list(settings.BASELINES)


def test_the_controls_act_on_the_run(lab):
    def last():
        return list(lab.live.train(**lab.live.settings()))[-1]

    plain = last()
    for name, value in {
        "seed": 4,
        "temperature": 0.5,
        "max_new_tokens": 3,
        "group_size": 4,
        "lr": 1e-2,
        "baseline": "none",
        "kl_coef": 3.0,
        "reward": "length",
    }.items():
        control = lab.controls[name]
        before, control.value = control.value, value
        got = last()
        control.value = before
        assert any(got[k] != plain[k] for k in ("entropy", "length", "grad_norm")), name


def test_presets_set_the_controls(lab):
    for name, chosen in widgets.PRESETS.items():
        lab.preset.value = name
        assert lab.controls["reward"].value == chosen["reward"]
        assert lab.config() == widgets.laboratory_config(**chosen), name
        assert lab.preset.value == name
    lab.controls["seed"].value = 5
    assert lab.preset.value not in widgets.PRESETS, "a name over settings that are not its own"
    assert lab.config() == widgets.laboratory_config(**chosen, seed=5)


def test_what_cannot_work_is_refused_in_words(lab):
    for name, value, words in (
        ("group_size", 1, "take K ≥ 2"),
        ("seed", -1, "seed must be"),
        ("max_new_tokens", 0, "max_new_tokens must be"),
        ("max_new_tokens", 10_000, "10000"),
    ):
        small(lab, **{"seed": 0, name: value})
        assert run(lab) is None and not lab.live.running
        assert words in lab.live.message.value.replace(",", ""), lab.live.message.value


def test_the_readers_own_reward_comes_first_and_its_line_is_shown(reviews):
    def mine(prompts, completions):
        return sentiment_reward(prompts, completions[:-1])  # fails in a library

    lab = small(widgets.LanguageModelLab(reviews, rewards={"mine": mine}))
    assert lab.controls["reward"].value == "mine"
    broken = run(lab)
    assert broken.status == "failed" and broken.records == []
    assert "ValueError" in lab.live.message.value
    assert "<code>mine</code>" in lab.live.message.value, "the reader's line, not the library's"
    assert "completions[:-1]" in lab.live.message.value
    lab.controls["reward"].value = "praise"
    assert run(lab).status == "finished"


def test_a_mistake_in_a_comprehension_is_said_of_the_readers_function(reviews):
    def dear(prompts, completions):
        return [sum({"good": 1.0}[word] for word in text.split()) for text in completions]

    lab = small(widgets.LanguageModelLab(reviews, rewards={"dear": dear}))
    assert run(lab).status == "failed"
    assert "KeyError" in lab.live.message.value and "<code>dear</code>" in lab.live.message.value


def test_labels_tell_runs_apart_and_fit(lab):
    for seed in (0, 1):
        run(small(lab, seed=seed, kl_coef=0.5))
    assert widgets.labels(lab.live.runs) == [
        "1: praise, β = 0.5, seed 0",
        "2: praise, β = 0.5, seed 1",
    ]
    run(small(lab, baseline="running_mean", temperature=0.7, max_new_tokens=5, kl_coef=0.0))
    found = widgets.labels(lab.live.runs)
    assert found[2].startswith("3: praise, β = 0, running mean")
    assert max(map(len, found)) <= 36 and found[2].endswith("…")


def test_the_printed_line_repeats_the_run_exactly(lab, reviews):
    small(lab, kl_coef=0.3, temperature=0.8, seed=11, steps=3, lr=2e-3)
    records = run(lab).records
    [line] = lab.live.history.value.split("Config(")[1:]
    call = ast.parse("f(" + line.split(")")[0].replace("&#x27;", "'") + ")").body[0].value
    values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    again = list(
        train.train(
            models.load(models.REVIEWS_MODEL),
            REVIEW_PROMPTS,
            sentiment_reward,
            Config(**values),
            ref_policy=reviews,
        )
    )
    for old, new in zip(records, again, strict=True):
        for name in ("reward", "entropy", "kl", "length", "grad_norm"):
            assert old[name] == getattr(new, name), name
        assert all(text in new.completions for _, text, _ in old["samples"])


def test_every_run_starts_from_the_shipped_model_and_reset_forgets(lab):
    before = {k: v.clone() for k, v in lab.lm.model.state_dict().items()}
    small(lab, lr=1e-2, steps=3)
    first, second = run(lab), run(lab)
    assert first.records[-1]["kl"] > 0.01 and first.records[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert [r["reward"] for r in first.records] == [r["reward"] for r in second.records]
    for name, weight in lab.lm.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert "step 2" in lab.samples.value and "before, step 0" in lab.samples.value
    lab.live.reset.click()
    assert lab.live.runs == [] and lab.live.history.value == "" and lab.samples.value == ""


def test_stop_is_heard_and_a_new_laboratory_or_close_ends_a_run(lab):
    small(lab, steps=300, group_size=8, max_new_tokens=32)
    for end in (lambda: lab.live.halt.click(), lambda: widgets.LanguageModelLab(lab.lm), lab.close):
        lab.live.run.click()
        while not lab.live.runs[-1].records:
            time.sleep(0.01)
        asked = time.monotonic()
        end()
        assert lab.live.wait(SECONDS) and time.monotonic() - asked < 2.5
        assert lab.live.runs[-1].status == "stopped"


def test_exact_values_are_those_of_sampled_completions(generator):
    after = completion_grammar()
    texts = REVIEWS.sample(4000, generator, prefix="the film")
    rows = torch.tensor(
        [[len(t.split()) + 1.0, sentiment_reward([""], [t])[0], -after.logprob(t)] for t in texts]
    )
    wanted = widgets.exact_values()
    wanted = torch.tensor([wanted["length"], after.expected_score(), wanted["entropy"]])
    errors = (rows.mean(0) - wanted) / (rows.std(0) / len(rows) ** 0.5)
    assert errors.abs().max() < 4.5, errors
    whole = REVIEWS.logprob(f"the film {texts[0]}")
    start = REVIEWS.logprob(f"the film {texts[1]}") - after.logprob(texts[1])
    assert after.logprob(texts[0]) + start == pytest.approx(whole)


def test_share_of_reviews_counts_what_the_grammar_derives():
    texts = ["was good .", "was good", "good good .", "was not bad . what a treat ."]
    assert rewards.share_of_reviews(["the film"] * 4, texts) == 0.5


def test_rewards_of_the_laboratory_by_hand():
    texts = ["was good .", "wonderful not wonderful", ""]
    paid = {name: reward(["c"] * 3, texts) for name, reward in rewards.LM_REWARDS.items()}
    assert paid == {
        "praise": [1, 0, 0],
        "praise + 10": [11, 10, 10],
        "praise per word": [1 / 3, 0, 0],
        "length": [3, 3, 0],
        "times “wonderful”": [0, 2, 0],
    }


def test_a_model_of_another_world_has_no_exact_values(reviews):
    lab = small(widgets.LanguageModelLab(reviews, prompts=["i", "we"]))
    records = run(lab).records
    assert records[0]["reviews"] != records[0]["reviews"]  # nan
    assert {prompt for prompt, _, _ in records[0]["samples"]} <= {"i", "we"}


def test_a_picture_of_seven_runs_is_quick_and_shows_the_numbers():
    column = [float(x) for x in range(100)]
    runs = {f"run {k}": {name: column for name in figures.PANELS} for k in range(8)}
    times = []
    for _ in range(3):
        started = time.process_time()
        figure = figures.laboratory(runs, exact={"entropy": 150.0}, title="t")
        style.png(figure)
        times.append(time.process_time() - started)
    assert min(times) < 0.5  # 0.2 s on an idle machine
    heights = [list(line.get_ydata()) for line in figure.axes[2].lines]
    assert heights.count(column) == 7 and [150.0, 150.0] in heights
    names = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert names[0] == "run 1" and len(names) == 8
