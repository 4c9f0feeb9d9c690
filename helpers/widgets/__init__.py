"""Thin controls around the figures of `plotting`. Core ipywidgets only; no pyplot.

One module a chapter; readers call them all as `widgets.Name`.
"""

from helpers.widgets.chapter01 import SamplerExplorer, TreeExplorer, compare_sampler
from helpers.widgets.chapter02 import CriticsExplorer, RewardBench, mix_critics, try_completion
from helpers.widgets.chapter03 import PAYMENTS, ValueExplorer, pay, tree_of_values
from helpers.widgets.chapter04 import BehaviorLab, compare_estimators
from helpers.widgets.chapter05 import SimplexPlayground, simplex_moves
from helpers.widgets.chapter06 import REWARDS, RewardLab, compare_baselines
from helpers.widgets.chapter07 import (
    LM_REWARDS,
    PRESETS,
    LanguageModelLab,
    completion_grammar,
    exact_values,
    laboratory_config,
    line_of_python,
    observed,
    share_of_reviews,
    show_samples,
)
from helpers.widgets.live import LiveRun, Run
from helpers.widgets.recordings import (
    BUGS,
    ROWS,
    RUNS,
    record_file,
    recorded,
    recorded_bugs,
    recorded_texts,
)

__all__ = [
    "BUGS",
    "BehaviorLab",
    "CriticsExplorer",
    "LM_REWARDS",
    "LanguageModelLab",
    "LiveRun",
    "PAYMENTS",
    "PRESETS",
    "REWARDS",
    "ROWS",
    "RUNS",
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
    "completion_grammar",
    "exact_values",
    "laboratory_config",
    "line_of_python",
    "mix_critics",
    "observed",
    "pay",
    "record_file",
    "recorded",
    "recorded_bugs",
    "recorded_texts",
    "share_of_reviews",
    "show_samples",
    "simplex_moves",
    "tree_of_values",
    "try_completion",
]
