"""Thin controls around the figures of `plotting`. Core ipywidgets only; no pyplot.

One module a chapter; readers call them all as `widgets.Name`.
"""

from helpers.widgets.chapter01 import SamplerExplorer, TreeExplorer, compare_sampler
from helpers.widgets.chapter02 import CriticsExplorer, RewardBench, mix_critics, try_completion
from helpers.widgets.chapter03 import PAYMENTS, ValueExplorer, pay, tree_of_values
from helpers.widgets.chapter04 import BehaviorLab, compare_estimators
from helpers.widgets.chapter05 import SimplexPlayground, simplex_moves
from helpers.widgets.chapter06 import REWARDS, RewardLab, compare_baselines
from helpers.widgets.live import LiveRun, Run

__all__ = [
    "BehaviorLab",
    "CriticsExplorer",
    "LiveRun",
    "PAYMENTS",
    "REWARDS",
    "RewardBench",
    "RewardLab",
    "Run",
    "SamplerExplorer",
    "SimplexPlayground",
    "TreeExplorer",
    "ValueExplorer",
    "compare_baselines",
    "compare_estimators",
    "compare_sampler",
    "mix_critics",
    "pay",
    "simplex_moves",
    "tree_of_values",
    "try_completion",
]
