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
from helpers.plotting.chapter02 import (
    entropy_plus_kl,
    gradient_norms,
    honest_and_gaming,
    learning_curve,
    two_critics,
    two_teachers,
)
from helpers.plotting.chapter03 import (
    colored_tree,
    credit,
    discount_curves,
    number_tree,
    q_and_advantage,
    rewards_along,
    value_tree,
)
from helpers.plotting.chapter04 import (
    estimators,
    learning_curves,
    maximisation_bias,
    mean_and_spread,
    running_estimates,
    two_answers,
    variance_growth,
)
from helpers.plotting.chapter05 import (
    ascent_curves,
    curves,
    error_curves,
    estimator_bars,
    gradient_cloud,
    playground,
    simplex,
)
from helpers.plotting.chapter06 import (
    bernoulli_curves,
    clouds,
    difficulty,
    moment_bars,
    objective_curves,
    parabolas,
    trade_off,
)
from helpers.plotting.chapter07 import PANELS, laboratory
from helpers.plotting.chapter07b import multiples, steps_to_threshold, symptoms, work
from helpers.plotting.style import COLORS, png, show, use_style

__all__ = [
    "COLORS",
    "Figure",
    "PANELS",
    "ascent_curves",
    "bernoulli_curves",
    "clouds",
    "colored_tree",
    "conditionals",
    "credit",
    "curves",
    "diagonal",
    "difficulty",
    "discount_curves",
    "entropy_plus_kl",
    "error_curves",
    "estimator_bars",
    "estimators",
    "gradient_cloud",
    "gradient_norms",
    "honest_and_gaming",
    "icicle",
    "laboratory",
    "learning_curve",
    "learning_curves",
    "loop_diagram",
    "maximisation_bias",
    "mean_and_spread",
    "moment_bars",
    "multiples",
    "number_tree",
    "objective_curves",
    "parabolas",
    "playground",
    "png",
    "prefix_tree",
    "q_and_advantage",
    "reward_and_share",
    "rewards_along",
    "running_estimates",
    "running_product",
    "sampled_against_exact",
    "samplers",
    "show",
    "simplex",
    "steps_to_threshold",
    "symptoms",
    "trade_off",
    "two_answers",
    "two_critics",
    "two_teachers",
    "use_style",
    "value_tree",
    "variance_growth",
    "work",
]
