"""Seeded bugs. Each is one function of `helpers` replaced by a version with a common mistake.

A mutant that the tests let pass is a defect of the tests. Add one for every mistake that you can
imagine a tired author making, name it after the mistake, and say which test file must catch it.
"""

import bugs_chapter01
import bugs_chapter03
import bugs_chapter06

MUTANTS = [*bugs_chapter01.MUTANTS, *bugs_chapter03.MUTANTS, *bugs_chapter06.MUTANTS]
