"""Run by `accelerate launch` from test_train_processes.py: a few steps, and what came of them."""

import sys

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


if __name__ == "__main__":
    several = Accelerator(cpu=True)
    assert several.num_processes == 2, f"{several.num_processes} processes were started"
    for each in sys.argv[2:]:
        run(sys.argv[1], each, several)
