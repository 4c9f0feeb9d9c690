"""The loop beside TRL's trainers and a plain loop: CPU time, operations, memory, gradients.

One thread, CPU time of the process; see `pairing`. `make bench` runs it and writes
`benchmarks/results/`.
"""

import argparse
import csv
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import meters, pairing, peers, workloads
from benchmarks.pairing import Side
from benchmarks.workloads import PROMPTS, WORKLOADS, Workload
from helpers import cpu, runlog, scoring

RESULTS = Path(__file__).parent / "results"
PLAIN = "plain loop"
PEERS = ("RLOO", "GRPO", PLAIN)
HALF = "half equal"  # half of the groups of A have equal rewards
TARGETS = {
    ("A", "RLOO"): 2.1,
    ("A", "GRPO"): 1.8,
    ("B", "RLOO"): 4.5,
    ("B", "GRPO"): 3.8,
    (HALF, PLAIN): 2.2,
}
HEADER = """\
| workload   | beside     | ms a step         | theirs / ours      | target | tokens/s      \
| GFLOP a step  | of GEMM   | length        |
|---|---|---|---|---|---|---|---|---|"""


def memory(who: str, work: Workload, *, activation: str, steps: int = 4) -> dict[str, float]:
    """Peak memory of this process, MiB, after importing what is needed and after some steps.

    Args:
        who: "ours" or one of PEERS.
        work: the workload.
        activation: of the multilayer perceptrons.
        steps: that run.
    """
    asked = workloads.prompts(work, PROMPTS * steps)
    if who in ("RLOO", "GRPO"):
        peers.trl_classes(who)
    imported = meters.peak_memory()
    if who in ("RLOO", "GRPO"):
        with tempfile.TemporaryDirectory() as folder:
            settings: dict = {"activation": activation, "steps": steps, "folder": folder}
            peers.trl_trainer(who, work, asked, workloads.reward, **settings).train()
    else:
        loop = (
            workloads.our_loop(work, asked, activation=activation)
            if who == "ours"
            else peers.PlainLoop(work, asked, workloads.reward, activation=activation)
        )
        for _ in range(steps):
            loop.step()
    return {"imported": round(imported), "peak": round(meters.peak_memory())}


def memories(work: Workload, *, activation: str) -> dict[str, dict[str, float]]:
    """`memory` of everybody, each in a process of its own.

    Args:
        work: the workload.
        activation: of the multilayer perceptrons.
    """
    found = {}
    for who in ("ours", *PEERS):
        command = [
            sys.executable,
            "-m",
            "benchmarks.against_trl",
            "--memory-of",
            who,
            "--workload",
            work.name,
            "--activation",
            activation,
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[who] = json.loads(done.stdout.splitlines()[-1])
    return found


def row_of(workload: str, peer: str, sides: tuple[Side, Side], peak: float) -> dict[str, Any]:
    """One row of the table; `sides` are ours and theirs."""
    ours, theirs = sides
    ratios = [a / b for a, b in zip(theirs.seconds, ours.seconds, strict=True)]
    return {
        "workload": workload,
        "peer": peer,
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
        "target": TARGETS.get((workload, peer), ""),
        "pairs": len(ratios),
        **{f"our_{key}": value for key, value in ours.numbers(peak).items()},
        **{f"their_{key}": value for key, value in theirs.numbers(peak).items()},
    }


def show(row: dict[str, Any]) -> None:
    """Print one row, ours / theirs."""
    both = {
        key: f"{row[f'our_{key}']} / {row[f'their_{key}']}"
        for key in ("ms", "tokens_per_second", "gflop", "length")
    }
    shares = f"{row['our_share_of_gemm_peak']:.0%} / {row['their_share_of_gemm_peak']:.0%}"
    ratio = f"{row['ratio']:.2f} [{row['ratio_min']:.2f}–{row['ratio_max']:.2f}]"
    print(
        f"| {row['workload']:10} | {row['peer']:10} | {both['ms']:>17} | {ratio:18} "
        f"| {row['target']!s:6} | {both['tokens_per_second']:>13} | {both['gflop']:>13} "
        f"| {shares:>9} | {both['length']:>13} |",
        flush=True,
    )


def add_memory(held: dict[str, dict[str, float]], row: dict[str, Any]) -> None:
    """Add to a row what we and the peer hold on B, beyond what imports hold and in all."""
    for side, who in (("our", "ours"), ("their", row["peer"])):
        row[f"{side}_mib_beyond_imports"] = held[who]["peak"] - held[who]["imported"]
        row[f"{side}_mib_peak"] = held[who]["peak"]
    share = row["our_mib_beyond_imports"] / row["their_mib_beyond_imports"]
    print(
        f"memory on {row['workload']} beside {row['peer']}: {row['our_mib_beyond_imports']:.0f} / "
        f"{row['their_mib_beyond_imports']:.0f} MiB beyond imports ({share:.2f}), "
        f"{row['our_mib_peak']:.0f} / {row['their_mib_peak']:.0f} MiB in all"
    )


def measure(given: argparse.Namespace) -> None:
    """Every pairing; a table, a CSV of it, and a JSON that says where it comes from."""
    names = [given.workload] if given.workload else list(WORKLOADS)
    settings: dict[str, Any] = {"activation": given.activation, "steps": given.steps}
    started = time.process_time()
    for name in names:
        workloads.starting_model(WORKLOADS[name], activation=given.activation)
    print(f"starting models: {time.process_time() - started:.0f} s of CPU time")
    model = workloads.starting_model(WORKLOADS[names[0]], activation=given.activation)
    rates = {"square MKL": meters.gemm_peak()}
    for count in (PROMPTS * workloads.GROUP_SIZE, scoring.budget_of(model)):
        rates |= {f"{k}, {count} rows": v for k, v in meters.product_rates(model, count).items()}
    peak = max(rates.values())  # of the best library at the best shape
    rates = {name: round(rate / 1e9, 1) for name, rate in rates.items()}
    by_onednn = cpu.onednn_is_faster(model, scoring.budget_of(model))
    print(f"products of one thread, GFLOP/s: {rates}; by oneDNN: {by_onednn}; {settings}")
    print(f"\n{HEADER}")
    rows, distances = [], {}
    for name in names:
        work = WORKLOADS[name]
        for peer in ("RLOO", "GRPO"):
            sides, distances[f"{name} {peer}"] = pairing.beside_trl(peer, work, **settings)
            rows.append(row_of(name, peer, sides, peak))
            show(rows[-1])
        sides = pairing.beside_plain(work, workloads.reward, **settings)
        rows.append(row_of(name, PLAIN, sides, peak))
        show(rows[-1])
    if "A" in names:
        sides = pairing.beside_plain(WORKLOADS["A"], workloads.half_equal, **settings)
        rows.append(row_of(HALF, PLAIN, sides, peak))
        show(rows[-1])
    if "B" in names:
        held = memories(WORKLOADS["B"], activation=given.activation)
        for row in rows:
            if row["workload"] == "B":
                add_memory(held, row)
    print(f"gradients, distance over length: { ({k: f'{d:.1e}' for k, d in distances.items()}) }")
    assert all(distance < 1e-4 for distance in distances.values()), "another gradient than TRL's"
    write(rows, gflop_per_second=rates, by_onednn=by_onednn, distances=distances, **settings)


def write(rows: list[dict[str, Any]], **details: Any) -> None:
    """The table as CSV, and beside it where it comes from."""
    trl = importlib.metadata.version("trl")
    about = runlog.provenance(**details, trl=trl, cpu=meters.cpu_name())
    path = RESULTS / f"{about['date']}-cpu.csv"
    path.parent.mkdir(exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
    print(f"written: {path.name}")


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=9, help="pairs of each measurement")
    parser.add_argument("--activation", default=workloads.ACTIVATION)
    parser.add_argument("--workload", choices=list(WORKLOADS), help="only this one")
    parser.add_argument("--memory-of", choices=["ours", *PEERS], help="only this, as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory_of:
        work = WORKLOADS[given.workload or "B"]
        print(json.dumps(memory(given.memory_of, work, activation=given.activation)))
        return
    measure(given)


if __name__ == "__main__":
    main()
