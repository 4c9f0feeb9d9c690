"""What a seeded bug is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One seeded bug."""

    target: str  # module.function, or module.Class.method
    replacement: Callable[..., Any]
    tests: tuple[str, ...]  # files of which at least one test must fail

    @property
    def name(self) -> str:
        return self.replacement.__name__
