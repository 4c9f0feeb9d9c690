"""Seeded bugs in the reward laboratory."""

import copy
import dataclasses

from course.ch07_language_model import widgets
from course.worlds.reviews import REVIEWS
from helpers import train
from helpers.settings import Config
from tests.mutant import Mutant

LAB = ("ch07_language_model/test_widgets.py",)


def trains_the_shipped_model_itself(self, *, reward, config):
    start = dataclasses.replace(self.lm, model=copy.deepcopy(self.lm.model))
    for record in train.train(
        self.lm, self.prompts, self.rewards[reward], config, ref_policy=start
    ):
        yield widgets.observed(record, reviews=self._reviews)


def forgets_the_seed(**choices):
    choices.pop("reward", None)
    choices.pop("seed", None)
    return Config(**{"steps": 50, **choices})


def forgets_the_temperature_in_print(config):
    values = ", ".join(f"{k}={getattr(config, k)!r}" for k in widgets.CHOICES if k != "temperature")
    return f"Config({values})"


def librarys_line_is_shown(reward):
    return reward


def whole_reviews_for_completions():
    reviews = REVIEWS
    return {"reviews": 1.0, "entropy": reviews.entropy(), "length": reviews.expected_length() + 1}


def settings_are_not_checked(self):
    return widgets.laboratory_config(**{k: self.controls[k].value for k in widgets.CHOICES})


MUTANTS = [
    Mutant(
        "course.ch07_language_model.widgets.LanguageModelLab._train",
        trains_the_shipped_model_itself,
        LAB,
    ),
    Mutant("course.ch07_language_model.widgets.laboratory_config", forgets_the_seed, LAB),
    Mutant(
        "course.ch07_language_model.widgets.line_of_python", forgets_the_temperature_in_print, LAB
    ),
    Mutant("course.ch07_language_model.widgets._readers", librarys_line_is_shown, LAB),
    Mutant("course.ch07_language_model.widgets.exact_values", whole_reviews_for_completions, LAB),
    Mutant(
        "course.ch07_language_model.widgets.LanguageModelLab.config", settings_are_not_checked, LAB
    ),
]
