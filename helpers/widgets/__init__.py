"""Thin controls around the figures of `plotting`. Core ipywidgets only; no pyplot.

One module a chapter; readers call them all as `widgets.Name`.
"""

from helpers.widgets.chapter01 import SamplerExplorer, TreeExplorer, compare_sampler

__all__ = ["SamplerExplorer", "TreeExplorer", "compare_sampler"]
