"""CPU threads: what a step costs with one and with all, alone and beside other work; and a class.

    python -m benchmarks.threads [--sizes 0.1 1 10 124] [--rounds 5] [--kernels 8] [--out FILE.md]

A step is timed in a process of its own, by wall clock and by CPU time of the process, for three
ways to start: as the course does (`helpers.cpu`), with all cores as torch does by itself
(threads that wait spin), and with all cores and threads that sleep while they wait. They take
turns, so that what else the machine does meets all alike. "Busy" is the same while one other
process counts without end. Then so many kernels run chapter 00 at once, no variable set.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COUNT = ["-c", "while True: pass"]
WAYS = ("the course", "all, spinning", "all, sleeping")
# Steps, prompts a step, completions a prompt, new tokens, by millions of parameters.
STEPS = {0.1: (30, 8, 8, 24), 1.0: (6, 8, 8, 24), 10.0: (2, 4, 4, 16), 124.0: (1, 2, 2, 8)}
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Cost:
    """Of one step, in seconds."""

    wall: float
    cpu: float


def in_this_process(million: float, way: str) -> None:
    """Print the wall and CPU seconds of a step.

    Args:
        million: parameters, a key of `STEPS`.
        way: one of `WAYS`.
    """
    import torch  # before `helpers`, whose import would settle how threads wait

    from benchmarks import gpu
    from helpers import settings, train

    if way != "the course":
        torch.set_num_threads(os.cpu_count() or 1)
    steps, prompts, group, new = STEPS[million]
    lm = gpu.language_model(million, 64, torch.device("cpu"))
    asked = [" ".join(f"w{(7 * i + j) % 250}" for j in range(8)) for i in range(prompts)]
    config = settings.Config(
        steps=steps + 1, prompts_per_step=prompts, group_size=group, max_new_tokens=new, lr=1e-6
    )
    records = train.train(lm, asked, gpu.count_ones, config)
    if way != "the course":
        torch.set_num_threads(os.cpu_count() or 1)
    next(records)  # warms up
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in records:
        pass
    print((time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps)


def measure(million: float, way: str) -> Cost:
    """`in_this_process`, in another one.

    Args:
        million: parameters.
        way: one of `WAYS`.
    """
    chosen = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    if way == "all, sleeping":
        chosen["OMP_WAIT_POLICY"] = "PASSIVE"
    line = [sys.executable, "-m", "benchmarks.threads", "--one", str(million), way]
    done = subprocess.run(line, cwd=ROOT, env=chosen, capture_output=True, text=True, check=True)
    return Cost(*map(float, done.stdout.split()))


def a_class(kernels: int) -> tuple[float, int]:
    """Seconds until so many kernels have run chapter 00 side by side, and how many were green.

    Args:
        kernels: how many.
    """
    chosen = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    line = [sys.executable, "-m", "nbconvert", "--execute", "--to", "notebook"]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        running = [
            subprocess.Popen(
                [*line, f"--output={folder}/{i}.ipynb", "notebooks/00_start_here.ipynb"],
                cwd=ROOT,
                env=chosen,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for i in range(kernels)
        ]
        green = sum(process.wait() == 0 for process in running)
        return time.perf_counter() - started, green


def row(million: float, busy: bool, costs: dict[str, list[Cost]]) -> str:
    """A line of the table: medians, and in brackets the range over rounds.

    Args:
        million: parameters.
        busy: whether another process counted at the same time.
        costs: of each way, a round each.
    """
    cells = [f"{million:g} M", "busy" if busy else "idle"]
    base = costs[WAYS[0]]
    for way in WAYS:
        wall = [1000 * cost.wall for cost in costs[way]]
        cpu = [1000 * cost.cpu for cost in costs[way]]
        times = [one.wall / other.wall for one, other in zip(costs[way], base, strict=True)]
        cells += [
            f"{statistics.median(wall):.0f}",
            f"{statistics.median(cpu):.0f}",
            f"{statistics.median(times):.2f} [{min(times):.2f}–{max(times):.2f}]",
        ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, print, and write the table if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=list(STEPS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kernels", type=int, default=8)
    parser.add_argument("--out", type=Path, help="a Markdown file")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        in_this_process(float(args.one[0]), args.one[1])
        return
    from helpers import runlog

    head = [f"{way}: {what}" for way in WAYS for what in ("wall, ms", "CPU, ms", "× the course")]
    lines = ["| parameters | other work | " + " | ".join(head) + " |", "|" + "---|" * 11]
    for million in args.sizes:
        for busy in (False, True):
            other = subprocess.Popen([sys.executable, *COUNT]) if busy else None
            costs: dict[str, list[Cost]] = {way: [] for way in WAYS}
            for _ in range(args.rounds):
                for way in WAYS:
                    costs[way].append(measure(million, way))
            if other is not None:
                other.kill()
                other.wait()
            lines.append(row(million, busy, costs))
            print(lines[-1], flush=True)
    if args.kernels:
        seconds, green = a_class(args.kernels)
        lines += ["", f"{green} of {args.kernels} kernels ran chapter 00 at once, {seconds:.0f} s."]
        print(lines[-1])
    if args.out:
        about = runlog.provenance(settings=vars(args), command="python -m benchmarks.threads")
        text = ["# Threads", "", *lines, "", f"{os.cpu_count()} cores. {about}".replace("'", "`")]
        args.out.write_text("\n".join([*text, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
