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
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

from tqdm.auto import tqdm

from course.worlds import reviews
from helpers import models, runlog, settings, train


def reward_of(name: str) -> settings.Reward:
    """`module:function` or `file.py:function`."""
    place, _, function = name.rpartition(":")
    if not place:
        raise SystemExit(f"--reward {name!r}: write module:function or file.py:function.")
    if place.endswith(".py"):
        module = module_of_file(Path(place), name)
    else:
        module = importlib.import_module(place)
    if not callable(getattr(module, function, None)):
        raise SystemExit(f"--reward {name!r}: {place} has no function {function}.")
    return getattr(module, function)


def module_of_file(path: Path, name: str) -> ModuleType:
    """A reader's file as Python imports one: known by its name, its neighbours within reach.

    Dataclasses and worker processes look a function's module up by name, so it has to be one.
    """
    if not path.is_file():
        raise SystemExit(f"--reward {name!r}: there is no file {path}.")
    path = path.resolve()
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) != str(path):
        raise SystemExit(
            f"--reward {name!r}: a module {path.stem!r} is loaded already ({known!r:.80}). "
            "Give the file another name."
        )
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    return importlib.import_module(path.stem)


def prompts_of(path: Path) -> list[str]:
    """One prompt per line, in UTF-8, with or without a byte order mark; empty lines are left out.

    Lines end at newlines alone: U+2028 and its like, which `str.splitlines` cuts at, are text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SystemExit(f"--prompts {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SystemExit(f"--prompts {path} is not UTF-8: {error}.") from error
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line.strip()]


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
    parser.add_argument(
        "--changed",
        action="append",
        default=[],
        help="what may differ from the run in the folder, such as 'reward function'",
    )
    for field in dataclasses.fields(settings.Config):
        kind = type(field.default)
        extra = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, default=field.default, help=f"({field.default})", **extra)
    return parser


def main() -> None:
    parser = options()
    args = parser.parse_args()
    # A scheduler that ends a job asks first: the run then saves its last step, as at Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if (args.model or os.environ.get("COURSE_MODEL")) and not args.prompts:
        parser.error("a model of your own needs --prompts: the course's begin film reviews.")
    names = [field.name for field in dataclasses.fields(settings.Config)]
    config = settings.Config(**{name: getattr(args, name) for name in names})
    several, device = None, models.best_device()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # started by `accelerate launch`
        from accelerate import Accelerator

        several = Accelerator(cpu=device.type == "cpu")
        device = several.device
    lm = models.load(args.model, eos_token=args.eos_token, device=device)
    ref = None
    if config.kl_coef or args.reference:
        ref = models.load(args.model, eos_token=args.eos_token, device=device)
    prompts = prompts_of(args.prompts) if args.prompts else list(reviews.REVIEW_PROMPTS)
    records = train.train(
        lm,
        prompts,
        reward_of(args.reward),
        config,
        ref_policy=ref,
        folder=args.folder,
        accelerator=several,
        changed=args.changed,
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
