"""Seeded bugs in the reward laboratory."""

import copy
import dataclasses

from mutant import Mutant

from helpers import train, worlds
from helpers.widgets import chapter07 as lab

LAB = ("test_widgets_chapter07.py",)


def trains_the_shipped_model_itself(self, *, reward, config):
    start = dataclasses.replace(self.lm, model=copy.deepcopy(self.lm.model))
    for record in train.train(
        self.lm, self.prompts, self.rewards[reward], config, ref_policy=start
    ):
        yield lab.observed(record, reviews=self._reviews)


def forgets_the_seed(**choices):
    choices.pop("reward", None)
    choices.pop("seed", None)
    return train.Config(**{"steps": 50, **choices})


def forgets_the_temperature_in_print(config):
    values = ", ".join(f"{k}={getattr(config, k)!r}" for k in lab.CHOICES if k != "temperature")
    return f"train.Config({values})"


def librarys_line_is_shown(reward):
    return reward


def whole_reviews_for_completions():
    reviews = worlds.REVIEWS
    return {"reviews": 1.0, "entropy": reviews.entropy(), "length": reviews.expected_length() + 1}


def settings_are_not_checked(self):
    return lab.laboratory_config(**{k: self.controls[k].value for k in lab.CHOICES})


MUTANTS = [
    Mutant("widgets.chapter07.LanguageModelLab._train", trains_the_shipped_model_itself, LAB),
    Mutant("widgets.chapter07.laboratory_config", forgets_the_seed, LAB),
    Mutant("widgets.chapter07.line_of_python", forgets_the_temperature_in_print, LAB),
    Mutant("widgets.chapter07._readers", librarys_line_is_shown, LAB),
    Mutant("widgets.exact_values", whole_reviews_for_completions, LAB),
    Mutant("widgets.chapter07.LanguageModelLab.config", settings_are_not_checked, LAB),
]
