"""What makes a run this run: what goes on from its folder is the same, or is refused."""

import copy
import functools
import json

import pytest
import torch

from helpers import identity, models, train
from tests.helpers import killable_runs


def longer(prompts, completions):
    return [float(len(text)) for text in completions]


def shorter(prompts, completions):
    return [-float(len(text)) for text in completions]


def rewards_word(word):
    def reward(prompts, completions):
        return [float(text.count(word)) for text in completions]

    return reward


class Judge:
    """A reward that is an object, and counts its calls."""

    def __init__(self, word):
        self.word, self.calls = word, 0

    def __call__(self, prompts, completions):
        self.calls += 1
        return [float(text.count(self.word)) for text in completions]


def weighed(prompts, completions, weight=1.0):
    return [weight * len(text) for text in completions]


DIFFERENT = {
    "functions": (longer, shorter),
    "closures": (rewards_word("good"), rewards_word("bad")),
    "objects": (Judge("good"), Judge("bad")),
    "parts": (functools.partial(weighed, weight=1.0), functools.partial(weighed, weight=2.0)),
    # fmt: off
    "lambdas in one line": (
        lambda p, c: [1.0 * len(t) for t in c],
        lambda p, c: [2.0 * len(t) for t in c],
    ),  # noqa: E501
    # fmt: on
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_rewards_are_told_apart(kind):
    one, other = DIFFERENT[kind]
    assert identity.of_function(one) == identity.of_function(copy.copy(one))
    assert identity.of_function(one) != identity.of_function(other)


def test_a_reward_that_counts_its_calls_stays_the_same():
    judge = Judge("good")
    before = identity.of_function(judge)
    judge(["a"], ["good"])
    assert identity.of_function(judge) == before


def test_comments_and_layout_of_a_reward_do_not_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for name, body in {
        "one": "def f(p, c):\n    return [1.0 for _ in c]\n",
        "two": "def f(p, c):\n    # a comment\n    return [\n        1.0 for _ in c\n    ]\n",
        "three": "def f(p, c):\n    return [2.0 for _ in c]\n",
    }.items():
        (tmp_path / f"reward_{name}.py").write_text(body)
        found.append(identity.of_function(__import__(f"reward_{name}").f))
    assert found[0] == found[1] != found[2]


# ------------------------------------------------------------------------------------- resumed


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a run of two steps beside a reference."""
    folder = tmp_path_factory.mktemp("begun")
    list(killable_runs.start(steps=2, folder=folder, ref=killable_runs.fresh(), kl_coef=0.1))
    return folder


def other_reference():
    ref = killable_runs.fresh()
    with torch.no_grad():
        ref.model.transformer.ln_f.bias[0] += 1e-3
    return ref


def other_end():
    lm = killable_runs.fresh()
    return models.LanguageModel(lm.model, lm.tokenizer, (*lm.eos_ids, 5), lm.context_length)


def fewer_trained():
    lm = killable_runs.fresh()
    lm.model.transformer.wpe.weight.requires_grad_(False)
    return lm


OTHERS = {
    "reward function": {"reward": longer},
    "reference policy": {"ref": other_reference},
    "end tokens": {"lm": other_end},
    "set of trainable weights": {"lm": fewer_trained},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_is_refused_and_nothing_is_changed(what, begun):
    given = {k: v() if v is not longer else v for k, v in OTHERS[what].items()}
    lm = given.setdefault("lm", killable_runs.fresh())
    before = killable_runs.weights(lm)
    with pytest.raises(ValueError, match=f"not the same {what}"):
        killable_runs.start(
            steps=3, folder=begun, kl_coef=0.1, **{"ref": killable_runs.fresh()} | given
        )
    assert not killable_runs.differ(killable_runs.weights(lm), before)
    assert not (begun / identity.LOCK).exists(), "a run that was refused holds no folder"


def test_other_prompts_are_another_run(begun):
    prompts = [*killable_runs.PROMPTS[:-1], "the plot"]
    config = killable_runs.config(steps=3, kl_coef=0.1)
    with pytest.raises(ValueError, match="not the same prompts"):
        train.train(
            killable_runs.fresh(),
            prompts,
            killable_runs.reward,
            config,
            ref_policy=killable_runs.fresh(),
            folder=begun,
        )


def test_what_may_differ_has_a_name():
    with pytest.raises(ValueError, match="may name some of .*reward function"):
        killable_runs.start(changed=["reward"], folder="anywhere")


def test_the_digest_of_weights_sees_every_bit_name_and_shape():
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(4)}
    known = identity.of_weights(weights.items())
    for changed in (
        {"a": torch.zeros(3, 2), "b": torch.ones(4)},
        {"a": torch.zeros(2, 3), "c": torch.ones(4)},
        {"a": torch.zeros(2, 3).double(), "b": torch.ones(4)},
        {"a": -torch.zeros(2, 3), "b": torch.ones(4)},
        {"b": torch.ones(4)},
    ):
        assert identity.of_weights(changed.items()) != known
    assert identity.of_weights(reversed(weights.items())) == known
    half = {"a": torch.ones(3).bfloat16(), "n": torch.tensor(True)}
    assert identity.of_weights(half.items()) == identity.of_weights(half.items())


# ------------------------------------------------------------------------------------- the lock


def test_two_runs_in_one_folder(tmp_path):
    first = killable_runs.start(folder=tmp_path, steps=4)
    next(first)
    with pytest.raises(ValueError, match="in use by another run.*this process"):
        killable_runs.start(folder=tmp_path, steps=4)
    first.close()
    assert [record.step for record in killable_runs.start(folder=tmp_path, steps=4)] == [1, 2, 3]
    assert not list(tmp_path.glob(".lock*"))


def test_a_run_that_nobody_keeps_gives_its_folder_back(tmp_path):
    killable_runs.start(folder=tmp_path, steps=4)  # never asked for a record
    assert len(list(killable_runs.start(folder=tmp_path, steps=1))) == 1


def test_the_name_of_the_holder_may_be_missing(tmp_path):
    lock = identity.Lock(tmp_path)
    for text in ("", "[]", json.dumps({"pid": 1})):
        (tmp_path / identity.HOLDER).write_text(text)
        with pytest.raises(ValueError, match="could not be read"):
            identity.Lock(tmp_path)
    lock.release()
    lock.release()
    identity.Lock(tmp_path).release()


def test_a_file_system_without_locks_blocks_no_run(tmp_path, monkeypatch):
    def without(*_, **__):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(identity.filelock.FileLock, "acquire", without)
    assert len(list(killable_runs.start(folder=tmp_path, steps=1))) == 1
