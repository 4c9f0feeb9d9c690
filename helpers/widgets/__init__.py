"""Thin controls around the figures of `plotting`. Core ipywidgets only; no pyplot.

One module a chapter; readers call them all as `widgets.Name`.
"""

from helpers.widgets.chapter01 import SamplerExplorer, TreeExplorer, compare_sampler
from helpers.widgets.chapter03 import PAYMENTS, ValueExplorer, pay, tree_of_values
from helpers.widgets.chapter06 import REWARDS, RewardLab, compare_baselines
from helpers.widgets.live import LiveRun, Run

__all__ = [
    "PAYMENTS",
    "REWARDS",
    "LiveRun",
    "RewardLab",
    "Run",
    "SamplerExplorer",
    "TreeExplorer",
    "ValueExplorer",
    "compare_baselines",
    "compare_sampler",
    "pay",
    "tree_of_values",
]
