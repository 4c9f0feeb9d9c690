"""Exercise checkers: each says "not attempted yet", passes, or names what is wrong.

A checker compares with the oracle, never with a second copy of the solution, and then tries the
usual mistakes one by one so that its message is a diagnosis.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def is_stub(exercise: str, value: Any) -> bool:
    """Whether an exercise's stub is still in place; says so if it is.

    Args:
        exercise: its number, such as "1.1".
        value: what the reader's function returned.
    """
    untouched = value is None or value is ...
    if untouched:
        print(f"Exercise {exercise}: not attempted yet.")
    return untouched


def passed(exercise: str, note: str) -> None:
    """Say that an exercise is solved, and what was tested."""
    print(f"Exercise {exercise}: correct. {note}")


def as_numbers(value: Any, *, shape: tuple[int, ...], what: str) -> Tensor:
    """The reader's answer as a float64 tensor of the expected shape.

    Args:
        value: a number, list or tensor.
        shape: what is expected.
        what: its name in the message.
    Raises:
        AssertionError: it is not a number, or has another shape.
    """
    try:
        exact = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
        tensor = exact.detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise AssertionError(f"{what} should be numbers, got {type(value).__name__}.") from error
    assert tuple(tensor.shape) == shape, (
        f"{what} should have shape {shape}, got {tuple(tensor.shape)}."
    )
    return tensor


def diagnose(
    got: Tensor,
    expected: Tensor | float,
    mistakes: Mapping[str, Tensor | float],
    *,
    tolerance: float = 1e-8,
) -> None:
    """Compare with the exact answer; on a mismatch say which usual mistake gives this answer.

    Args:
        got: the reader's numbers.
        expected: the oracle's, same shape.
        mistakes: diagnosis → the numbers that this mistake gives.
        tolerance: largest absolute difference that counts as equal.
    Raises:
        AssertionError: with the diagnosis, or with the largest difference if none fits.
    """
    expected = torch.as_tensor(expected, dtype=torch.float64)
    if torch.allclose(got, expected, rtol=0, atol=tolerance):
        return
    for message, answer in mistakes.items():
        wrong = torch.as_tensor(answer, dtype=torch.float64)
        if torch.allclose(got, wrong, rtol=0, atol=tolerance, equal_nan=True):
            raise AssertionError(message)
    worst = int((got - expected).abs().nan_to_num(torch.inf).argmax())
    raise AssertionError(
        f"expected {expected.reshape(-1)[worst]:.6f}, got {got.reshape(-1)[worst]:.6f} "
        f"(entry {worst} of {got.numel()}), and none of the usual mistakes gives that."
    )
