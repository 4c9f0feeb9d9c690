"""Widget of chapter 07: the reward laboratory, a language model that learns before your eyes."""

import copy
import dataclasses
import html
import math
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import ipywidgets
from matplotlib.figure import Figure

from course.ch07_language_model import figures
from course.kit import live
from course.worlds import reviews, rewards
from course.worlds.reviews import REVIEW_PROMPTS
from course.worlds.rewards import LM_REWARDS
from helpers import models, runlog, settings, train
from helpers.models import LanguageModel

CHOICES = (
    "baseline",
    "kl_coef",
    "temperature",
    "max_new_tokens",
    "group_size",
    "lr",
    "steps",
    "seed",
)
SHORT = {
    "baseline": "",
    "temperature": "T",
    "max_new_tokens": "limit",
    "group_size": "K",
    "lr": "lr",
    "steps": "steps",
    "seed": "seed",
}
COMPREHENSIONS = ("<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>")  # nobody's function
LABEL = 36  # characters of a run's label
SAMPLES = 4  # texts of a record that are shown
OWN = "(your own choice)"  # what stands where a preset's name would

# Name → reward, and what is not the default of `laboratory_config`. Tuned on 5 seeds each.
PRESETS: dict[str, dict[str, Any]] = {
    "praise, no KL": {"reward": "praise"},
    "praise, with KL": {"reward": "praise", "kl_coef": 1.0},
    "length": {"reward": "length"},
    "a loophole: praise per word": {"reward": "praise per word"},
    "one word, large steps": {"reward": "times “wonderful”", "lr": 1e-3},
    "praise + 10, no baseline": {"reward": "praise + 10", "baseline": "none", "steps": 40},
    "praise + 10, leave-one-out": {"reward": "praise + 10", "steps": 40},
}


def laboratory_config(**choices: Any) -> settings.Config:
    """The laboratory's settings: `settings.Config` with 50 steps, and what is chosen.

    Args:
        choices: fields of `settings.Config` by name; a name of `PRESETS`' `reward` is left out.
    """
    choices.pop("reward", None)
    return settings.Config(**{"steps": 50, **choices})


def exact_values() -> dict[str, float]:
    """What the panels of `figures.laboratory` show if the grammar writes the completions."""
    after = reviews.completion_grammar()
    return {
        "reviews": 1.0,
        "entropy": after.entropy(),
        "length": after.expected_length() + 1,  # and the token that ends
    }


def observed(record: runlog.Record, *, reviews: bool) -> dict[str, Any]:
    """What the laboratory keeps of a step: its numbers, and a few of its texts.

    Args:
        record: of `train.train`.
        reviews: whether to parse all texts; else their share of reviews is nan.
    Returns:
        `Record.numbers`, `reviews`, and `samples`: (prompt, completion, reward) of texts from
        different groups.
    """
    rows = list(zip(record.prompts, record.completions, record.rewards, strict=True))
    stride = max(1, len(rows) // SAMPLES)
    share = rewards.share_of_reviews(record.prompts, record.completions) if reviews else math.nan
    return {**record.numbers(), "reviews": share, "samples": rows[::stride][:SAMPLES]}


class LanguageModelLab(ipywidgets.VBox):
    """Choose or write a reward, press Run, and watch a language model change its writing.

    Each run trains a fresh copy of the model; a new laboratory ends the runs of older ones.
    """

    _open: ClassVar["weakref.WeakSet[LanguageModelLab]"] = weakref.WeakSet()

    def __init__(
        self,
        lm: LanguageModel | None = None,
        rewards: Mapping[str, settings.Reward] | None = None,
        prompts: Sequence[str] | None = None,
    ) -> None:
        """Build the controls; nothing is trained yet.

        Args:
            lm: where every run starts, and what its KL is measured to; it is never trained
                itself. None takes the shipped reviews model.
            rewards: name → the reader's own functions `(prompts, completions) → numbers`, offered
                first.
            prompts: None takes those of the reviews world, and with them the exact values and
                the share of reviews.
        """
        for other in list(self._open):
            other.live.stop()
        self.lm = lm or models.load(models.REVIEWS_MODEL)
        self.rewards = {**(rewards or {}), **LM_REWARDS}
        self.prompts = list(REVIEW_PROMPTS if prompts is None else prompts)
        self._reviews = prompts is None
        self._exact = exact_values() if self._reviews else {}
        self.preset = ipywidgets.Dropdown(
            options=[OWN, *PRESETS],
            description="preset",
            style={"description_width": "60px"},
            layout={"width": "360px"},
        )
        self.controls = _controls(list(self.rewards), laboratory_config())
        self._taking = False  # whether a preset is setting the controls
        self.preset.observe(lambda _: self._take_preset(), names="value")
        for control in self.controls.values():
            control.observe(lambda _: self._leave_preset(), names="value")
        self.samples = ipywidgets.HTML()
        self.live: live.LiveRun = live.LiveRun(
            self._train, self._settings, self._draw, self._describe
        )
        buttons, image, history = self.live.children
        self.live.children = (buttons, image, self.samples, history)
        boxes = list(self.controls.values())
        rows = [
            ipywidgets.HBox(boxes[k : k + 2], layout={"flex_flow": "row wrap"})
            for k in range(0, len(boxes), 2)
        ]
        super().__init__([self.preset, *rows, self.live])
        self._open.add(self)

    def close(self) -> None:
        """End the run and take the widget off the page."""
        self.live.stop()
        super().close()

    def config(self) -> settings.Config:
        """The settings of the controls.

        Raises:
            ValueError: they cannot work, or not together.
        """
        config = laboratory_config(**{name: self.controls[name].value for name in CHOICES})
        # Another module around the same weights: enough to be checked as policy and reference.
        start = dataclasses.replace(self.lm, model=copy.copy(self.lm.model))
        reward = self.rewards[self.controls["reward"].value]
        settings.check(config, start, self.prompts, reward, self.lm)
        return config

    def _take_preset(self) -> None:
        chosen = PRESETS.get(self.preset.value)
        if chosen is None:
            return
        config = laboratory_config(**chosen)
        self._taking = True
        for name, control in self.controls.items():
            control.value = chosen["reward"] if name == "reward" else getattr(config, name)
        self._taking = False

    def _leave_preset(self) -> None:
        """A preset's name stands over its own settings only."""
        if not self._taking:
            self.preset.value = OWN

    def _settings(self) -> dict[str, Any]:
        return {"reward": self.controls["reward"].value, "config": self.config()}

    def _train(self, *, reward: str, config: settings.Config) -> Iterator[dict[str, Any]]:
        policy = dataclasses.replace(self.lm, model=copy.deepcopy(self.lm.model))
        records = train.train(
            policy, self.prompts, _readers(self.rewards[reward]), config, ref_policy=self.lm
        )
        for record in records:
            yield observed(record, reviews=self._reviews)

    def _describe(self, run: live.Run) -> str:
        return f"reward {run.settings['reward']!r}, {line_of_python(run.settings['config'])}"

    def _draw(self, runs: Sequence[live.Run]) -> Figure:
        self.samples.value = show_samples(runs[-1].records) if runs else ""
        curves = {}
        for label, run in zip(labels(runs), runs, strict=True):
            records = list(run.records)
            curves[label] = {
                name: [float(record[name]) for record in records] for name in figures.PANELS
            }
        exact = dict(self._exact)
        if {run.settings["reward"] for run in runs} == {"praise"} and self._reviews:
            exact["reward"] = reviews.completion_grammar().expected_score()
        title = f"{len(runs)} run{'s' * (len(runs) > 1)}" if runs else "press Run"
        if len({run.settings["reward"] for run in runs}) > 1:
            title += ", rewards in different units"
        return figures.laboratory(curves, exact=exact, title=title)


def labels(runs: Sequence[live.Run]) -> list[str]:
    """What tells runs apart: number, reward and β, then the settings that are not all the same.

    Args:
        runs: of the laboratory.
    Returns:
        One label a run, cut to what fits beside the curves.
    """
    configs = [run.settings["config"] for run in runs]
    differ = [name for name in SHORT if len({getattr(c, name) for c in configs}) > 1]
    found = []
    for k, (run, config) in enumerate(zip(runs, configs, strict=True), 1):
        values = vars(config) | {"baseline": _named(config.baseline)}
        more = [f"{SHORT[name]} {values[name]}".strip() for name in differ if name != "kl_coef"]
        label = ", ".join([f"{k}: {run.settings['reward']}", f"β = {config.kl_coef:g}", *more])
        found.append(label if len(label) <= LABEL else label[: LABEL - 1] + "…")
    return found


def _named(baseline: str) -> str:
    """A baseline's label for people, which must say what it is without the word before it."""
    return "no baseline" if baseline == "none" else settings.BASELINES[baseline].label


def line_of_python(config: settings.Config) -> str:
    """The `train.Config` that repeats a run of the laboratory, as one line of Python."""
    values = ", ".join(f"{name}={getattr(config, name)!r}" for name in CHOICES)
    return f"train.Config({values})"


def show_samples(records: Sequence[Mapping[str, Any]]) -> str:
    """Texts of the first step and of the last, side by side with their rewards, as HTML.

    Args:
        records: of `observed`; none gives an empty string.
    """
    records = list(records)
    blocks = []
    for when, record in (("before", records[:1]), ("now", records[1:][-1:])):
        for each in record:
            lines = "\n".join(
                f"{paid:+7.2f}  {prompt} | {text}" for prompt, text, paid in each["samples"]
            )
            blocks.append(
                f"<b>{when}, step {each['step']}</b>: reward, prompt | completion"
                f"<pre style='white-space: pre-wrap; line-height: 1.3; margin: 2px 0'>"
                f"{html.escape(lines)}</pre>"
            )
    return "".join(blocks)


def _readers(reward: settings.Reward) -> settings.Reward:
    """The same function; an error's trace ends in it, and not in a library that it called."""

    def call(prompts: list[str], completions: list[str]) -> Any:
        try:
            return reward(prompts, completions)
        except Exception as error:
            own, trace = None, error.__traceback__
            code = getattr(reward, "__code__", None)
            while trace is not None:
                here = trace.tb_frame.f_code
                if code is not None and here.co_filename == code.co_filename:
                    inside = own is not None and here.co_name in COMPREHENSIONS
                    own = own if inside else trace
                trace = trace.tb_next
            if own is None:
                raise
            last = types.TracebackType(None, own.tb_frame, own.tb_lasti, own.tb_lineno)
            raise error.with_traceback(last) from None

    return call


def _controls(names: list[str], config: settings.Config) -> dict[str, Any]:
    """One control a setting, with its unit and a sensible range."""
    look: dict[str, Any] = {"style": {"description_width": "170px"}, "layout": {"width": "360px"}}
    slider: Callable[..., Any] = ipywidgets.FloatSlider
    return {
        "reward": ipywidgets.Dropdown(options=names, description="reward", **look),
        "baseline": ipywidgets.Dropdown(
            options=[(each.label, name) for name, each in settings.BASELINES.items()],
            value=config.baseline,
            description="baseline",
            **look,
        ),
        "kl_coef": slider(
            config.kl_coef,
            min=0.0,
            max=4.0,
            step=0.05,
            readout_format=".2f",
            description="KL weight β (reward / nat)",
            **look,
        ),
        "temperature": slider(
            config.temperature, min=0.3, max=2.0, step=0.1, description="temperature", **look
        ),
        "max_new_tokens": ipywidgets.IntText(
            config.max_new_tokens, description="length limit (tokens)", **look
        ),
        "group_size": ipywidgets.IntSlider(
            config.group_size, min=1, max=32, description="texts a prompt, K", **look
        ),
        "lr": ipywidgets.FloatLogSlider(
            config.lr,
            min=-5,
            max=-2,
            step=0.1,
            readout_format=".1e",
            description="learning rate",
            **look,
        ),
        "steps": ipywidgets.IntSlider(
            config.steps, min=1, max=300, description="steps of ascent", **look
        ),
        "seed": ipywidgets.IntText(config.seed, description="seed (≥ 0)", **look),
    }
