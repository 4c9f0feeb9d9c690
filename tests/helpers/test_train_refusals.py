"""Reward functions that misbehave, gradients that overflow, settings that cannot work."""

import copy
import math

import numpy as np
import pytest
import torch

from course.worlds import tiny_models, word_world
from helpers import losses, train
from helpers.settings import Config
from tests.helpers import killable_runs


class MineError(Exception):
    """The reader's own."""


def failing(reward, at=2, **changes):
    """Two good steps, then one with this reward: the error, and whether weights moved in it."""
    lm, calls = killable_runs.fresh(), []

    def mixed(prompts, completions):
        calls.append(completions)
        return (reward if len(calls) > at else killable_runs.reward)(prompts, completions)

    iterator = killable_runs.start(lm, mixed, **changes)
    for _ in range(at):
        next(iterator)
    before = killable_runs.weights(lm)
    with pytest.raises(Exception) as caught:
        next(iterator)
    assert not killable_runs.differ(killable_runs.weights(lm), before), (
        "a failed step moved the weights"
    )
    assert list(iterator) == [], "the iterator has ended"
    return caught.value, calls[-1]


def raises(prompts, completions):
    raise MineError("no reward today")


def test_a_reward_that_raises_is_shown_as_it_is_with_the_step(tmp_path):
    error, _ = failing(raises, folder=tmp_path, checkpoint_every=100)
    assert type(error) is MineError and str(error) == "no reward today"
    assert any("step 2" in note and "before it" in note for note in error.__notes__)
    assert killable_runs.newest(tmp_path).name == "step-000002", "all whole steps are kept"
    with pytest.raises(ValueError, match="reward function.*changed="):  # repaired, so another
        killable_runs.start(folder=tmp_path, checkpoint_every=100)
    again = killable_runs.start(folder=tmp_path, checkpoint_every=100, changed=["reward function"])
    resumed = killable_runs.numbers(again)
    assert resumed == killable_runs.numbers(killable_runs.start())[2:], (
        "other numbers than without the failure"
    )


def numbers_but(value, row=5):
    return lambda prompts, completions: [
        value if i == row else float(i) for i in range(len(completions))
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_reward_that_is_not_finite_names_step_completion_and_prompt(value):
    error, completions = failing(numbers_but(value))
    message = str(error)
    assert type(error) is ValueError, message
    for words in (
        "step 2",
        "8 completions",
        f"{value} for completion 5",
        repr(completions[5])[:40],
    ):
        assert words in message, message
    assert any(repr(prompt) in message for prompt in killable_runs.PROMPTS), message


WRONG = {
    "nothing": (lambda p, c: None, "None"),
    "one number": (lambda p, c: 1.0, r"shape \(\)"),
    "too few": (lambda p, c: [1.0] * 7, r"shape \(7,\)"),
    "too many": (lambda p, c: [1.0] * 9, r"shape \(9,\)"),
    "none at all": (lambda p, c: [], r"shape \(0,\)"),
    "a column": (lambda p, c: torch.ones(len(c), 1), r"shape \(8, 1\)"),
    "a row": (lambda p, c: np.ones((1, len(c))), r"shape \(1, 8\)"),
    "strings": (lambda p, c: c, "returned"),
    "numbers as strings": (lambda p, c: ["1"] * len(c), "returned"),
    "a generator": (lambda p, c: (1.0 for _ in c), "generator"),
    "a dict": (lambda p, c: dict.fromkeys(range(8), 1.0), "returned"),
    "None in between": (numbers_but(None), "returned"),
    "ragged": (lambda p, c: [[1.0], [1.0, 2.0]] * 4, "returned"),
    "pairs": (lambda p, c: [(x, 1.0) for x in c], "returned"),
}


@pytest.mark.parametrize(("reward", "words"), WRONG.values(), ids=WRONG)
def test_what_is_not_one_number_a_completion_is_refused_in_words(reward, words):
    error, _ = failing(reward, at=1)
    assert type(error) is ValueError, repr(error)
    assert error.args[0].startswith(
        "step 1: the reward function must return one number for each of the 8 completions"
    ), error
    pytest.raises(ValueError, lambda: (_ for _ in ()).throw(error)).match(words)


def test_lists_tuples_arrays_and_tensors_are_the_same_reward():
    kinds = (
        list,
        tuple,
        np.array,
        torch.tensor,
        lambda x: np.array(x, dtype=np.float32),
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: [int(v) for v in x],
        lambda x: [np.float64(v) for v in x],
    )
    found = [
        killable_runs.numbers(
            killable_runs.start(reward=lambda p, c, k=kind: k(killable_runs.reward(p, c)), steps=2)
        )
        for kind in kinds
    ]
    assert all(one == found[0] for one in found)


def test_a_reward_may_change_the_lists_it_got_and_print(capsys):
    def careless(prompts, completions):
        paid = killable_runs.reward(prompts, completions)
        print("judged", len(paid))
        prompts.clear()
        completions[:] = ["mine"] * 3
        return paid

    assert killable_runs.numbers(killable_runs.start(reward=careless)) == killable_runs.numbers(
        killable_runs.start()
    )
    assert capsys.readouterr().out == "judged 8\n" * 6


@pytest.mark.parametrize("size", [1e300, -1e39])
def test_a_reward_that_the_models_numbers_cannot_hold_is_named(size):
    error, completions = failing(numbers_but(size))
    assert type(error) is ValueError and str(error).startswith("step 2: "), error
    for words in (f"{size} for completion 5", "not finite in float32", repr(completions[5])[:40]):
        assert words in str(error), error


@pytest.mark.parametrize("size", [1e37, 1e30])
@pytest.mark.parametrize("baseline", ["leave_one_out", "running_mean"])
def test_a_reward_that_is_too_large_is_named_by_step_and_tensor(size, baseline):
    error, _ = failing(numbers_but(size), baseline=baseline)
    message = str(error)
    assert type(error) is ValueError, message
    assert message.startswith("step 2: the gradient is "), message
    assert "not finite in 28 of" in message or "too long for float32 (in transformer." in message
    assert "size of the rewards" in message, message


def test_a_loss_that_is_not_finite_is_named_and_the_run_can_go_on(monkeypatch, tmp_path):
    original, lm = losses.reinforce_loss, killable_runs.fresh()
    list(killable_runs.start(lm, steps=2, folder=tmp_path))
    before = killable_runs.weights(lm)
    with monkeypatch.context() as patch:
        patch.setattr(losses, "reinforce_loss", lambda *args: original(*args) * math.nan)
        with pytest.raises(ValueError, match=r"step 2: .*not finite in 28 of 28.*transformer"):
            list(killable_runs.start(lm, folder=tmp_path))
    assert not killable_runs.differ(killable_runs.weights(lm), before)
    assert (
        killable_runs.numbers(killable_runs.start(lm, folder=tmp_path))
        == killable_runs.numbers(killable_runs.start())[2:]
    )


def test_nobody_needs_a_folder_and_the_models_other_settings_stay():
    lm = killable_runs.fresh()
    lm.model.train()
    state = torch.random.get_rng_state()
    assert len(list(killable_runs.start(lm, steps=1))) == 1
    assert not lm.model.training, "no dropout while it learns"
    assert torch.equal(torch.random.get_rng_state(), state), "the global chance was used"


def test_every_step_draws_other_numbers():
    records = list(killable_runs.start(lr=1e-12, steps=3, prompts_per_step=3))
    assert len({tuple(one.completions) for one in records}) == 3
    others = list(killable_runs.start(lr=1e-12, steps=3, prompts_per_step=3, seed=4))
    assert not any(a.completions == b.completions for a, b in zip(records, others, strict=True))


# ------------------------------------------------------------------------------------ settings

REFUSED = [
    ({"steps": -1}, "steps must be ≥ 0, not -1"),
    ({"steps": 1.5}, "steps must be of type int, not 1.5"),
    ({"steps": True}, "steps must be of type int, not True"),
    ({"prompts_per_step": 0}, "prompts_per_step must have P ≥ 1, not 0"),
    ({"prompts_per_step": 2.0}, "prompts_per_step .* not 2.0"),
    ({"group_size": 0}, "group_size must have K ≥ 1, not 0"),
    ({"group_size": 1}, "leaves nobody to compare with: take K ≥ 2"),
    ({"group_size": 1, "baseline": "group_z_score"}, "has no standard deviation"),
    ({"group_size": 1, "baseline": "group_mean"}, "compares a text with itself"),
    ({"max_new_tokens": 0}, "max_new_tokens must be ≥ 1, not 0"),
    ({"max_new_tokens": 95}, "context of 96.*lower max_new_tokens to 90"),
    ({"temperature": 0.0}, "temperature must be > 0, not 0.0"),
    ({"temperature": math.nan}, "temperature must be"),
    ({"temperature": math.inf}, "temperature must be"),
    ({"temperature": "1"}, "temperature must be of type float, not '1'"),
    ({"baseline": "mean"}, r"no baseline 'mean'; there are \['none', 'constant'"),
    ({"baseline": None}, "baseline must be of type str, not None"),
    ({"constant": math.inf}, "constant must be finite"),
    ({"gae_lambda": 1.1}, "gae_lambda must be ≤ 1, not 1.1"),
    ({"compact_below": -0.1}, "compact_below must be ≥ 0, not -0.1"),
    ({"kl_coef": 0.1}, "kl_coef is 0.1, but there is no ref_policy"),
    ({"kl_coef": -0.1}, "kl_coef must be ≥ 0, not -0.1"),
    ({"lr": 0.0}, "lr must be > 0"),
    ({"lr": math.inf}, "lr must be"),
    ({"max_grad_norm": 0}, "max_grad_norm must be > 0, not 0"),
    ({"max_grad_norm": math.nan}, "max_grad_norm must be"),
    ({"checkpoint_every": 0}, "checkpoint_every must be ≥ 1, not 0"),
    ({"tokens_per_micro_batch": 0}, "tokens_per_micro_batch must be ≥ 1, not 0"),
    ({"seed": "0"}, "seed must be of type int, not '0'"),
    ({"seed": -1}, "seed must be ≥ 0, not -1"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=lambda value: str(value)[:40])
def test_settings_that_cannot_work_are_refused_at_once_in_words(reviews, changes, words):
    with pytest.raises(ValueError, match=words):
        killable_runs.start(reviews, **changes)


def test_every_setting_but_the_switches_has_a_case_that_is_refused():
    tried = {name for changes, _ in REFUSED for name in changes}
    switches = {
        "share_prompts",
        "skip_zero_advantages",
        "graph_decode",
        "keep_special_tokens",
        "onednn",
    }
    assert tried | switches == set(vars(Config()))


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ([], "at least one string"),
        ("the film", "prompts must be of type .*, not 'the film'"),
        ([1, 2], "prompts must be of type"),
        (["the film", None], "prompts must be of type"),
        (["the film", "quarks decay"], "'quarks decay' has words that this tokenizer does not"),
        (["the film " * 60], "has 121 tokens; this model's context holds 96"),
        (["the film " * 46], "93 prompt tokens and up to 8 new ones do not fit"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_prompts_that_cannot_work_are_refused_at_once_in_words(reviews, prompts, words):
    with pytest.raises(ValueError, match=words):
        train.train(reviews, prompts, killable_runs.reward, killable_runs.CONFIG)


def test_a_reward_that_is_no_function_is_refused_at_once(reviews):
    with pytest.raises(ValueError, match="reward must be of type Callable"):
        train.train(reviews, list(killable_runs.PROMPTS), [1.0, 2.0], killable_runs.CONFIG)


def test_a_reference_of_another_vocabulary_or_the_policy_itself_is_refused(reviews):
    words = tiny_models.word_language_model(
        word_world.WORD_WORLD, tiny_models.word_transformer(word_world.WORD_WORLD, seed=0)
    )
    with pytest.raises(ValueError, match=r"another vocabulary \(7 tokens; the policy has"):
        killable_runs.start(reviews, ref=words, kl_coef=0.1)
    with pytest.raises(ValueError, match="policy itself and would move with it"):
        killable_runs.start(reviews, ref=reviews, kl_coef=0.1)
    assert (
        len(list(killable_runs.start(copy.deepcopy(reviews), ref=reviews, kl_coef=0.1, steps=1)))
        == 1
    )


def test_the_least_that_works():
    config = {
        "prompts_per_step": 1,
        "group_size": 1,
        "max_new_tokens": 1,
        "baseline": "none",
        "tokens_per_micro_batch": 1,
        "checkpoint_every": 1,
        "max_grad_norm": math.inf,
        "steps": 1,
        "gae_lambda": 0,
        "lr": 1,
    }
    [record] = killable_runs.start(**config)
    assert record.length == 1.0
    assert list(killable_runs.start(steps=0)) == []
    assert len(next(killable_runs.start(prompts_per_step=7, steps=1)).prompts) == 28, (
        "prompts come again"
    )
