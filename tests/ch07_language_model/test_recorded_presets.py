"""The presets of the laboratory do what chapter 07 promises, on every recorded seed."""

import json

import pytest

from course.ch07_language_model import figures, recorded, widgets
from course.kit import style
from course.worlds import reviews, rewards
from helpers import checkpoints


@pytest.fixture(scope="module")
def ends():
    """Preset → column → its mean over the last five steps, one number a seed."""
    found = {}
    for path in recorded.RUNS.glob("chapter07_*.json"):
        about = json.loads(path.read_text(encoding="utf-8"))
        if about.get("preset") not in widgets.PRESETS:
            continue
        config = widgets.laboratory_config(**widgets.PRESETS[about["preset"]])
        decides = about["config"].keys() - (checkpoints.FREE_TO_CHANGE - {"steps"})
        assert len(decides) > 10
        assert all(about["config"][k] == getattr(config, k) for k in decides), path
        runs = recorded.runs(path.with_suffix(".csv")).values()
        assert len(runs) == about["seeds"] >= 5
        for run in runs:
            assert run["step"] == list(range(config.steps)), "a whole run"
        found[about["preset"]] = {
            name: [sum(run[name][-5:]) / 5 for run in runs] for name in next(iter(runs))
        }
    return found


def test_every_preset_was_recorded_and_all_is_small(ends):
    assert set(ends) == set(widgets.PRESETS)
    assert sum(path.stat().st_size for path in recorded.RUNS.glob("chapter07_*")) < 200_000


def test_praise_without_kl_is_words_of_praise_and_no_review(ends):
    end = ends["praise, no KL"]
    assert min(end["reward"]) > 20 and max(end["reviews"]) < 0.05 and min(end["kl"]) > 50


def test_with_kl_it_stays_a_review_that_praises_more(ends):
    end, start = ends["praise, with KL"], reviews.completion_grammar().expected_score()
    assert min(end["reviews"]) > 0.85 and min(end["reward"]) > start + 1.5
    assert max(end["kl"]) < 2


def test_paid_by_length_it_rambles_to_the_limit(ends):
    end = ends["length"]
    assert min(end["length"]) > 31 and max(end["finished"]) < 0.05


def test_the_loophole_pays_more_than_any_review_could(ends):
    end = ends["a loophole: praise per word"]  # the best review is “was good .”: 1 in 3 words
    assert min(end["reward"]) > 0.8 and max(end["reviews"]) < 0.2


def test_paid_for_one_word_with_large_steps_the_entropy_collapses(ends):
    end, start = ends["one word, large steps"], widgets.exact_values()["entropy"]
    assert max(end["entropy"]) < 0.6 * start and min(end["length"]) > 31
    assert min(ends["praise, no KL"]["entropy"]) > 4 * start, "there it rises"


def test_a_few_texts_of_each_preset_were_kept():
    for preset in widgets.PRESETS:
        texts = recorded.texts(preset)
        for when in ("before", "after"):
            prompts, completions, paid = zip(*texts[when], strict=True)
            reward = rewards.LM_REWARDS[widgets.PRESETS[preset]["reward"]]
            assert list(paid) == pytest.approx(reward(list(prompts), list(completions)))


def test_the_baseline_makes_the_difference_at_the_same_budget(ends):
    without, with_it = (ends[f"praise + 10, {b}"] for b in ("no baseline", "leave-one-out"))
    start = 10 + reviews.completion_grammar().expected_score()
    gains = [[paid - start for paid in end["reward"]] for end in (without, with_it)]
    assert min(gains[1]) > 3 * max(gains[0]) and min(gains[0]) > 0  # both learn


def test_a_recorded_run_is_drawn_as_a_live_one_is():
    style.use_style()
    runs = recorded.runs(recorded.file("praise, no KL"))
    figure = figures.laboratory(runs, exact=widgets.exact_values(), exact_label="the start")
    assert figure.axes[-1].get_legend().get_texts()[-1].get_text() == "the start"
    assert list(runs) == [f"seed {k}" for k in range(5)]
    assert list(figure.axes[0].lines[1].get_ydata()) == runs["seed 1"]["reward"]
