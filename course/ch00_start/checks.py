"""Machine check and exercise checkers of chapter 00, the start page."""

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

import torch

from course.kit import checker
from course.worlds import reviews
from course.worlds.reviews import LIKED, POSITIVE, PRAISE_NOUNS, REVIEW_PROMPTS, REVIEWS

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
    print(f"cores         {os.cpu_count()}")
    print(f"threads       {torch.get_num_threads()} (set OMP_NUM_THREADS to change it)")
    print(f"model         {os.environ.get('COURSE_MODEL') or 'the shipped reviews model'}")


def _rewards_of(reward: Callable[..., Any], texts: Sequence[str], exercise: str) -> Any:
    values = reward(["the cast"] * len(texts), list(texts))
    if checker.is_stub(exercise, values):
        return None
    return checker.as_numbers(values, shape=(len(texts),), what="one reward for each completion")


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
    no_dots = torch.tensor([float(len(text.replace(".", "").split())) for text in texts]).double()
    by_space = torch.tensor([float(len(text.split(" "))) for text in texts]).double()
    checker.diagnose(
        got,
        -words,
        {
            "this rewards length: shorter should earn more, so mind the sign.": words,
            "“.” is a word too: count it.": -no_dots,
            "that counts characters; split the text into words.": -characters,
            "the empty completion has no words: use text.split() without an argument.": -by_space,
        },
    )
    checker.passed("0.1", "one number for each completion, and nothing costs nothing.")


def exercise_2(best: Any) -> None:
    """The highest mean reward that any policy can reach under `brevity`.

    Args:
        best: the reader's number.
    Raises:
        AssertionError: with a diagnosis.
    """
    if checker.is_stub("0.2", best):
        return
    checker.diagnose(
        checker.as_numbers(best, shape=(), what="the answer"),
        0.0,
        {
            "“.” alone has one word. Is there nothing shorter?": -1.0,
            "no grammar binds the policy: what it may write is any sequence of tokens.": -3.0,
            "shorter than any review, but go on: is anything shorter still?": -2.0,
        },
    )
    checker.passed(
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
    names, group = REVIEW_PROMPTS[:8], 16
    odd = ["", "wonderful " * 32, "treat treat treat", "loved gem . gem", "the", "."]
    odd += REVIEWS.words + [f"was {word} {word} ." for word in REVIEWS.words]
    prompts, texts, size = [], [], 10 + len(odd)
    for name in names:
        texts += [*REVIEWS.sample(10, generator, prefix=name), *map(str.strip, odd)]
        prompts += [name] * size
    values = blind_reward(prompts, texts)
    if checker.is_stub("0.3", values):
        return
    # As one batch, and again with the rows of each prompt elsewhere: a reward sees no positions.
    order = torch.randperm(8 * size, generator=generator)
    shuffled = blind_reward([prompts[i] for i in order], [texts[i] for i in order])
    rewards = checker.as_numbers(values, shape=(8 * size,), what="one reward a completion")
    moved = checker.as_numbers(shuffled, shape=(8 * size,), what="one reward a completion")
    assert torch.equal(moved, rewards[order]), (
        "a completion's reward changed with its place in the list: look at the prompt itself."
    )
    table = rewards.view(8, size)
    rewards = table[:, :group].float()  # as the loop compares them
    advantages = rewards - (rewards.sum(1, keepdim=True) - rewards) / (group - 1)
    worst = float(advantages.abs().max())
    assert rewards.mean(1).std() > 1e-6, (
        "every prompt earns the same. A constant teaches nothing, but the exercise wants a reward "
        "that differs between prompts."
    )
    assert torch.equal(table, table[:, :1].expand_as(table)), (
        "completions of one prompt earn different rewards, so the better ones get a positive "
        "advantage: something is learned, however small the difference. What may the reward not "
        "look at?"
    )
    assert worst == 0, (
        f"almost: rounding leaves advantages of {worst:.0e}, and Adam divides a gradient by its "
        "size, however small. Use values that add up exactly, such as whole numbers."
    )
    checker.passed("0.3", "every advantage is exactly zero: only differences within a group teach.")


def exercise_4(closed: Callable[[list[str], list[str]], Any]) -> None:
    """A reward that still likes praise, and that repetition does not fool.

    Args:
        closed: the reader's reward function.
    Raises:
        AssertionError: with a diagnosis.
    """
    generator = torch.Generator().manual_seed(4)
    drawn = REVIEWS.sample(600, generator, prefix="the cast")
    polarity = reviews.sentiment_reward(drawn, drawn)
    pairs = list(zip(drawn, polarity, strict=True))
    praise = [text for text, p in pairs if p >= 2][:20] + [text for text, p in pairs if p == 1][:20]
    pans = [text for text, p in pairs if p <= -1][:20]
    spam = _spam(generator)
    got = _rewards_of(closed, [*praise, *pans, *spam], "0.4")
    if got is None:
        return
    good, poor, gamed = got[:40], got[40:60], got[60:]
    assert good.mean() > poor.mean(), (
        f"praise earns {good.mean():.2f} on average and a pan {poor.mean():.2f}: the reward should "
        "still prefer praise."
    )
    worst, least = int(gamed.argmax()), int(good.argmin())
    assert gamed.max() < good.min(), (
        f"“{spam[worst][:40]}…” earns {gamed.max():.2f}, and the honest “{praise[least]}” only "
        f"{good.min():.2f}: the loophole is still open."
    )
    checker.passed("0.4", "closed for these texts. A policy searches harder than a checker does.")


def _spam(generator: torch.Generator) -> list[str]:
    """Praise that is no review: short and long, decorated, and diluted until it is sparse."""
    words = [*POSITIVE, *LIKED, *PRAISE_NOUNS]
    spam = ["wonderful " * 32, "loved " * 24 + ".", "gem treat treat treat", "treat gem triumph"]
    spam += ["was wonderful lovely lovely .", "was good the good the good ."]
    for length in (3, 4, 6, 12, 20, 32):
        for decoration in ("", "the", ".", "was", "and"):
            picks = torch.randint(len(words), (length,), generator=generator).tolist()
            spam.append(f" {decoration} ".join(words[i] for i in picks))
    for word in words:
        spam += [f"{word} the the", f"was {word} the the .", f"the {word} was .", f"{word} ."]
        spam += [f"was {word} and the plot was .", f"{word} the the the {word} the the the"]
    texts = [" ".join(text.split()) for text in spam]
    assert not any(REVIEWS.derivations(f"the cast {text}") for text in texts)
    return texts
