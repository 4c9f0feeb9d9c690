"""The book's machinery: the worlds, the exact answers, the kit, and one room for each chapter.

`course` imports `helpers`, never the reverse. Within it imports go one way as well:
`worlds` (what is written about) → `exact` (every text listed, every answer known) →
`kit` (what figures, widgets and checkers share) → the rooms `chNN_…`; no room imports another.
A room holds a chapter's text `NN_….md`, its `figures`, `widgets` and `checks`.
"""

import importlib.util
from pathlib import Path

if not __debug__:
    raise RuntimeError(
        "Python runs without asserts (-O, or PYTHONOPTIMIZE is set). The checks of this course are "
        "asserts, so that every wrong answer would be called right. Start it without."
    )

_found = importlib.util.find_spec("helpers")
_here = Path(__file__).resolve().parents[1] / "helpers" / "__init__.py"
if _found is None or _found.origin is None or Path(_found.origin).resolve() != _here:
    raise ImportError(
        f"another `helpers` stands in the way of the course's own: {_found and _found.origin} was "
        f"found, and {_here} is wanted. Rename that one, or start Python in another folder."
    )

import helpers  # noqa: E402, F401 - which settles the number of threads in every kernel
