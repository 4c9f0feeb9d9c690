"""How many CPU threads torch takes: as many as the work is worth, which for the course is one.

Torch starts a thread for each core. For models of the size of this course's that gains next to
nothing, and where cores are busy the threads wait for each other: several kernels side by side,
as in a class, come to a halt. `benchmarks/threads.py` measures it. Whoever knows better sets
OMP_NUM_THREADS, or calls `torch.set_num_threads`; both are respected.
"""

import os
import sys
from pathlib import Path

LARGE = 20_000_000  # parameters from which a second thread shortens a step by a third or more
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_chosen_here: int | None = None


def settle(parameters: int = 0) -> None:
    """Choose the number of threads, unless the reader has.

    Called when `helpers` is imported, and by a training loop on the CPU. Threads that wait are
    told to sleep, if torch is not loaded yet: its library reads that once.

    Args:
        parameters: of the model that the work is on.
    """
    global _chosen_here
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    by_reader = _chosen_here not in (None, torch.get_num_threads())  # since we chose
    if not by_reader and not any(name in os.environ for name in VARIABLES):
        _chosen_here = cores() if parameters >= LARGE else 1
        torch.set_num_threads(_chosen_here)


def cores() -> int:
    """CPU cores that this process may use: of a container, its share."""
    able = getattr(os, "sched_getaffinity", None)
    count = len(able(0)) if able else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no limit
        pass
    return count
