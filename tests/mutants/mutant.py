"""What a seeded bug is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One seeded bug."""

    target: str  # module.function, or module.Class.method
    replacement: Callable[..., Any] | property
    tests: tuple[str, ...]  # files of which at least one test must fail

    @property
    def name(self) -> str:
        function = getattr(self.replacement, "fget", self.replacement)
        return function.__name__
