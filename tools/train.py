"""Train a language model from the command line, on a laptop or on several GPUs.

    python tools/train.py --folder run --steps 50
    accelerate launch --num_processes 4 tools/train.py --folder run4 --prompts-per-step 32
    python tools/train.py --folder mine --model owner/name --eos-token "</s>" \\
        --prompts prompts.txt --reward my_file.py:my_reward --lr 1e-6 --reference

Started again with the same folder and settings, it goes on from the newest checkpoint. Every
setting of `helpers.train.Config` is an option; records go to FOLDER/records.csv. The default
learning rate suits the course's model: begin at 1e-6 with a pretrained one.
"""

import argparse
import contextlib
import dataclasses
import importlib
import importlib.util
import os
from pathlib import Path

from tqdm.auto import tqdm

from course.worlds import reviews
from helpers import models, runlog, settings, train


def reward_of(name: str) -> settings.Reward:
    """`module:function` or `file.py:function`."""
    place, _, function = name.rpartition(":")
    if not place:
        raise SystemExit(f"--reward {name!r}: write module:function or file.py:function.")
    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location("reward_file", place)
        if spec is None or spec.loader is None or not Path(place).is_file():
            raise SystemExit(f"--reward {name!r}: there is no file {place}.")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    return getattr(module, function)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a folder or a hub name; the course's own if left out")
    parser.add_argument("--eos-token", help="ends a completion, if the model does not name it")
    parser.add_argument(
        "--reference",
        action="store_true",
        help="keep a copy as it was, so that records have the KL (always with --kl-coef)",
    )
    parser.add_argument("--reward", default="course.worlds.reviews:sentiment_reward")
    parser.add_argument("--prompts", type=Path, help="a text file, one prompt a line")
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints and records")
    for field in dataclasses.fields(settings.Config):
        kind = type(field.default)
        extra = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, default=field.default, help=f"({field.default})", **extra)
    return parser


def main() -> None:
    parser = options()
    args = parser.parse_args()
    if (args.model or os.environ.get("COURSE_MODEL")) and not args.prompts:
        parser.error("a model of your own needs --prompts: the course's begin film reviews.")
    config = settings.Config(
        **{f.name: getattr(args, f.name) for f in dataclasses.fields(settings.Config)}
    )
    several, device = None, models.best_device()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # started by `accelerate launch`
        from accelerate import Accelerator

        several = Accelerator(cpu=device.type == "cpu")
        device = several.device
    lm = models.load(args.model, eos_token=args.eos_token, device=device)
    ref = None
    if config.kl_coef or args.reference:
        ref = models.load(args.model, eos_token=args.eos_token, device=device)
    prompts = list(reviews.REVIEW_PROMPTS)
    if args.prompts:
        prompts = [line for line in args.prompts.read_text().splitlines() if line.strip()]
    records = train.train(
        lm,
        prompts,
        reward_of(args.reward),
        config,
        ref_policy=ref,
        folder=args.folder,
        accelerator=several,
    )
    speaks = several is None or several.is_main_process
    if speaks:
        records = runlog.record(
            records,
            args.folder / "records.csv",
            model=args.model,
            reward=args.reward,
            config=dataclasses.asdict(config),
        )
    bar = tqdm(total=config.steps, disable=not speaks)
    with bar, contextlib.suppress(KeyboardInterrupt):  # a checkpoint is written on the way out
        for record in records:
            bar.set_postfix(
                reward=f"{record.reward:+.2f}", entropy=f"{record.entropy:.1f}", refresh=False
            )
            bar.update(record.step + 1 - bar.n)


if __name__ == "__main__":
    main()
