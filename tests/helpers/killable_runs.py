"""Small runs, for tests that start them in processes of their own and kill them."""

import dataclasses
import itertools
import multiprocessing
import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor

from helpers import checkpoints, models, runlog, train
from helpers.settings import Config

PROMPTS = ("the film", "i", "the cast was not very")
CONFIG = Config(
    steps=6, prompts_per_step=2, group_size=4, max_new_tokens=8, lr=1e-2, checkpoint_every=2, seed=3
)
CLOCKS = {"seconds", "tokens_per_second"}


def reward(prompts: list[str], completions: list[str]) -> list[float]:
    """Something that differs within most groups."""
    return [float(len(set(text.split())) + text.count("good")) for text in completions]


def config(**changes) -> Config:
    return dataclasses.replace(CONFIG, **changes)


def fresh() -> models.LanguageModel:
    return models.load(models.REVIEWS_MODEL)


def start(
    lm: models.LanguageModel | None = None,
    reward=reward,
    folder=None,
    ref=None,
    changed=(),
    **changes,
):
    """The iterator of a run."""
    return train.train(
        lm or fresh(),
        list(PROMPTS),
        reward,
        config(**changes),
        folder=folder,
        ref_policy=ref,
        changed=changed,
    )


def numbers(records) -> list[dict[str, float]]:
    """All that must not differ between two runs, and the texts."""
    return [
        {name: repr(value) for name, value in one.numbers().items() if name not in CLOCKS}
        | {"completions": one.completions, "rewards": one.rewards}
        for one in records
    ]


def weights(lm: models.LanguageModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in lm.model.named_parameters()}


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that are not bitwise the same."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def rows(path: Path) -> list[dict[str, str]]:
    """A run log without its clocks; as text, because nan is not nan."""
    return [{k: repr(v) for k, v in row.items() if k not in CLOCKS} for row in runlog.load(path)]


def newest(folder: Path) -> Path:
    return checkpoints._whole_names(folder)[-1]


def check_whole(folder, log, unkilled) -> None:
    """The log has every step once, and the last checkpoint the weights of the unkilled run."""
    _, wanted, final = unkilled
    assert [float(row["step"]) for row in rows(log)] == list(range(len(wanted)))
    assert rows(log) == wanted, "other numbers than those of the run that was not killed"
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 2 and names[1] == "step-000006", names
    assert not differ(weights(models.load(folder / "step-000006")), final)


# ------------------------------------------------------------------------ in a process of its own


def go(folder: str, log: str, place: str | None, count: int, changes: dict) -> None:
    """Train to the end; or be killed at the `count`-th visit of a place."""
    torch.set_num_threads(1)
    if place is not None:
        deadly(place, count)
    Path(folder).with_name("started").touch()
    for _ in runlog.record(start(folder=folder, **changes), log):
        pass


def deadly(place: str, count: int) -> None:
    """Patch one function such that its `count`-th call ends with kill -9."""
    owner, _, name = place.rpartition(".")
    target = {
        "checkpoints": checkpoints,
        "os": os,
        "runlog": runlog,
        "Path": Path,
        "loop": train.Loop,
        "shutil": checkpoints.shutil,
    }[owner.partition(":")[0]]
    original, calls = getattr(target, name), itertools.count(1)
    after = owner.endswith(":after")

    def patched(*args, **kwargs):
        visit = next(calls)
        if after:
            result = original(*args, **kwargs)
        if visit == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result if after else original(*args, **kwargs)

    setattr(target, name, patched)


def interrupted(folder: str, log: str, changes: dict) -> None:
    """Train; a Ctrl-C ends the run as it does in a shell, and leaves what was in memory."""
    torch.set_num_threads(1)
    lm = fresh()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    records = runlog.record(start(lm, folder=folder, **changes), log)
    try:
        Path(folder).with_name("started").touch()
        for _ in records:
            pass
        os._exit(0)  # not through the clean-up of multiprocessing, which Ctrl-C may break
    except KeyboardInterrupt:
        os._exit(77)


def processes():
    """Processes that start quickly: the libraries are imported once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.runlog", "torch._dynamo"])
    return context


def launch(target, *args, mark: Path | None = None):
    """Start a process, and wait until the run itself begins."""
    if mark is not None:
        mark.unlink(missing_ok=True)
    process = processes().Process(target=target, args=args)
    process.start()
    deadline = time.monotonic() + 120
    while mark is not None and not mark.exists() and process.is_alive():
        assert time.monotonic() < deadline, "the process does not start"
        time.sleep(0.002)
    return process
