"""Widget of chapter 04: how far may the writer be from the policy that one asks about?"""

import ipywidgets
import torch
from matplotlib.figure import Figure

from course.ch04_whose_texts import figures
from course.exact import off_policy, tables, values
from course.exact.oracle import Policy
from course.kit import style, walker
from course.worlds.word_world import TokenWorld


def compare_estimators(
    target: Policy,
    behavior: Policy,
    world: TokenWorld,
    prompt: str,
    *,
    title: str,
    count: int = 16,
    per_word: bool = False,
) -> tuple[Figure, dict[str, off_policy.Moments], float]:
    """The figure and the exact numbers of every estimator, for one behaviour policy.

    Args:
        target: token ids → logits: π; a table is quick.
        behavior: token ids → logits: μ, whose texts are used.
        world: what to enumerate.
        prompt: one of the world's prompts.
        title: who wrote.
        count: N, texts in an estimate.
        per_word: reward each word by shaping, as chapter 03 does, instead of all at the end.
    Returns:
        The figure; name → exact moments, "own texts" (N texts of π) first; and the expected
        sample size, in texts.
    """
    rewards = values.transition_rewards(world, prompt)
    if per_word:
        rewards = values.shape_rewards(rewards, values.stopping_rewards(rewards, world))
    problem = off_policy.off_policy(target, behavior, world, prompt, rewards=rewards)
    own = off_policy.off_policy(target, target, world, prompt, rewards=rewards)
    found = {
        "own texts": off_policy.of_mean(own.probability, own.returns, count=count, truth=own.truth),
        **off_policy.of_each_kind(problem, count=count),
    }
    size = off_policy.expected_sample_size(problem.probability, problem.ratio, count=count)
    figure = figures.estimators(
        {name: (m.mean, abs(m.bias), m.variance**0.5) for name, m in found.items()},
        exact=problem.truth,
        title=f"{count:,} texts of {title}",
    )
    return figure, found, size


class BehaviorLab(ipywidgets.VBox):
    """Temperature and ε of the writer, N, prompt, reward → exact bias and spread."""

    def __init__(self, target: Policy, world: TokenWorld) -> None:
        """Build the controls and draw once.

        Args:
            target: token ids → logits: π.
            world: what to enumerate.
        """
        self._target, self._world = tables.tabulate(target, world), world
        self.prompt = walker.prompt_buttons(world)
        slider = {"style": {"description_width": "140px"}, "layout": {"width": "470px"}}
        self.temperature = ipywidgets.FloatSlider(
            1.0, min=0.4, max=3.0, step=0.1, description="temperature of μ", **slider
        )
        self.epsilon = ipywidgets.FloatSlider(
            0.0, min=0.0, max=1.0, step=0.05, description="ε of μ", **slider
        )
        self.count = ipywidgets.SelectionSlider(
            options=[4**k for k in range(7)], value=16, description="N (texts)", **slider
        )
        self.reward = ipywidgets.ToggleButtons(
            options=[("at the end", False), ("per word", True)],
            description="reward",
            style={"button_width": "90px"},
        )
        self.image, self.state = walker.picture(), ipywidgets.HTML()
        self._controls = (self.prompt, self.reward, self.temperature, self.epsilon, self.count)
        for control in self._controls:
            control.observe(lambda _: self.draw(), names="value")
        super().__init__([*self._controls, self.state, self.image])
        self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """Recompute the exact moments and redraw."""
        count = self.count.value
        temperature, epsilon = self.temperature.value, self.epsilon.value
        behavior = tables.exploring(
            self._target, self._world, temperature=temperature, epsilon=epsilon
        )
        figure, found, size = compare_estimators(
            self._target,
            behavior,
            self._world,
            self.prompt.value,
            count=count,
            per_word=self.reward.value,
            title=f"μ: temperature {temperature:g}, ε {epsilon:g}",
        )
        errors = {name: m.rmse for name, m in found.items() if name != "own texts"}
        best = min(errors, key=lambda name: errors[name])
        self.state.value = (
            f"{count:,} texts of μ are worth about <b>{size:.1f}</b> of π; &nbsp; smallest "
            f"error: <b>{best}</b>, RMSE {errors[best]:.3f} (own texts: "
            f"{found['own texts'].rmse:.3f})"
        )
        self.image.value = style.png(figure)
