"""Thin controls around the figures of `plotting`. Core ipywidgets only; no pyplot.

One module a chapter; readers call them all as `widgets.Name`.
"""

from helpers.widgets.chapter01 import SamplerExplorer, TreeExplorer, compare_sampler
from helpers.widgets.chapter02 import CriticsExplorer, RewardBench, mix_critics, try_completion
from helpers.widgets.chapter03 import PAYMENTS, ValueExplorer, pay, tree_of_values
from helpers.widgets.chapter04 import BehaviorLab, compare_estimators

__all__ = [
    "BehaviorLab",
    "CriticsExplorer",
    "PAYMENTS",
    "RewardBench",
    "SamplerExplorer",
    "TreeExplorer",
    "ValueExplorer",
    "compare_estimators",
    "compare_sampler",
    "mix_critics",
    "pay",
    "tree_of_values",
    "try_completion",
]
