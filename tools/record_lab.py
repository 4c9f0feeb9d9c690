"""Record the presets of chapter 07's laboratory on several seeds: `python tools/record_lab.py`.

For each preset `notebooks/runs/chapter07_<preset>.csv`, all seeds one below the other, and beside
it a JSON with settings, versions, a few texts, and the least and the greatest value over the
seeds at the end. Read the CSV with `runlog.load`.
"""

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

from helpers import models, runlog, train, widgets, worlds

COLUMNS = ("seed", "step", "reward", "reviews", "entropy", "kl", "length", "finished", "seconds")
LAST = 5  # steps that "at the end" is the mean of


def one_seed(preset: str, seed: int) -> list[dict[str, Any]]:
    """What the laboratory would record of a run of the preset with this seed."""
    choices = widgets.PRESETS[preset]
    records = train.train(
        models.load(models.REVIEWS_MODEL), worlds.REVIEW_PROMPTS,
        widgets.LM_REWARDS[choices["reward"]], widgets.laboratory_config(**choices, seed=seed),
        ref_policy=models.load(models.REVIEWS_MODEL),
    )  # fmt: skip
    return [{**widgets.observed(record, reviews=True), "seed": seed} for record in records]


def main() -> None:
    """Record what is named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=list(widgets.PRESETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=widgets.RUNS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for preset in options.presets:
        started = time.perf_counter()
        runs = [one_seed(preset, seed) for seed in range(options.seeds)]
        rows = [[record[name] for name in COLUMNS] for records in runs for record in records]
        ends = {
            name: sorted(sum(r[name] for r in run[-LAST:]) / len(run[-LAST:]) for run in runs)
            for name in COLUMNS[2:]
        }
        choices = widgets.PRESETS[preset]
        about = runlog.provenance(
            preset=preset, reward=choices["reward"], seeds=options.seeds,
            config=dataclasses.asdict(widgets.laboratory_config(**choices)),
            at_the_end={name: [round(v[0], 3), round(v[-1], 3)] for name, v in ends.items()},
            samples={"before": runs[0][0]["samples"], "after": runs[0][-1]["samples"]},
            wall_seconds=round(time.perf_counter() - started, 1),
        )  # fmt: skip
        runlog.save(widgets.record_file(preset, options.folder), COLUMNS, rows, about, digits=5)
        print(preset, about["at_the_end"], f"{about['wall_seconds']} s", flush=True)


if __name__ == "__main__":
    main()
