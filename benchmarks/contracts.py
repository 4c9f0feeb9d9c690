"""What the checks of `helpers.contract` cost: one training step with them, and one without.

Two runs from one seed go side by side, one with every held function in place and one with the plain
ones: a pair of steps does the same work, in turning order, so that what else the machine does meets
both alike. `python -m benchmarks.contracts` prints the ratio.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from course.worlds import reviews
from helpers import contract, models, train

PAIRS = 40
WARM_UP = 2  # steps before anything is measured


def held() -> list[tuple[Any, str, Any]]:
    """Every held function: (its module or class, its name, what stands there)."""
    found = []
    for name in sorted(contract.HELD):
        module = sys.modules[name]
        owners = [module, *(x for x in vars(module).values() if isinstance(x, type))]
        for owner in owners:
            if owner is not module and owner.__module__ != name:
                continue
            found += [(owner, key, x) for key, x in vars(owner).items() if _plain(x) is not x]
    return found


def _plain(thing: Any) -> Any:
    """A function without its check; anything else as it is."""
    if isinstance(thing, staticmethod | classmethod):
        inner = _plain(thing.__func__)
        return thing if inner is thing.__func__ else type(thing)(inner)
    code = getattr(thing, "__code__", None)
    is_held = code is not None and code.co_filename == contract.__file__
    return thing.__wrapped__ if is_held and hasattr(thing, "__wrapped__") else thing


def switch(functions: list[tuple[Any, str, Any]], *, on: bool) -> None:
    """Put the held functions in place, or the plain ones.

    Args:
        functions: of `held`.
        on: whether calls are checked.
    """
    for owner, name, thing in functions:
        setattr(owner, name, thing if on else _plain(thing))


def seconds(step: Callable[[], Any]) -> float:
    """CPU time of the process for one step.

    Args:
        step: what is measured.
    """
    start = time.process_time()
    step()
    return time.process_time() - start


def main() -> None:
    """Measure pairs of steps, in turning order, and print the ratio with and without checks."""
    torch.set_num_threads(1)
    config = train.Config(steps=PAIRS + WARM_UP, prompts_per_step=8, group_size=8)
    prompts, reward = list(reviews.REVIEW_PROMPTS), reviews.sentiment_reward
    runs = [iter(train.train(models.load(), prompts, reward, config)) for _ in range(2)]
    functions, ratios = held(), []
    for run in WARM_UP * runs:
        next(run)
    for pair in range(PAIRS):
        times = {}
        for on in (True, False) if pair % 2 else (False, True):
            switch(functions, on=on)
            times[on] = seconds(runs[on].__next__)
        ratios.append(times[True] / times[False])
    switch(functions, on=True)
    print(
        f"{len(functions)} held functions; a step with checks / without: "
        f"{statistics.median(ratios):.4f} [{min(ratios):.3f}–{max(ratios):.3f}], {PAIRS} pairs"
    )


if __name__ == "__main__":
    main()
