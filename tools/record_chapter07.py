"""Record the many-seed runs of chapter 07: `python tools/record_chapter07.py`.

`chapter07_bugs.csv`: four planted bugs and the right loop in the word world, with the exact J.
`chapter07_baselines.csv`: steps that each baseline needs on the reviews, as they are and + 10.
Names are numbers in the CSVs, and listed in the JSONs beside them. Read them with `runlog.load`.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from helpers import advantages, exact, models, rollout, runlog, settings, train, worlds
from helpers.widgets.recordings import BUGS, RUNS

SEEDS = 5

# ------------------------------------------------------------------------------ planted bugs

STEPS, GROUP_SIZE, LR, MODEL_SEED, HOT = 60, 16, 3e-3, 7, 2.0


def broken_run(bug: str, seed: int) -> Iterator[list[float]]:
    """Exact J, largest mismatch, nll − entropy and loss of each step; as in section 7.4."""
    world, size = worlds.WORD_WORLD, GROUP_SIZE
    transformer = models.word_transformer(world, seed=MODEL_SEED)
    lm = models.word_language_model(world, transformer)
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=LR, weight_decay=0.0)
    chance = torch.Generator().manual_seed(seed)
    asked = [prompt for prompt in world.prompts for _ in range(size)]
    for _ in range(STEPS):
        policy = models.as_policy(lm.model)
        with torch.no_grad():
            level = sum(float(exact.objective(policy, world, p)) for p in world.prompts) / 2
        batch = rollout.sample(
            lm.model, *lm.encode(list(world.prompts)), eos_ids=lm.eos_ids, max_new_tokens=4,
            generator=chance, group_size=size,
            temperature=HOT if bug == "temperature" else 1.0,
        )  # fmt: skip
        texts = lm.decode(batch.completion_ids, batch.lengths)
        paid = torch.tensor(world.reward(asked, texts), dtype=torch.float64)
        judged = advantages.leave_one_out(paid.view(-1, size)).view(-1)
        if bug == "other order":
            judged = judged[batch.lengths.argsort(stable=True)]
        logits = policy(torch.cat([batch.prompt_ids, batch.completion_ids], dim=1))
        logits = logits[:, 1:] if bug == "shifted" else logits[:, :-1]
        mask = batch.completion_mask
        if bug == "EOS not scored":
            mask = mask & (batch.completion_ids != lm.eos_ids[0])
        token_logprobs = logits.log_softmax(-1).gather(-1, batch.completion_ids[..., None])[..., 0]
        token_logprobs = token_logprobs * mask
        loss = -(judged * token_logprobs.sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scored = token_logprobs.detach()
        mismatch = ((scored - batch.old_logprobs) * mask).abs().max()
        excess = (-scored - batch.entropies).sum(1).mean()
        yield [level, float(mismatch), float(excess), float(loss.detach())]


def record_bugs(folder: Path) -> None:
    """Every bug on every seed."""
    about = runlog.provenance(
        bugs=BUGS, seeds=SEEDS, steps=STEPS, group_size=GROUP_SIZE, lr=LR, model_seed=MODEL_SEED,
        temperature=HOT,
    )  # fmt: skip
    started = time.perf_counter()
    rows: list[list[float]] = [
        [number, seed, step, *numbers]
        for number, bug in enumerate(BUGS) for seed in range(SEEDS)
        for step, numbers in enumerate(broken_run(bug, seed))
    ]  # fmt: skip
    columns = ("bug", "seed", "step", "objective", "mismatch", "excess", "loss")
    about["wall_seconds"] = round(time.perf_counter() - started, 1)
    runlog.save(folder / "chapter07_bugs.csv", columns, rows, about)


# --------------------------------------------------------------------------------- baselines

SHIFTS = (0.0, 10.0)  # added to every reward
THRESHOLD = 2.0  # words of praise less words of blame, mean of the last WINDOW steps
WINDOW = 5
MOST = 100  # steps; who has not crossed by then has not


def shifted(shift: float) -> Callable[[Any, Any], list[float]]:
    """Words of praise less words of blame, plus a constant."""
    return lambda prompts, texts: [r + shift for r in worlds.sentiment_reward(prompts, texts)]


def steps_needed(name: str, shift: float, seed: int) -> float:
    """Steps until the mean reward of the last five crosses the threshold; nan if not in time."""
    config = train.Config(
        steps=MOST, prompts_per_step=4, group_size=4, seed=seed, baseline=name,
        constant=worlds.REVIEWS.expected_score() + shift,  # E[R] of the start, exact
    )  # fmt: skip
    seen: list[float] = []
    lm = models.load(models.REVIEWS_MODEL)
    for record in train.train(lm, worlds.REVIEW_PROMPTS, shifted(shift), config):
        seen.append(record.reward - shift)
        if len(seen) >= WINDOW and sum(seen[-WINDOW:]) / WINDOW >= THRESHOLD:
            return len(seen)
    return math.nan


def record_baselines(folder: Path) -> None:
    """Every baseline on every seed, with both zeros of the reward scale."""
    about = runlog.provenance(
        baselines=settings.BASELINES, seeds=SEEDS, threshold=THRESHOLD, window=WINDOW, most=MOST,
        prompts_per_step=4, group_size=4, lr=train.Config().lr,
    )  # fmt: skip
    rows: list[list[float]] = []
    started = time.perf_counter()
    for number, name in enumerate(settings.BASELINES):
        for shift in SHIFTS:
            found = [steps_needed(name, shift, seed) for seed in range(SEEDS)]
            print(f"{name:20} + {shift:g}: {found}", flush=True)
            rows += [[number, shift, seed, steps] for seed, steps in enumerate(found)]
    columns = ("baseline", "shift", "seed", "steps")
    about["wall_seconds"] = round(time.perf_counter() - started, 1)
    runlog.save(folder / "chapter07_baselines.csv", columns, rows, about)


def main() -> None:
    """Record what is named on the command line, or both."""
    parts = {"bugs": record_bugs, "baselines": record_baselines}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(parts))
    parser.add_argument("--folder", type=Path, default=RUNS)
    options = parser.parse_args()
    for name in options.parts:
        parts[name](options.folder)


if __name__ == "__main__":
    main()
