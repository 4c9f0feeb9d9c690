"""Exercise checkers: each says "not attempted yet", passes, or names what is wrong.

A checker compares with the oracle, never with a second copy of the solution, and then tries the
usual mistakes one by one so that its message is a diagnosis.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Numbers = Tensor | float | Sequence[float]


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


def unchanged(given: Sequence[Tensor], original: Sequence[Tensor]) -> None:
    """Refuse a function that wrote into what it was given.

    Args:
        given: the tensors that the reader's function had.
        original: what they held before.
    Raises:
        AssertionError: they differ.
    """
    same = all(torch.equal(a, b) for a, b in zip(given, original, strict=True))
    assert same, "the function wrote into its arguments; make new tensors."


def as_loss(value: Any) -> Tensor:
    """The reader's loss, if it can be differentiated.

    Args:
        value: what the reader's function returned.
    Raises:
        AssertionError: it is no single number, or carries no gradient.
    """
    assert isinstance(value, Tensor) and value.shape == (), "return a tensor of shape ()."
    assert value.requires_grad, "the loss carries no gradient: was too much detached?"
    return value


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
    if isinstance(value, list | tuple) and any(isinstance(x, Tensor) for x in value):
        rows = [torch.as_tensor(x) for x in value]  # a list of rows is a table too
        value = torch.stack(rows) if len({x.shape for x in rows}) == 1 else value
    try:
        given = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
        tensor = given.detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise AssertionError(f"{what} should be numbers, got {type(value).__name__}.") from error
    assert tuple(tensor.shape) == shape, (
        f"{what} should have shape {shape}, got {tuple(tensor.shape)}."
    )
    return tensor


def diagnose(
    got: Tensor,
    expected: Numbers,
    mistakes: Mapping[str, Numbers],
    *,
    tolerance: float = 1e-8,
    share: float = 0.0,
    reveal: bool = True,
    near: float | None = None,
) -> None:
    """Compare with the exact answer; on a mismatch say which usual mistake gives this answer.

    Args:
        got: the reader's numbers.
        expected: the oracle's, same shape.
        mistakes: diagnosis → the numbers that this mistake gives.
        tolerance: largest absolute difference that counts as equal.
        share: difference from a mistake's numbers, as a share of them, that counts as equal too.
        reveal: whether the message may say what was expected.
        near: a difference below which the message asks for more digits.
    Raises:
        AssertionError: with the diagnosis, or with the largest difference if none fits.
    """
    expected = torch.as_tensor(expected, dtype=torch.float64)
    if torch.allclose(got, expected, rtol=0, atol=tolerance):
        return
    for message, answer in mistakes.items():
        wrong = torch.as_tensor(answer, dtype=torch.float64)
        if wrong.isnan().all():
            continue  # every answer that is nan throughout would look like this mistake
        if torch.allclose(got, wrong, rtol=share, atol=tolerance, equal_nan=True):
            raise AssertionError(message)
    near = tolerance if near is None else near
    assert not torch.allclose(got, expected, rtol=0, atol=near), (
        "close: more digits, and round only at the end."
    )
    assert reveal, "this is not the value, and none of the usual mistakes gives it. Try the hint."
    worst = int((got - expected).abs().nan_to_num(torch.inf).argmax())
    wanted, found = (round(float(x.reshape(-1)[worst]), 6) + 0.0 for x in (expected, got))  # no −0
    raise AssertionError(
        f"expected {wanted:.6f}, got {found:.6f} "
        f"(entry {worst} of {got.numel()}), and none of the usual mistakes gives that."
    )


def predicted_numbers(
    exercise: str,
    answers: Mapping[str, Any],
    expected: Mapping[str, Numbers],
    mistakes: Mapping[str, Mapping[str, Numbers]],
    *,
    tolerance: float | Mapping[str, float] = 1e-3,
    relative: bool = False,
) -> bool:
    """Check numbers that the reader predicted, one by one, without giving any of them away.

    Args:
        exercise: its number, such as "1.5".
        answers: name → the reader's number, or what a stub holds.
        expected: name → the oracle's number.
        mistakes: name → diagnosis → the number that this mistake gives.
        tolerance: largest difference that counts as equal; one for all, or name → its own.
        relative: measure differences as a share of the number compared with; no expected one is 0.
    Returns:
        Whether all of them are there and right; says what is still open.
    Raises:
        AssertionError: with a diagnosis, or because a name is missing.
    """
    assert set(answers) == set(expected), f"the names must stay {sorted(expected)}."
    open_ = [name for name in expected if answers[name] is None or answers[name] is ...]
    for name in expected:
        if name in open_:
            continue
        got = as_numbers(answers[name], shape=(), what=name)
        truth, usual = expected[name], mistakes.get(name, {})
        try:
            most = tolerance[name] if isinstance(tolerance, Mapping) else tolerance
            unit = abs(torch.as_tensor(truth).item()) if relative else 1.0
            wide = most * unit
            diagnose(
                got,
                truth,
                usual,
                tolerance=wide,
                share=most * relative,
                reveal=False,
                near=max(wide, 0.0099 * unit),
            )
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
    if len(open_) == len(expected):
        return not is_stub(exercise, None)
    if open_:
        print(f"Exercise {exercise}: right so far; still open: {', '.join(open_)}.")
    return not open_
