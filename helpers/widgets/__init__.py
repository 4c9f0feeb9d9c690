"""Thin controls around the figures of `plotting`. Core ipywidgets only; no pyplot.

One module a chapter; readers call them all as `widgets.Name`.
"""

from helpers.widgets.chapter01 import SamplerExplorer, TreeExplorer, compare_sampler
from helpers.widgets.chapter04 import BehaviorLab, compare_estimators

__all__ = [
    "BehaviorLab",
    "SamplerExplorer",
    "TreeExplorer",
    "compare_estimators",
    "compare_sampler",
]
