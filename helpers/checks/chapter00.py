"""Machine check and exercise checkers of chapter 00, the start page."""

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

import torch

from helpers import checks, worlds

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "ipywidgets", "jupyterlab")


def machine() -> None:
    """Print what this machine offers the course, and for what is missing how to get it."""
    print(f"python        {platform.python_version()}")
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            print(f'{name:13} MISSING: run `make lab`, or `pip install -c constraints.txt -e "."`')
        else:
            print(f"{name:13} {importlib.metadata.version(name).split('+')[0]}")
    if torch.cuda.is_available():
        device = f"CUDA: {torch.cuda.get_device_name()}"
    elif torch.backends.mps.is_available():
        device = "MPS (Apple); this page runs on the CPU all the same"
    else:
        device = "CPU, which is all that the course needs"
    print(f"device        {device}")
    print(f"threads       {torch.get_num_threads()} (set OMP_NUM_THREADS to change it)")
    print(f"model         {os.environ.get('COURSE_MODEL') or 'the shipped reviews model'}")


def _rewards_of(reward: Callable[..., Any], texts: Sequence[str], exercise: str) -> Any:
    values = reward(["the cast"] * len(texts), list(texts))
    if checks.is_stub(exercise, values):
        return None
    return checks.as_numbers(values, shape=(len(texts),), what="one reward for each completion")


def exercise_1(brevity: Callable[[list[str], list[str]], Any]) -> None:
    """`brevity(prompts, completions)` is minus the number of words of each completion.

    Args:
        brevity: the reader's reward function.
    Raises:
        AssertionError: with a diagnosis.
    """
    texts = ["was good .", "", "was not very wonderful but the plot was dull .", "seemed dull ."]
    got = _rewards_of(brevity, texts, "0.1")
    if got is None:
        return
    words = torch.tensor([float(len(text.split())) for text in texts]).double()
    characters = torch.tensor([float(len(text)) for text in texts]).double()
    by_space = torch.tensor([float(len(text.split(" "))) for text in texts]).double()
    checks.diagnose(
        got,
        -words,
        {
            "this rewards length: shorter should earn more, so mind the sign.": words,
            "that counts characters; split the text into words.": -characters,
            "the empty completion has no words: use text.split() without an argument.": -by_space,
        },
    )
    checks.passed("0.1", "one number for each completion, and nothing costs nothing.")


def exercise_2(best: Any) -> None:
    """The highest mean reward that any policy can reach under `brevity`.

    Args:
        best: the reader's number.
    Raises:
        AssertionError: with a diagnosis.
    """
    if checks.is_stub("0.2", best):
        return
    number = lambda value: torch.tensor(float(value), dtype=torch.float64)  # noqa: E731
    checks.diagnose(
        checks.as_numbers(best, shape=(), what="the answer"),
        number(0.0),
        {
            "“.” alone has one word. Is there nothing shorter?": number(-1.0),
            "no grammar binds the policy: what it may write is any sequence of tokens.": number(
                -3.0
            ),
            "that is even a shorter review than the grammar allows; go on.": number(-2.0),
        },
    )
    checks.passed(
        "0.2",
        "it may end before its first word: stopping is an action too. Whether the loop finds that "
        "is another matter, as it learns only from what it samples.",
    )


def exercise_3(blind_reward: Callable[[list[str], list[str]], Any]) -> None:
    """A reward that differs between prompts and teaches exactly nothing.

    Args:
        blind_reward: the reader's reward function.
    Raises:
        AssertionError: with a diagnosis.
    """
    generator = torch.Generator().manual_seed(3)
    names, group = worlds.REVIEW_PROMPTS[:4], 8
    texts = [t for name in names for t in worlds.REVIEWS.sample(group, generator, prefix=name)]
    prompts = [name for name in names for _ in range(group)]
    values = blind_reward(prompts, texts)
    if checks.is_stub("0.3", values):
        return
    rewards = checks.as_numbers(values, shape=(32,), what="one reward for each completion")
    rewards = rewards.view(4, group)
    others = (rewards.sum(1, keepdim=True) - rewards) / (group - 1)
    assert rewards.mean(1).std() > 1e-6, (
        "every prompt earns the same. A constant teaches nothing, but the exercise wants a reward "
        "that differs between prompts."
    )
    assert (rewards - others).abs().max() < 1e-5, (
        "completions of one prompt earn different rewards, so the better ones get a positive "
        "advantage: something is learned. What may the reward not look at?"
    )
    checks.passed("0.3", "every advantage is zero: only differences within a group teach.")


def exercise_4(closed: Callable[[list[str], list[str]], Any]) -> None:
    """A reward that still likes praise, and that repetition does not fool.

    Args:
        closed: the reader's reward function.
    Raises:
        AssertionError: with a diagnosis.
    """
    generator = torch.Generator().manual_seed(4)
    reviews = worlds.REVIEWS.sample(400, generator, prefix="the cast")
    polarity = worlds.sentiment_reward(reviews, reviews)
    praise = [text for text, p in zip(reviews, polarity, strict=True) if p >= 2][:20]
    pans = [text for text, p in zip(reviews, polarity, strict=True) if p <= -1][:20]
    pick = lambda: torch.randint(10, (32,), generator=generator).tolist()  # noqa: E731
    spam = ["wonderful " * 31 + "wonderful", "loved " * 24 + "."]
    spam += [" ".join(worlds.POSITIVE[i] for i in pick()) for _ in range(8)]
    got = _rewards_of(closed, [*praise, *pans, *spam], "0.4")
    if got is None:
        return
    good, poor, gamed = got[:20], got[20:40], got[40:]
    assert good.mean() > poor.mean() + 0.5, (
        f"praise earns {good.mean():.2f} on average and a pan {poor.mean():.2f}: the reward should "
        "still prefer praise."
    )
    worst = int(gamed.argmax())
    assert gamed.max() < good.min(), (
        f"“{spam[worst][:40]}…” earns {gamed.max():.2f}, and an honest praising review only "
        f"{good.min():.2f}: the loophole is still open."
    )
    checks.passed("0.4", "closed for these texts. A policy searches harder than a checker does.")
