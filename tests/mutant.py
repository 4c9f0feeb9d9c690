"""What a seeded bug is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One seeded bug."""

    target: str  # package.module.function, or package.module.Class.method
    replacement: Callable[..., Any] | property
    tests: tuple[str, ...]  # files below tests/, of which at least one test must fail

    @property
    def name(self) -> str:
        function = getattr(self.replacement, "fget", self.replacement)
        return function.__name__
