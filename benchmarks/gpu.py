"""Decoding and whole steps on a GPU, beside `model.generate`; on a CPU the same at small size.

    python -m benchmarks.gpu [--sizes 1 10 124] [--out FILE.csv]

Random weights: speed does not depend on what they are. Each number is the median of several
timed repeats after one that warms up, and the clock waits for the device at both ends. Beside
each time stand two floors that no decode step without fusion gets below: reading every weight
and the cache once at the measured bandwidth, and launching its kernels one by one, which a
captured graph avoids.
"""

import argparse
import csv
import functools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from course.worlds import tiny_models, word_world
from helpers import decoding, models, rollout, runlog, settings, train

SHAPES = {  # million parameters: width, layers, heads, vocabulary
    0.1: (64, 2, 4, 256),
    1: (160, 3, 4, 512),
    10: (384, 5, 6, 2048),
    124: (768, 12, 12, 50257),
}


@dataclass(frozen=True)
class Row:
    """One measurement."""

    million: float  # parameters
    what: str  # "generate", "eager", "graph" or "step"
    rows: int  # completions
    new_tokens: int
    seconds: float  # median
    fastest: float
    slowest: float
    tokens_per_second: float  # completion tokens
    bandwidth_floor: float  # seconds: weights and cache read once a token
    launch_floor: float  # seconds: kernels launched one by one; nan where it was not counted


def language_model(million: float, context: int, device: torch.device) -> models.LanguageModel:
    """A GPT-2 of a size, with random weights and words w0, w1, … as its vocabulary."""
    width, layers, heads, vocabulary = SHAPES[million]
    words = (*(f"w{i}" for i in range(vocabulary - 2)), ".")
    world = word_world.TokenWorld(words, ("?",), 1, lambda prompts, texts: [0.0] * len(texts))
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        activation_function="gelu_pytorch_tanh",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    nn.Module.to(model, device)
    return tiny_models.word_language_model(world, model)


def timed(work: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each repeat; the first call is not counted."""
    seconds = []
    for number in range(repeats + 1):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        if number:
            seconds.append(time.perf_counter() - started)
    return seconds


def wait(device: torch.device) -> None:
    """Until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def bandwidth(device: torch.device) -> float:
    """Bytes a second of a copy that is larger than any cache: read and written."""
    source = torch.zeros((1 << 30 if device.type == "cuda" else 1 << 27) // 4, device=device)
    target = torch.empty_like(source)
    best = min(timed(lambda: target.copy_(source), 10, device))
    return 2 * source.numel() * 4 / best


def launch_seconds(device: torch.device) -> float:
    """Seconds between two launches of a kernel that does next to nothing; nan on a CPU."""
    if device.type != "cuda":
        return float("nan")
    tiny = torch.zeros(1, device=device)
    return min(timed(lambda: [tiny.add_(1) for _ in range(2000)], 5, device)) / 2000


def kernels(work: Callable[[], object], device: torch.device) -> float:
    """Kernels that a call launches; nan on a CPU."""
    if device.type != "cuda":
        return float("nan")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        wait(device)
    return float(sum(event.count for event in profile.key_averages()))


def routes(
    lm: models.LanguageModel, prompts: list[str], args: argparse.Namespace, device: torch.device
) -> tuple[Callable[..., object], dict[str, Callable[[], object]]]:
    """What is timed: `sample(decoder, new)`, and each route by its name.

    Args:
        lm: the language model.
        prompts: one a group.
        args: of the command line.
        device: of the model.
    """
    ids, mask = lm.encode(prompts)
    chance = torch.Generator().manual_seed(0)
    captured = decoding.Decoder(lm.model, capture=device.type == "cuda")

    def sample(decoder: decoding.Decoder | None, new: int = args.new) -> None:
        chosen = rollout.SamplingSettings((), new, group_size=args.group)
        rollout.sample(lm.model, ids, mask, chosen, generator=chance, decoder=decoder)

    def generate() -> None:
        lm.model.generate(
            input_ids=ids.repeat_interleave(args.group, 0),
            attention_mask=mask.repeat_interleave(args.group, 0).long(),
            do_sample=True,
            top_k=0,
            max_new_tokens=args.new,
            min_new_tokens=args.new,
            pad_token_id=0,
        )

    eager, graph = functools.partial(sample, None), functools.partial(sample, captured)
    return sample, {"generate": generate, "eager": eager, "graph": graph}


def count_ones(asked: list[str], completions: list[str]) -> list[float]:
    """A reward that costs next to nothing."""
    return [float(text.count("1")) for text in completions]


def read_seconds(lm: models.LanguageModel, args: argparse.Namespace, device: torch.device) -> float:
    """What reading every weight and the cache once per token takes at the measured bandwidth."""
    config = lm.model.config
    size = 2 if device.type == "cuda" else 4  # bytes of a number in the cache
    weights = 4 * sum(p.numel() for p in lm.model.parameters())
    kept = args.rows * config.n_layer * config.n_embd * (args.prompt + args.new / 2)  # on average
    return args.new * (weights + 2 * size * kept) / bandwidth(device)


def measure(million: float, args: argparse.Namespace, device: torch.device) -> list[Row]:
    """Decode by three routes and whole steps, for one size of model."""
    lm = language_model(million, args.prompt + args.new, device)
    prompts = [
        " ".join(f"w{(7 * i + j) % 250}" for j in range(args.prompt))
        for i in range(args.rows // args.group)
    ]
    sample, work = routes(lm, prompts, args, device)
    config = settings.Config(
        prompts_per_step=len(prompts),
        group_size=args.group,
        max_new_tokens=args.new,
        tokens_per_micro_batch=65536 if device.type == "cuda" else 4096,
        lr=1e-6,
    )
    loop = train.Loop(lm, prompts, count_ones, config)
    floor = read_seconds(lm, args, device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        each = kernels(lambda: sample(None, 9), device) - kernels(lambda: sample(None, 1), device)
        launches = args.new * each / 8 * launch_seconds(device)
        found = {name: timed(one, args.repeats, device) for name, one in work.items()}
    found["step"] = timed(loop.step, args.repeats, device)
    return [
        Row(
            million,
            name,
            args.rows,
            args.new,
            statistics.median(s),
            min(s),
            max(s),
            args.rows * args.new / statistics.median(s),
            floor,
            launches,
        )
        for name, s in found.items()
    ]


def main() -> None:
    """Measure, print and, if asked, write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 10, 124] if gpu else [0.1])
    parser.add_argument("--rows", type=int, default=256 if gpu else 16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=64 if gpu else 16)
    parser.add_argument("--new", type=int, default=128 if gpu else 16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a CSV; the provenance goes beside it")
    args = parser.parse_args()
    device = torch.device("cuda" if gpu else "cpu")
    found = [row for size in args.sizes for row in measure(size, args, device)]
    print("parameters  route      seconds [range]        tokens/s  × generate  of bandwidth floor")
    for row in found:
        base = next(r for r in found if r.million == row.million and r.what == "generate")
        print(
            f"{row.million:8g} M  {row.what:9} {row.seconds:8.4f} [{row.fastest:.4f}–"
            f"{row.slowest:.4f}] {row.tokens_per_second:10.0f} {base.seconds / row.seconds:8.2f}"
            f" {row.bandwidth_floor / row.seconds:12.3f}"
        )
        if row.what == "eager" and gpu:
            print(f"            launching its kernels one by one: {row.launch_floor:.4f} s")
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, vars(found[0]).keys())
            writer.writeheader()
            writer.writerows(vars(row) for row in found)
        chosen = {name: value for name, value in vars(args).items() if name != "out"}
        about = runlog.provenance(settings=chosen, command="python -m benchmarks.gpu")
        args.out.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
