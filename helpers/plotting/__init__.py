"""The course's figures. Every function takes plain numbers and returns a matplotlib Figure.

Colour is a role, the same everywhere, and roles differ by line style or marker too. No function
here uses pyplot: a figure belongs to who made it, which is what widgets and threads need.
One module a chapter; readers call them all as `plotting.name`.
"""

from matplotlib.figure import Figure

from helpers.plotting.chapter00 import loop_diagram, reward_and_share
from helpers.plotting.chapter01 import (
    conditionals,
    diagonal,
    icicle,
    prefix_tree,
    running_product,
    sampled_against_exact,
    samplers,
)
from helpers.plotting.chapter04 import (
    estimators,
    learning_curves,
    maximisation_bias,
    running_estimates,
    two_answers,
    variance_growth,
)
from helpers.plotting.style import COLORS, png, show, use_style

__all__ = [
    "COLORS",
    "Figure",
    "conditionals",
    "diagonal",
    "estimators",
    "icicle",
    "learning_curves",
    "loop_diagram",
    "maximisation_bias",
    "png",
    "prefix_tree",
    "reward_and_share",
    "running_estimates",
    "running_product",
    "sampled_against_exact",
    "samplers",
    "show",
    "two_answers",
    "use_style",
    "variance_growth",
]
