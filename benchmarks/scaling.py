"""How a step's time and memory grow with the group, the prompt, the completion, the vocabulary and
the parameters; ours, and TRL's GRPO where it is installed.

    python -m benchmarks.scaling [--steps 3] [--out FILE.md]

One quantity varies at a time around 8 prompts × 8 completions, 16 + 16 tokens, 45 symbols and 0.8 M
parameters. One thread, CPU time of the process, medians; each point is a process of its own, so
that its peak of memory is its own. An exponent of 1 says that twice as much costs twice as much.
"""

import argparse
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import meters, peers, workloads
from benchmarks.workloads import Workload
from helpers import runlog

PROMPTS = 8
BASE: dict[str, int] = {
    "group": 8,
    "prompt_tokens": 16,
    "max_new_tokens": 16,
    "words": len(workloads.VOCABULARY),
    "width": 128,
    "layers": 4,
}
VARIED: dict[str, list[dict[str, int]]] = {
    "group": [{"group": n} for n in (2, 8, 32)],
    "prompt tokens": [{"prompt_tokens": n} for n in (8, 64, 256, 512, 1024)],
    "new tokens": [{"max_new_tokens": n} for n in (8, 32, 128, 512)],
    "vocabulary": [{"words": n} for n in (45, 1000, 8000, 50257)],
    "million parameters": [
        {"width": 64, "layers": 2},
        {"width": 128, "layers": 4},
        {"width": 384, "layers": 5},
    ],
}
BESIDE = [{}, {"prompt_tokens": 512}, {"max_new_tokens": 128}, {"words": 50257}]  # and TRL's


def pay(asked: list[str], completions: list[str]) -> list[float]:
    """Another number for each completion, whatever it says: most ids have no symbol.

    Args:
        asked: B prompts, not looked at.
        completions: B strings.
    """
    return [float(number) for number in range(len(completions))]


def point(changed: dict[str, int], who: str, steps: int) -> dict[str, float]:
    """CPU milliseconds of a step and MiB beyond the imports, in this process.

    Args:
        changed: what differs from `BASE`.
        who: "ours" or "GRPO".
        steps: that count; one before them does not.
    """
    sizes = BASE | changed
    group = sizes.pop("group")
    work = Workload(str(sizes), shortest=1, ends=False, lessons=0, **sizes)
    asked = workloads.prompts(work, PROMPTS * (steps + 1))
    if who == "ours":
        imported = meters.peak_memory()
        settings: dict[str, Any] = {"prompts_per_step": PROMPTS, "group_size": group}
        loop = workloads.our_loop(work, asked, pay, **settings)
        spent: dict[str, list[float]] = {"ms": [], "write": [], "credit": []}
        for name in ("write", "credit"):
            setattr(loop, name, _timed(getattr(loop, name), spent[name]))
        step = _timed(loop.step, spent["ms"])
        for _ in range(steps + 1):
            step()
    else:
        peers.trl_classes(who)
        imported = meters.peak_memory()
        spent = {"ms": _trl_steps(work, asked, who, group, steps)}
    found = {name: 1e3 * statistics.median(times[1:]) for name, times in spent.items()}
    return found | {"MiB": meters.peak_memory() - imported}


def _timed(function: Any, times: list[float]) -> Any:
    def call(*args: Any) -> Any:
        started = time.process_time()
        result = function(*args)
        times.append(time.process_time() - started)
        return result

    return call


def _trl_steps(work: Workload, asked: list[str], who: str, group: int, steps: int) -> list[float]:
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = time.process_time()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.process_time() - self.started)

    with tempfile.TemporaryDirectory() as folder:
        trainer = peers.trl_trainer(
            who,
            work,
            asked,
            pay,
            activation=workloads.ACTIVATION,
            steps=steps + 1,
            folder=folder,
            per_device_train_batch_size=PROMPTS * group,
            num_generations=group,
        )
        trainer.add_callback(Clock())
        trainer.train()
    return times


def in_a_process(changed: dict[str, int], who: str, steps: int) -> dict[str, float]:
    """`point`, in a process of its own.

    Args:
        changed: what differs from `BASE`.
        who: "ours" or "GRPO".
        steps: that count.
    """
    line = [sys.executable, "-W", "ignore", "-m", "benchmarks.scaling", "--steps", str(steps)]
    line += ["--one", json.dumps(changed), "--who", who]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def exponent(sizes: list[float], costs: list[float]) -> float:
    """b of the least-squares line log cost = a + b log size.

    Args:
        sizes: at least two different ones, > 0.
        costs: > 0, one for each.
    """
    x, y = ([math.log(n) for n in each] for each in (sizes, costs))
    return statistics.linear_regression(x, y).slope


def size_of(name: str, changed: dict[str, int]) -> float:
    """The number that varies.

    Args:
        name: a key of `VARIED`.
        changed: one of its points.
    """
    if name != "million parameters":
        [number] = changed.values()
        return float(number)
    work = Workload("", 16, 16, 1, False, 0, **changed)
    return sum(p.numel() for p in workloads.new_model(work).parameters()) / 1e6


def tables(steps: int) -> str:
    """All points, as Markdown.

    Args:
        steps: that count at each point.
    """
    lines = ["| varied | ms a step: writing + gradient = all (MiB beyond imports) | exponent |"]
    lines.append("|---|---|---|")
    for name, points in VARIED.items():
        sizes = [size_of(name, changed) for changed in points]
        found = [in_a_process(changed, "ours", steps) for changed in points]
        cells = [
            f"{size:.3g}: {f['write']:.0f} + {f['credit']:.0f} = **{f['ms']:.0f}** ({f['MiB']:.0f})"
            for size, f in zip(sizes, found, strict=True)
        ]
        slope = exponent(sizes[-2:], [f["ms"] for f in found[-2:]])
        lines.append(f"| {name} | {' · '.join(cells)} | {slope:.2f} |")
        print(lines[-1], flush=True)
    if importlib.util.find_spec("trl") is None:
        return "\n".join(lines) + "\n"
    lines += ["", "| point | ours, ms (MiB) | TRL's GRPO, ms (MiB) | times |", "|---|---|---|---|"]
    for changed in BESIDE:
        ours, theirs = (in_a_process(changed, who, steps) for who in ("ours", "GRPO"))
        name = ", ".join(f"{key} {n}" for key, n in changed.items()) or "the usual"
        cells = [f"{f['ms']:.0f} ({f['MiB']:.0f})" for f in (ours, theirs)]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {theirs['ms'] / ours['ms']:.1f} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3, help="that count at each point")
    parser.add_argument("--out", type=Path, help="a Markdown file")
    parser.add_argument("--one", help="one point, as JSON")
    parser.add_argument("--who", default="ours", choices=["ours", "GRPO"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        print(json.dumps(point(json.loads(given.one), given.who, given.steps)))
        return
    text = tables(given.steps)
    if given.out:
        about = runlog.provenance(settings={"steps": given.steps}, cpu=meters.cpu_name())
        told = {name: about[name] for name in ("date", "torch", "cpu") if name in about}
        head = f"# How a step grows\n\n`python -m benchmarks.scaling`; {told}; around {BASE}, "
        head += f"{PROMPTS} prompts.\n\n"
        given.out.write_text(head + text, encoding="utf-8")


if __name__ == "__main__":
    main()
