"""Seeded bugs. Each is one function of `helpers` replaced by a version with a common mistake.

A mutant that the tests let pass is a defect of the tests. Add one for every mistake that you can
imagine a tired author making, name it after the mistake, and say which test file must catch it.
They are found by name: `bugs_chapterNN.py`, each with a list MUTANTS.
"""

from importlib import import_module
from pathlib import Path

FILES = sorted(Path(__file__).parent.glob("bugs_chapter*.py"))
MUTANTS = [mutant for file in FILES for mutant in import_module(file.stem).MUTANTS]
