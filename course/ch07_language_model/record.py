"""Record the many-seed runs of chapter 07: `python -m course.ch07_language_model.record [part …]`.

Part `bugs`: four planted bugs and the right loop in the word world, with the exact J.
Part `baselines`: steps that each baseline needs on the reviews, as they are and + 10.
Every other part is a preset of the laboratory: all its seeds, one below the other.
Each writes a CSV into `runs/`, and beside it a JSON with settings, versions and what the numbers
in the CSV's columns stand for. Read the CSVs with `runlog.load`.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from course.ch07_language_model import recorded, widgets
from course.ch07_language_model.recorded import BUGS, RUNS
from course.exact import oracle
from course.worlds import reviews, rewards, tiny_models, word_world
from helpers import advantages, models, rollout, runlog, settings, train

SEEDS = 5

# ------------------------------------------------------------------------------ planted bugs

STEPS, GROUP_SIZE, LR, MODEL_SEED, HOT = 60, 16, 3e-3, 7, 2.0


def broken_run(bug: str, seed: int) -> Iterator[list[float]]:
    """Exact J, largest mismatch, nll − entropy and loss of each step; as in section 7.4."""
    world, size = word_world.WORD_WORLD, GROUP_SIZE
    transformer = tiny_models.word_transformer(world, seed=MODEL_SEED)
    lm = tiny_models.word_language_model(world, transformer)
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=LR, weight_decay=0.0)
    chance = torch.Generator().manual_seed(seed)
    asked = [prompt for prompt in world.prompts for _ in range(size)]
    for _ in range(STEPS):
        policy = models.as_policy(lm.model)
        with torch.no_grad():
            level = sum(float(oracle.objective(policy, world, p)) for p in world.prompts) / 2
        batch = rollout.sample(
            lm.model,
            *lm.encode(list(world.prompts)),
            rollout.SamplingSettings(
                lm.eos_ids, 4, group_size=size, temperature=HOT if bug == "temperature" else 1.0
            ),
            generator=chance,
        )
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
        bugs=BUGS,
        seeds=SEEDS,
        steps=STEPS,
        group_size=GROUP_SIZE,
        lr=LR,
        model_seed=MODEL_SEED,
        temperature=HOT,
    )
    started = time.perf_counter()
    rows: list[list[float]] = [
        [number, seed, step, *numbers]
        for number, bug in enumerate(BUGS)
        for seed in range(SEEDS)
        for step, numbers in enumerate(broken_run(bug, seed))
    ]
    columns = ("bug", "seed", "step", "objective", "mismatch", "excess", "loss")
    about["wall_seconds"] = round(time.perf_counter() - started, 1)
    runlog.save(folder / "chapter07_bugs.csv", columns, rows, about)


# --------------------------------------------------------------------------------- baselines

SHIFTS = (0.0, 10.0)  # added to every reward
THRESHOLD = 2.0  # words of praise minus words of blame, mean of the last WINDOW steps
WINDOW = 5
MOST = 100  # steps; who has not crossed by then has not


def shifted(shift: float) -> Callable[[Any, Any], list[float]]:
    """Words of praise minus words of blame, plus a constant."""
    return lambda prompts, texts: [r + shift for r in reviews.sentiment_reward(prompts, texts)]


def steps_needed(name: str, shift: float, seed: int) -> float:
    """Steps until the mean reward of the last five crosses the threshold; nan if not in time."""
    config = settings.Config(
        steps=MOST,
        prompts_per_step=4,
        group_size=4,
        seed=seed,
        baseline=name,
        constant=reviews.REVIEWS.expected_score() + shift,  # E[R] of the start, exact
    )
    seen: list[float] = []
    lm = models.load(models.REVIEWS_MODEL)
    for record in train.train(lm, reviews.REVIEW_PROMPTS, shifted(shift), config):
        seen.append(record.reward - shift)
        if len(seen) >= WINDOW and sum(seen[-WINDOW:]) / WINDOW >= THRESHOLD:
            return len(seen)
    return math.nan


def record_baselines(folder: Path) -> None:
    """Every baseline on every seed, with both zeros of the reward scale."""
    about = runlog.provenance(
        baselines=[baseline.label for baseline in settings.BASELINES.values()],
        seeds=SEEDS,
        threshold=THRESHOLD,
        window=WINDOW,
        most=MOST,
        prompts_per_step=4,
        group_size=4,
        lr=settings.Config().lr,
    )
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


# ------------------------------------------------------------------- presets of the laboratory

COLUMNS = ("seed", "step", "reward", "reviews", "entropy", "kl", "length", "finished", "seconds")
LAST = 5  # steps that "at the end" is the mean of


def one_seed(preset: str, seed: int) -> list[dict[str, Any]]:
    """What the laboratory would record of a run of the preset with this seed."""
    choices = widgets.PRESETS[preset]
    records = train.train(
        models.load(models.REVIEWS_MODEL),
        reviews.REVIEW_PROMPTS,
        rewards.LM_REWARDS[choices["reward"]],
        widgets.laboratory_config(**choices, seed=seed),
        ref_policy=models.load(models.REVIEWS_MODEL),
    )
    return [{**widgets.observed(record, reviews=True), "seed": seed} for record in records]


def record_preset(preset: str, folder: Path) -> None:
    """One preset on every seed, all seeds one below the other."""
    started = time.perf_counter()
    runs = [one_seed(preset, seed) for seed in range(SEEDS)]
    rows = [[record[name] for name in COLUMNS] for records in runs for record in records]
    ends = {
        name: sorted(sum(r[name] for r in run[-LAST:]) / len(run[-LAST:]) for run in runs)
        for name in COLUMNS[2:]
    }
    choices = widgets.PRESETS[preset]
    about = runlog.provenance(
        preset=preset,
        reward=choices["reward"],
        seeds=SEEDS,
        config=dataclasses.asdict(widgets.laboratory_config(**choices)),
        at_the_end={name: [round(v[0], 3), round(v[-1], 3)] for name, v in ends.items()},
        samples={"before": runs[0][0]["samples"], "after": runs[0][-1]["samples"]},
        wall_seconds=round(time.perf_counter() - started, 1),
    )
    runlog.save(recorded.file(preset, folder), COLUMNS, rows, about, digits=5)
    print(preset, about["at_the_end"], f"{about['wall_seconds']} s", flush=True)


def main() -> None:
    """Record what is named on the command line, or everything."""
    parts: dict[str, Callable[[Path], None]] = {"bugs": record_bugs, "baselines": record_baselines}
    parts |= {preset: partial(record_preset, preset) for preset in widgets.PRESETS}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=list(parts), metavar="part")
    parser.add_argument("--folder", type=Path, default=RUNS)
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(parts)):
        parser.error(f"no part {unknown[0]!r}; there are {list(parts)}.")
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.parts:
        parts[name](options.folder)


if __name__ == "__main__":
    main()
