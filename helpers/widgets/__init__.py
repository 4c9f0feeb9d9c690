"""Thin controls around the figures of `plotting`. Core ipywidgets only; no pyplot.

One module a chapter; readers call them all as `widgets.Name`.
"""

from helpers.widgets.chapter01 import SamplerExplorer, TreeExplorer, compare_sampler
from helpers.widgets.chapter02 import CriticsExplorer, RewardBench, mix_critics, try_completion

__all__ = [
    "CriticsExplorer",
    "RewardBench",
    "SamplerExplorer",
    "TreeExplorer",
    "compare_sampler",
    "mix_critics",
    "try_completion",
]
