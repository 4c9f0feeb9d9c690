"""Widget of chapter 06: the reward-and-baseline laboratory."""

import copy
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import torch
from matplotlib.figure import Figure

from course.ch06_baselines import figures
from course.exact import ascent, baselines, oracle
from course.exact.gradients import GradientMoments, GradientProblem
from course.exact.tables import TablePolicy
from course.kit import live, style, walker
from course.worlds.word_world import REWARDS, RewardFunction

MOST_WAYS = 6_000  # ways to fill a group that a slider has time for
ROWS = list[tuple[str, float, float, float]]


def compare_baselines(
    problems: Sequence[GradientProblem],
    num_actions: int,
    *,
    group_size: int,
    constant: float = 1.0,
    chosen: str = "",
    names: Sequence[str] = tuple(baselines.FAMILY),
) -> tuple[Figure, ROWS, list[str]]:
    """The laboratory's bars: every baseline's exact moments, least variance first.

    Args:
        problems: one a prompt, with parameters of its own; estimates are averaged over them.
        num_actions: A.
        group_size: K completions a prompt.
        constant: of the baseline "constant", reward units.
        chosen: the baseline to mark.
        names: which of `baselines.FAMILY`, “none” among them.
    Returns:
        The figure; the rows of `figures.moment_bars`, with labels; what is missing, and why.
    """
    found: dict[str, GradientMoments] = {}
    missing = []
    kinds = max(len(problem.rewards.unique()) for problem in problems)
    ways = math.comb(group_size + kinds - 1, kinds - 1)
    for name in names:
        try:
            member = baselines.member(name, group_size)
        except ValueError as error:
            missing.append(f"{baselines.FAMILY[name].label}: {error}")
            continue
        if member.group and ways > MOST_WAYS:
            missing.append(
                f"{member.label}: {kinds} different rewards fill a group of {group_size} in "
                f"{ways:,} ways, too many to add up at a slider's pace; take a smaller K."
            )
            continue
        sizes: dict[str, Any] = {"num_actions": num_actions, "group_size": group_size}
        found[name] = baselines.average(
            [baselines.moments(each, name, **sizes, constant=constant) for each in problems]
        )
    unit = found["none"].variance
    labels = {name: member.label for name, member in baselines.FAMILY.items()}
    labels["constant"] = f"constant {constant:g}"
    rows = [
        (labels[name], m.variance / max(unit, 1e-300), m.scale, m.angle)
        for name, m in found.items()
    ]
    rows.sort(key=lambda row: row[1])
    title = f"K = {group_size}, exact: "
    gradient = "∇L" if len(problems) == 1 else "∇J"
    marked = labels.get(chosen, "")
    figure = figures.moment_bars(rows, chosen=marked, title=title, gradient=gradient)
    return figure, rows, missing


class RewardLab(ipywidgets.VBox):
    """Choose a reward, a baseline, K, a temperature, prompts: exact bars, and live learning."""

    def __init__(
        self, table: TablePolicy, rewards: Mapping[str, RewardFunction] | None = None
    ) -> None:
        """Build the controls and draw once.

        Args:
            table: the policy whose estimates are compared, and where learning starts.
            rewards: name → the reader's own functions `(prompts, texts) → numbers`, offered
                first.
        """
        self.table, self._world = table, table.world
        self.rewards = {**(rewards or {}), **REWARDS}
        self._make_controls()
        self.image, self.table_of_numbers = walker.picture(), ipywidgets.HTML()
        self.note = ipywidgets.HTML()
        self._exact = (
            self.reward,
            self.prompts,
            self.baseline,
            self.constant,
            self.group_size,
            self.temperature,
        )
        for control in self._exact:
            control.observe(lambda _: self.redraw(), names="value")
        self.live = live.LiveRun(self._train, self._settings, self._draw, self._describe)
        rows = [
            ipywidgets.HBox(list(pair), layout={"flex_flow": "row wrap"})
            for pair in (
                self._exact[:2],
                self._exact[2:4],
                self._exact[4:],
                (self.learning_rate, self.steps),
                (self.seed,),
            )
        ]
        super().__init__(
            [*rows[:3], self.image, self.table_of_numbers, self.note, *rows[3:], self.live]
        )
        self.redraw()

    def _make_controls(self) -> None:
        """Sliders and choices, not yet connected."""
        wide: dict[str, Any] = {
            "style": {"description_width": "120px"},
            "layout": {"width": "360px"},
        }
        prompts = {p: (p,) for p in self._world.prompts} | {"all together": self._world.prompts}
        self.reward = ipywidgets.Dropdown(options=list(self.rewards), description="reward", **wide)
        self.prompts = ipywidgets.Dropdown(options=prompts, description="prompts", **wide)
        self.baseline = ipywidgets.Dropdown(
            options=[(each.label, name) for name, each in baselines.FAMILY.items()],
            value="leave_one_out",
            description="baseline",
            **wide,
        )
        self.constant = ipywidgets.FloatSlider(
            1.0, min=-3.0, max=12.0, step=0.5, description="constant (reward)", **wide
        )
        self.group_size = ipywidgets.IntSlider(4, min=1, max=8, description="group size K", **wide)
        self.temperature = ipywidgets.FloatSlider(
            1.0, min=0.4, max=2.0, step=0.1, description="temperature", **wide
        )
        self.learning_rate = ipywidgets.FloatLogSlider(
            1.0, min=-2, max=1, step=0.25, description="learning rate", **wide
        )
        self.steps = ipywidgets.IntSlider(
            300, min=20, max=2000, step=20, description="steps", **wide
        )
        self.seed = ipywidgets.IntText(0, description="seed", **wide)

    def problems(self) -> list[GradientProblem]:
        """The enumeration of each chosen prompt under the chosen reward and temperature."""
        return [
            baselines.table_problem(
                self.table,
                prompt,
                temperature=self.temperature.value,
                reward=self.rewards[self.reward.value],
            )
            for prompt in self.prompts.value
        ]

    def redraw(self) -> None:
        """Show the exact moments of every baseline, or in words why they cannot be shown."""
        try:
            figure, rows, missing = compare_baselines(
                self.problems(),
                self._world.num_actions,
                group_size=self.group_size.value,
                constant=self.constant.value,
                chosen=self.baseline.value,
            )
        except Exception as error:  # whatever the reader's own function raises
            what = html.escape(f"{type(error).__name__}: {error}")
            self.note.value = f"<b>The reward does not work: {what}</b>"
            return
        self.image.value = style.png(figure)
        cells = "".join(
            f"<tr><td style='text-align: left'>{name}</td><td>{variance:.4g}</td>"
            f"<td>{scale:.3f}</td><td>{degrees:.1f}°</td></tr>"
            for name, variance, scale, degrees in rows
        )
        self.table_of_numbers.value = (
            "<details><summary>the numbers</summary><table><tr><th>baseline</th>"
            "<th>variance / none</th><th>length / exact</th><th>angle</th></tr>"
            f"{cells}</table></details>"
        )
        self.note.value = "<br>".join(html.escape(line) for line in missing)

    def _settings(self) -> dict[str, Any]:
        baselines.member(self.baseline.value, self.group_size.value)
        name = self.reward.value
        try:
            for prompt in self.prompts.value:
                oracle.rewards(self._world, prompt, reward=self.rewards[name])
        except Exception as error:
            raise ValueError(f"The reward {name!r} does not work: {error}") from error
        return {
            "baseline": self.baseline.value,
            "group_size": self.group_size.value,
            "steps": self.steps.value,
            "learning_rate": self.learning_rate.value,
            "seed": self.seed.value,
            "prompts": self.prompts.value,
            "temperature": self.temperature.value,
            "constant": self.constant.value,
            "reward": name,
        }

    def _train(self, *, reward: str, learning_rate: float, seed: int, **settings: Any) -> Any:
        climber = copy.deepcopy(self.table)
        return ascent.climb(
            climber,
            [climber.logits],
            self._world,
            ascent.Settings(lr=learning_rate, reward=self.rewards[reward], **settings),
            generator=torch.Generator().manual_seed(seed),
        )

    def _describe(self, run: live.Run) -> str:
        ends = [f"{run.records[k]['objective']:+.3f}" for k in (0, -1)] if run.records else []
        values = ", ".join(
            f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value!r}"
            for key, value in run.settings.items()
        )
        return f"{values}; {max(0, len(run.records) - 1)} steps, exact J {' → '.join(ends)}"

    def _draw(self, runs: Sequence[live.Run]) -> Figure:
        names = set(run.settings["reward"] for run in runs)
        best = self._best(runs[-1].settings if runs else None)
        curves = [
            (
                f"{k}: {baselines.FAMILY[run.settings['baseline']].label}, "
                f"K = {run.settings['group_size']}",
                [record["objective"] for record in list(run.records)],
            )
            for k, run in enumerate(runs, 1)
        ]
        title = "learning: press Run" if not runs else f"black: the best possible; {len(runs)} runs"
        if len(names) > 1:
            title += " — with different rewards"
        return figures.objective_curves(curves[-7:], best=best, title=title)

    def _best(self, chosen: dict[str, Any] | None) -> float:
        reward = self.rewards[chosen["reward"]] if chosen else None
        prompts = chosen["prompts"] if chosen else self._world.prompts
        paid = [oracle.rewards(self._world, prompt, reward=reward).max() for prompt in prompts]
        return float(torch.stack(paid).mean())
