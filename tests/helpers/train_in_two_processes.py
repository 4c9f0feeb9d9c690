"""Run by `accelerate launch` from test_train_processes.py: a few steps, and what came of them."""

import os
import signal
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from course.worlds import reviews
from helpers import models, train
from helpers.settings import Config
from tests.helpers import example_loops

PROMPTS = example_loops.PROMPTS


def run(folder: str, baseline: str, accelerator: Accelerator | None) -> None:
    torch.set_num_threads(1)
    lm = models.load(models.REVIEWS_MODEL, dtype=torch.float64)  # so that sums can be compared
    ref = models.load(models.REVIEWS_MODEL, dtype=torch.float64)
    with torch.no_grad():
        ref.model.transformer.ln_f.weight.mul_(1.1)
    config = Config(
        steps=4,
        prompts_per_step=4,
        group_size=4,
        max_new_tokens=12,
        baseline=baseline,
        kl_coef=0.1,
        checkpoint_every=2,
    )
    records = list(
        train.train(
            lm,
            PROMPTS,
            reviews.sentiment_reward,
            config,
            ref_policy=ref,
            folder=f"{folder}/{baseline}",
            accelerator=accelerator,
        )
    )
    skipped = ("seconds", "tokens_per_second")
    rows = [[v for k, v in r.numbers().items() if k not in skipped] for r in records]
    tensors = {k: v.clone() for k, v in lm.model.state_dict().items() if k != "lm_head.weight"}
    tensors["records"] = torch.tensor(rows, dtype=torch.float64)
    rank = accelerator.process_index if accelerator else 0
    tensors["written"] = torch.tensor(len(records[0].completions))
    save_file(tensors, f"{folder}/{baseline}-{rank}.safetensors")


def begin_apart(folder: str, what: str, accelerator: Accelerator) -> None:
    """The second process begins with something else; both must refuse, and say what."""
    second = accelerator.process_index == 1
    lm = models.load(models.REVIEWS_MODEL)
    if second and what == "weights":
        with torch.no_grad():
            lm.model.transformer.ln_f.bias[0] += 1e-6
    prompts = PROMPTS[::-1] if second and what == "prompts" else PROMPTS
    seed = 7 if second and what == "settings" else 0
    config = Config(
        steps=1, prompts_per_step=4, group_size=4, max_new_tokens=4, seed=seed, checkpoint_every=1
    )
    place = f"{folder}/{accelerator.process_index if what == 'step to begin with' else 0}"
    if what == "step to begin with" and not second:  # the folder is not shared, and one is ahead
        list(train.train(lm, prompts, reviews.sentiment_reward, config, folder=place))
    try:
        train.train(
            lm,
            prompts,
            reviews.sentiment_reward,
            config,
            folder=place,
            accelerator=accelerator,
        )
    except ValueError as error:
        Path(folder, f"refused-{what}-{accelerator.process_index}").write_text(
            str(error), encoding="utf-8"
        )


def die(folder: str, accelerator: Accelerator) -> None:
    """The second process is killed in its third step."""
    rewards = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of the launcher, which may be quicker

    def reward(prompts: list[str], completions: list[str]) -> list[float]:
        rewards.append(completions)
        if accelerator.process_index == 1 and len(rewards) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return reviews.sentiment_reward(prompts, completions)

    lm = models.load(models.REVIEWS_MODEL)
    config = Config(steps=6, prompts_per_step=4, group_size=4, max_new_tokens=4)
    list(train.train(lm, PROMPTS, reward, config, folder=folder, accelerator=accelerator))


if __name__ == "__main__":
    several = Accelerator(cpu=True)
    assert several.num_processes == 2, f"{several.num_processes} processes were started"
    if sys.argv[2] == "--die":
        die(sys.argv[1], several)
    elif sys.argv[2] == "--apart":
        for name in sys.argv[3:]:
            begin_apart(sys.argv[1], name, several)
    else:
        for each in sys.argv[2:]:
            run(sys.argv[1], each, several)
