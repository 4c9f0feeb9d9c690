"""Seeded bugs in the figures of chapter 07."""

import math

from course.ch07_language_model import figures
from tests.mutant import Mutant

FIGURES = ("ch07_language_model/test_figures.py",)
STEPS, SYMPTOMS = figures.steps_to_threshold, figures.symptoms


def drops_who_never_arrives(panels, *, most, title):
    kept = {
        name: {m: [x for x in ends if not math.isnan(x)] for m, ends in found.items()}
        for name, found in panels.items()
    }
    return STEPS(kept, most=most, title=title)


def mean_for_median(panels, *, most, title):
    means = {
        name: {m: [sum(ends) / len(ends)] * len(ends) for m, ends in found.items()}
        for name, found in panels.items()
    }
    return STEPS(means, most=most, title=title)


def the_right_loop_in_front(sets, right, *, exact, limits):
    swapped = dict.fromkeys(sets, right)
    return SYMPTOMS(swapped, next(iter(sets.values())), exact=exact, limits=limits)


MUTANTS = [
    Mutant(
        "course.ch07_language_model.figures.steps_to_threshold", drops_who_never_arrives, FIGURES
    ),
    Mutant("course.ch07_language_model.figures.steps_to_threshold", mean_for_median, FIGURES),
    Mutant("course.ch07_language_model.figures.symptoms", the_right_loop_in_front, FIGURES),
]
