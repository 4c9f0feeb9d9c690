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
from helpers.plotting.chapter03 import (
    credit,
    discount_curves,
    number_tree,
    q_and_advantage,
    rewards_along,
    value_tree,
)
from helpers.plotting.chapter06 import (
    bernoulli_curves,
    clouds,
    difficulty,
    learning_curves,
    moment_bars,
    parabolas,
    trade_off,
)
from helpers.plotting.style import COLORS, png, show, use_style

__all__ = [
    "credit",
    "discount_curves",
    "number_tree",
    "q_and_advantage",
    "rewards_along",
    "value_tree",
    "bernoulli_curves",
    "clouds",
    "difficulty",
    "learning_curves",
    "moment_bars",
    "parabolas",
    "trade_off",
    "COLORS",
    "Figure",
    "conditionals",
    "diagonal",
    "icicle",
    "loop_diagram",
    "png",
    "prefix_tree",
    "reward_and_share",
    "running_product",
    "sampled_against_exact",
    "samplers",
    "show",
    "use_style",
]
