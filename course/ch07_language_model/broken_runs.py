"""Five runs for an exercise of chapter 07: one as it should be, four with a bug, and what shows.

Each bug sits in another station of the loop, none of them raises, and each breaks one thing that
holds in every right run, whatever the seed.
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from course.worlds import tiny_models, word_world
from helpers import checkpoints, models, rollout, settings, train

WORLD = word_world.WORD_WORLD
STEPS, SEED = 15, 0
COLUMNS = ("reward", "entropy", "kl", "finished", "silent", "mismatch", "grad_norm")
Numbers = dict[str, list[float]]  # column → one number a step


class _OldWriter(train.Loop):
    """Texts are written by a copy of the weights that is never brought up to date."""

    writer: models.LanguageModel | None = None
    most_mismatch = math.inf  # the loop itself would notice, and stop

    def write(
        self, generator: torch.Generator
    ) -> tuple[list[str], rollout.RolloutBatch, list[str]]:
        own = self.lm
        self.lm = self.writer = self.writer or copy.deepcopy(own)
        try:
            return super().write(generator)
        finally:
            self.lm = own


class _OtherWeights(train.Loop):
    """The optimizer was made for the weights of a copy."""

    def uphill(self) -> float:
        loose = copy.deepcopy(self.lm.model)
        self.state.optimizer = checkpoints.State.fresh(loose, lr=self.config.lr, seed=0).optimizer
        return super().uphill()


class _PromptsInTurn(train.Loop):
    """[c₁, c₂, c₁, c₂, …] where [c₁, c₁, …, c₂, c₂, …] was written."""

    def judge(
        self, asked: list[str], batch: rollout.RolloutBatch, completions: list[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        size = self.config.group_size
        return super().judge(asked[::size] * size, batch, completions)


def _five_words(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """1 for a text of five words; the limit is four."""
    return [float(len(text.split()) >= 5) for _, text in word_world.zip_texts(prompts, completions)]


KINDS: dict[str, tuple[type[train.Loop], settings.Reward]] = {
    "nothing": (train.Loop, word_world.adjective_reward),
    "old writer": (_OldWriter, word_world.adjective_reward),
    "other weights": (_OtherWeights, word_world.adjective_reward),
    "prompts in turn": (_PromptsInTurn, word_world.adjective_reward),
    "all alike": (train.Loop, _five_words),
}
ORDER = {
    "A": "prompts in turn",
    "B": "all alike",
    "C": "old writer",
    "D": "nothing",
    "E": "other weights",
}


def one_run(kind: str, *, seed: int) -> Numbers:
    """The numbers of one run on the word world.

    Args:
        kind: one of `KINDS`.
        seed: of the weights, of prompts and tokens.
    """
    policy, start = (
        tiny_models.word_language_model(
            WORLD, tiny_models.word_transformer(WORLD, seed=seed, dtype=torch.float32)
        )
        for _ in range(2)
    )
    config = settings.Config(
        steps=STEPS, prompts_per_step=2, group_size=32, max_new_tokens=4, lr=3e-3, seed=seed
    )
    loop_class, reward = KINDS[kind]
    loop = loop_class(policy, list(WORLD.prompts), reward, config, start)
    records = [loop.step().numbers() for _ in range(STEPS)]
    return {name: [record[name] for record in records] for name in COLUMNS}


@cache
def five_runs() -> dict[str, Numbers]:
    """Letter → column → one number a step; seed 0, 15 steps, 2 prompts × 32 completions."""
    return {letter: one_run(kind, seed=SEED) for letter, kind in ORDER.items()}


# What a cause implies, and what to look at if a run does not have it. `run` is `Numbers`.
Test = tuple[Callable[[Numbers], bool], str]
_AGREE: Test = (
    lambda run: max(run["mismatch"]) < 1e-3,
    "`mismatch` is far above rounding in this run: who is scored is not who wrote.",
)
_MOVED: Test = (
    lambda run: run["kl"][-1] > 0.1,
    "`kl` is 0 in every step of this run: these weights never moved.",
)
_SLOPE: Test = (
    lambda run: max(run["grad_norm"]) > 0,
    "the gradient of this run is exactly 0, so that there is nothing to move by.",
)
EVIDENCE: dict[str, list[Test]] = {
    "nothing": [
        _AGREE,
        _SLOPE,
        _MOVED,
        (
            lambda run: run["reward"][-1] > 0.5,
            "`kl` and `finished` move, and yet the reward ends near 0: what it learns earns "
            "nothing.",
        ),
    ],
    "old writer": [
        _SLOPE,
        (
            lambda run: max(run["mismatch"]) > 0.5,
            "an old writer and the weights that are scored drift apart, and one column would show "
            "it: "
            "here it stays at rounding.",
        ),
    ],
    "other weights": [
        _AGREE,
        _SLOPE,
        (
            lambda run: max(map(abs, run["kl"])) < 1e-6,
            "`kl` grows in this run: the weights of the policy itself do move.",
        ),
    ],
    "prompts in turn": [
        _AGREE,
        _SLOPE,
        _MOVED,
        (
            lambda run: run["finished"][-1] > 0.8 and run["reward"][-1] < 0.5,
            "the reward ends high in this run: what it is paid for is what was asked.",
        ),
    ],
    "all alike": [
        (
            lambda run: min(run["silent"]) == 1,
            "with equal rewards every advantage is 0, and a column counts those: here it is not 1 "
            "in "
            "all steps.",
        )
    ],
}

# Bug → the columns that show it whatever the seed, and what is said about the others.
SHOWS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "old writer": (
        ("mismatch",),
        {
            "kl": "the weights that are scored move away from the reference in a right run as "
            "well.",
            "else": "writer and scorer drift apart; which column compares those two?",
        },
    ),
    "other weights": (
        ("kl",),
        {
            "grad_norm": "there is a gradient, as in a right run; it is the weights that do not "
            "move.",
            "mismatch": "the writer and the one who is scored are the same, and stand still.",
            "reward": "it stays where it was, up to the chance of the batch; one column stands "
            "still "
            "exactly.",
            "entropy": "it stays where it was, up to the chance of the batch; one column stands "
            "still "
            "exactly.",
            "else": "the weights never move; which column is exactly 0 as long as that is so?",
        },
    ),
    "prompts in turn": (
        ("reward",),
        {
            "finished": "it rises in a right run as well: to finish pays under both prompts.",
            "silent": "rewards within a group still differ, although by the wrong prompt.",
            "else": "texts are paid for another prompt than they were written to; which column "
            "does "
            "not rise then as it does in a right run?",
        },
    ),
    "all alike": (
        ("silent", "grad_norm"),
        {
            "reward": "a mean of 0 may also come from −1 and 1; which column says that they are "
            "equal?",
            "kl": "it stays at 0 without a gradient, and also when other weights are moved.",
            "else": "if all rewards are equal all advantages are 0; which column counts those?",
        },
    ),
}
