"""How many CPU threads torch takes: as many as the work is worth, which here is one.

Torch starts a thread for each core. For models of the size of this course's that gains next to
nothing, and where cores are busy the threads wait for each other: several kernels side by side,
as in a class, come to a halt. Whoever has larger models and idle cores sets OMP_NUM_THREADS, or
calls `torch.set_num_threads`; both are respected.
"""

import os
import sys


def settle() -> None:
    """One thread, unless the reader has said otherwise; called when `helpers` is imported.

    Threads that wait are told to sleep, if torch is not loaded yet: its library reads that once.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    if "OMP_NUM_THREADS" not in os.environ and "MKL_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
