"""Widget of chapter 05: gradient ascent on the simplex of three texts."""

from dataclasses import dataclass
from typing import Any

import ipywidgets
import torch
from torch import Tensor

from course.ch05_reinforce import figures
from course.exact import ascent, gradients, tables
from course.kit import style, walker
from course.worlds.word_world import TokenWorld

WORDS = ("awful", "decent", "superb")
REWARDS = {
    "−1, +1, +2": (-1.0, 1.0, 2.0),
    "0, 0, +1: only one is paid": (0.0, 0.0, 1.0),
    "−1, +2, +2: a tie": (-1.0, 2.0, 2.0),
    "−2, −1, 0: nothing is good": (-2.0, -1.0, 0.0),
}
STARTS = {
    "uniform": (0.0, 0.0, 0.0),
    "fond of “awful” (94 %)": (3.5, 0.0, 0.0),
    "fond of “decent” (94 %)": (0.0, 3.5, 0.0),
    "“superb” is rare (1 %)": (2.0, 2.0, -2.0),
}
BATCHES = 30


@dataclass(frozen=True)
class Moves:
    """Where one step would lead from here. All rows are three probabilities."""

    start: list[float]
    tips: list[list[float]]  # one sampled batch each
    mean: list[float]  # the mean of all batches
    exact: list[float]  # the exact gradient
    estimates: Tensor  # (BATCHES, 3) the estimates behind `tips`, by the logits
    moments: gradients.GradientMoments  # of a batch's estimate, exact


def simplex_moves(world: TokenWorld, logits: Tensor, *, lr: float, count: int, seed: int) -> Moves:
    """One step from a point of the simplex: exact, and from 30 batches of sampled texts.

    Args:
        world: three texts of one word.
        logits: (3,) float, where the policy is.
        lr: η.
        count: N, texts a batch.
        seed: of the batches.
    Returns:
        The tips of the arrows, and exact mean and variance.
    """
    table = tables.TablePolicy(world)
    with torch.no_grad():
        table.logits.copy_(logits.view_as(table.logits))
    problem = gradients.gradient_problem(table, [table.logits], world, world.prompts[0])
    terms = problem.rewards[:, None] * problem.scores  # (3, 3)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.multinomial(
        problem.probability.expand(BATCHES, -1), count, replacement=True, generator=generator
    )  # (30, N)
    estimates = terms[draws].mean(1)

    def tip(gradient: Tensor) -> list[float]:
        return [float(p) for p in (logits + lr * gradient).softmax(-1)]

    return Moves(
        start=logits.softmax(-1).tolist(),
        tips=[tip(gradient) for gradient in estimates],
        mean=tip(estimates.mean(0)),
        exact=tip(problem.truth),
        estimates=estimates,
        moments=gradients.of_terms(problem, terms, count=count),
    )


class SimplexPlayground(ipywidgets.VBox):
    """Choose rewards, batch size, learning rate and start; then step, exactly or by samples."""

    def __init__(self) -> None:
        """Build the controls and draw the first picture."""
        self._make_controls()
        self.image, self.state = walker.picture(), ipywidgets.HTML()
        self.preset.observe(self._take_preset, names="value")
        for control in (*self.rewards, self.shift, self.begin):
            control.observe(lambda _: self.restart(), names="value")
        for control in (self.count, self.lr):
            control.observe(lambda _: self.redraw(), names="value")
        self.exact_step.on_click(lambda _: self.step(sampled=False))
        self.sampled_step.on_click(lambda _: self.step(sampled=True))
        self.reset.on_click(lambda _: self.restart())
        self._quiet = False
        super().__init__(
            [
                ipywidgets.HBox(
                    [
                        ipywidgets.VBox([self.preset, *self.rewards]),
                        ipywidgets.VBox([self.shift, self.count, self.lr, self.begin]),
                    ],
                    layout={"flex_flow": "row wrap"},
                ),
                ipywidgets.HBox([self.exact_step, self.sampled_step, self.reset]),
                self.state,
                self.image,
            ]
        )
        self.restart()

    def _make_controls(self) -> None:
        """Sliders, choices and buttons, not yet connected."""
        wide: dict[str, Any] = {
            "style": {"description_width": "170px"},
            "layout": {"width": "390px"},
        }
        self.preset = ipywidgets.Dropdown(
            options=list(REWARDS), description="rewards of the texts", **wide
        )
        self.rewards = [
            ipywidgets.FloatSlider(
                value, min=-3, max=3, step=0.5, description=f"R(“{word}”)", **wide
            )
            for word, value in zip(WORDS, REWARDS[self.preset.value], strict=True)
        ]
        self.shift = ipywidgets.FloatSlider(
            0, min=-10, max=10, step=1, description="added to each reward", **wide
        )
        self.count = ipywidgets.SelectionSlider(
            options=[1, 2, 4, 8, 16, 32, 64, 128, 256],
            value=16,
            description="N, texts a batch",
            **wide,
        )
        self.lr = ipywidgets.FloatLogSlider(
            1.0, base=10, min=-1, max=1, step=0.1, description="learning rate η", **wide
        )
        self.begin = ipywidgets.Dropdown(options=list(STARTS), description="start", **wide)
        button = {"layout": {"width": "150px"}}
        self.exact_step = ipywidgets.Button(description="step (exact)", **button)
        self.sampled_step = ipywidgets.Button(description="step (sampled)", **button)
        self.reset = ipywidgets.Button(description="reset", **button)

    def restart(self) -> None:
        """Back to the start, with no path behind."""
        if self._quiet:
            return
        paid = [slider.value + self.shift.value for slider in self.rewards]
        self._world = ascent.bandit(dict(zip(WORDS, paid, strict=True)))
        start = torch.tensor(STARTS[self.begin.value], dtype=torch.float64)
        self._logits = {"exact": start, "sampled": start}
        self._paths = {name: [start.softmax(-1).tolist()] for name in self._logits}
        self._last = "exact"
        self._seed = 0
        self.redraw()

    def step(self, *, sampled: bool) -> None:
        """One step of ascent, on the exact or on the sampled path.

        Args:
            sampled: follow the first batch of N texts; otherwise the exact gradient.
        """
        name = "sampled" if sampled else "exact"
        moves = self.moves(name)
        gradient = moves.estimates[0] if sampled else moves.moments.truth
        self._logits[name] = self._logits[name] + self.lr.value * gradient
        self._paths[name].append(self._logits[name].softmax(-1).tolist())
        self._seed += sampled
        self._last = name
        self.redraw()

    def moves(self, name: str) -> Moves:
        """The arrows at the end of one of the paths.

        Args:
            name: "exact" or "sampled".
        Returns:
            What `simplex_moves` gives for the controls' values.
        """
        return simplex_moves(
            self._world,
            self._logits[name],
            lr=self.lr.value,
            count=self.count.value,
            seed=self._seed,
        )

    def redraw(self) -> None:
        """Draw the arrows where the last step ended, the paths, and the exact numbers."""
        moves = self.moves(self._last)
        paid = [slider.value + self.shift.value for slider in self.rewards]
        figure = figures.playground(
            WORDS,
            paid,
            moves.start,
            moves.tips,
            moves.mean,
            moves.exact,
            self._paths,
            title=f"{BATCHES} batches of N = {self.count.value} (thin), their mean, exact (dashed)",
        )
        length = float(moves.moments.truth.norm())
        spread = moves.moments.variance**0.5
        value = sum(p * r for p, r in zip(moves.start, paid, strict=True))
        relative = f"{spread / length:.2f} ‖∇J‖" if length > 1e-12 else "∇J = 0 here"
        self.state.value = (
            f"exact J = <b>{value:+.3f}</b> reward units, ‖∇J‖ = <b>{length:.3f}</b>, "
            f"a batch strays from it by <b>{spread:.3f}</b> (root mean square), {relative}"
        )
        self.image.value = style.png(figure)

    def _take_preset(self, change: dict[str, Any]) -> None:
        """Set the three sliders at once and draw one picture, not three."""
        self._quiet = True
        for slider, value in zip(self.rewards, REWARDS[change["new"]], strict=True):
            slider.value = value
        self._quiet = False
        self.restart()
