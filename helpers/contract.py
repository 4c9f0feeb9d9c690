"""What docstrings say of arguments is checked at the call: shapes, dtypes, ranges, lengths.

A line below Args, and the comment beside a field of a dataclass, are statements that a reader
relies on. `keep(__name__)`, at the end of a module, makes its public functions and classes hold
their callers to them, so that nothing has to be stated twice. This is understood:

    (B, T) float            shape and dtype; also integer, int64, bool, float64
    (B,) or (B, T) float    one of them; `...` stands for any dimensions
    in [0, V)  ≥ 1  > 0     a range
    sums to 1               probabilities over the last dimension
    normalised              log-probabilities over the last dimension
    −inf  inf  nan          not finite, and meant so; "outside the mask anything"
    B strings               the length of a sequence

A letter is one number within a call, and so is the name of a whole number among the arguments.
Types are those of the annotations. What a checked function calls is not checked again, so that a
training step pays for one look at its arguments.
"""

import collections.abc
import contextlib
import dataclasses
import functools
import inspect
import math
import numbers
import re
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DTYPE = r"(float64|float|integer|int64|bool)\b"
SHAPE = re.compile(rf"(?:^|or |[,:] |tensors )\(([^()]*)\),?(?: {DTYPE})?")
BETWEEN = re.compile(r"in ([\[(])([^][(),]+), ([^][(),]+)([\])])")
ABOVE = re.compile(r"([≥>]) (\d[\d.e−-]*)")
LENGTH = re.compile(r"^(?:\((\w+),\)|(\w) [a-z]+)")
OFF = 1e-3  # of what sums to 1, which half precision rounds
NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "True or False",
}
NAMES |= {collections.abc.Sequence[str]: "a list of strings", list[str]: "a list of strings"}


class ArgumentError(ValueError, TypeError):
    """An argument is not what the docstring asks for."""


@dataclass(frozen=True)
class Statement:
    """What is said of one argument."""

    text: str
    hint: Any
    shapes: tuple[tuple[tuple[str, ...], str], ...]  # alternatives: dimensions, dtype
    limits: tuple[tuple[str, bool, int], ...]  # number or letter; allowed itself; 1 low, -1 high
    length: str  # letter, or ""

    @staticmethod
    def of(text: str, hint: Any) -> "Statement":
        """Read a statement; only its first sentence counts, but for what may be not finite."""
        first = re.split(r"(?<!\.)\.(?:\s|$)", text)[0]
        shapes = [(tuple(re.split(r", ?", m[1].rstrip(","))), m[2]) for m in SHAPE.finditer(first)]
        if found := re.match(DTYPE, first):
            shapes = [(("...",), found[1])]
        last = next((dtype for _, dtype in reversed(shapes) if dtype), "")
        limits: tuple[tuple[str, bool, int], ...] = ()
        if found := BETWEEN.search(first):
            limits = (found[2], found[1] == "[", 1), (found[3], found[4] == "]", -1)
        elif found := ABOVE.search(first):
            limits = ((found[2].replace("−", "-"), found[1] == "≥", 1),)
        named = LENGTH.match(first)
        alternatives = tuple((dims, dtype or last) for dims, dtype in shapes)
        return Statement(text, hint, alternatives, limits, named[1] or named[2] if named else "")

    def says(self, *words: str) -> bool:
        """Whether the text has one of these words."""
        return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", self.text) for word in words)


class _Here(threading.local):
    inside = False


_here = _Here()


@contextlib.contextmanager
def anew() -> Iterator[None]:
    """What is called in here is checked, though a checked function calls it: a reader's code."""
    before, _here.inside = _here.inside, False
    try:
        yield
    finally:
        _here.inside = before


def keep(module_name: str) -> None:
    """Hold the callers of a module's public functions and classes to its docstrings.

    Args:
        module_name: its `__name__`; called at its end.
    """
    module = vars(sys.modules[module_name])
    for name, thing in list(module.items()):
        if name.startswith("_") or getattr(thing, "__module__", None) != module_name:
            continue
        if inspect.isfunction(thing):
            module[name] = _checked(thing, name, statements(thing))
            for table in module.values():  # by which functions are chosen
                if isinstance(table, dict) and table is not module:
                    table.update({k: module[name] for k, one in table.items() if one is thing})
        elif inspect.isclass(thing) and not issubclass(thing, BaseException):
            _keep_class(thing)


def _keep_class(cls: type) -> None:
    for name, thing in list(vars(cls).items()):
        inner = getattr(thing, "__func__", thing)  # of a static method
        if inspect.isfunction(inner) and (name == "__init__" or not name.startswith("_")):
            init = name == "__init__"
            said = (init and statements_of_fields(cls)) or statements(inner)
            wrapped = _checked(inner, cls.__name__ if init else f"{cls.__name__}.{name}", said)
            setattr(cls, name, wrapped if inner is thing else type(thing)(wrapped))


def statements(function: Callable[..., Any]) -> dict[str, Statement]:
    """What a function's docstring and annotations say, by argument.

    Args:
        function: any; lines below Args are read.
    """
    found = re.search(r"^Args:\n(.*?)(?=^\w|\Z)", inspect.getdoc(function) or "", re.S | re.M)
    line = re.compile(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", re.S | re.M)
    texts = {m[1]: " ".join(m[2].split()) for m in line.finditer(found[1] if found else "")}
    hints = _hints(function)
    return {
        p.name: Statement.of(texts.get(p.name, ""), hints.get(p.name, Any))
        for p in inspect.signature(function).parameters.values()
        if p.name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }


def statements_of_fields(cls: type) -> dict[str, Statement]:
    """What the comments beside a dataclass's fields say; nothing for another class.

    Args:
        cls: any.
    """
    if not dataclasses.is_dataclass(cls):
        return {}
    source = ""
    with contextlib.suppress(OSError, TypeError):
        source = inspect.getsource(cls)
    comments = dict(re.findall(r"^    (\w+): [^#\n]*?  # (.*)$", source, re.M))
    hints, fields = _hints(cls), (f.name for f in dataclasses.fields(cls) if f.init)
    return {name: Statement.of(comments.get(name, ""), hints.get(name, Any)) for name in fields}


def _hints(thing: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(thing)
    except NameError:  # imported for type checkers alone
        raw = getattr(thing, "__annotations__", {})
        return {name: Any if isinstance(hint, str) else hint for name, hint in raw.items()}


def _checked(function: Callable, name: str, said: dict[str, Statement]) -> Callable:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if _here.inside:
            return function(*args, **kwargs)
        _here.inside = True
        try:
            given: dict[str, Any] = {}
            with contextlib.suppress(TypeError):  # Python says below what is missing
                given = signature.bind(*args, **kwargs).arguments
            _check(name, {k: v for k, v in given.items() if k in said}, said)
            return function(*args, **kwargs)
        finally:
            _here.inside = False

    return checked


def _check(name: str, given: dict[str, Any], said: dict[str, Statement]) -> None:
    letters: dict[str, Any] = {k: v for k, v in given.items() if _is(v, int)}
    masks = [v for k, v in given.items() if "mask" in k and isinstance(v, Tensor)]
    for argument, value in given.items():
        statement = said[argument]
        wrong = _problem(value, statement, letters)
        for mask in masks:
            same = isinstance(value, Tensor) and value.shape == mask.shape
            if same and not wrong and mask.dtype == torch.bool and _readable(mask):
                wrong = _problem_of_numbers(value[mask], statement, letters, everywhere=True)
        if wrong:
            about = f" The docstring says: {statement.text}" if statement.text else ""
            raise ArgumentError(f"{name}: {argument} {wrong}.{about}")


def _problem(value: Any, said: Statement, letters: dict[str, Any]) -> str:
    """What is wrong with an argument, or ""; sizes are added to the letters."""
    if value is None and _is(None, said.hint):
        return ""
    if not _is(value, said.hint):
        return f"must be {_name(said.hint)}, not {_shown(value)}"
    if isinstance(value, Tensor):
        return _wrong_shape(value, said, letters) or _problem_of_numbers(value, said, letters)
    if _is(value, float):
        return _problem_of_numbers(torch.tensor(float(value)).double(), said, letters)
    if not isinstance(value, collections.abc.Sized) or isinstance(value, str):
        return ""
    size = letters.setdefault(said.length, len(value)) if said.length else len(value)
    if size != len(value):
        return f"must have one for each: {said.length} = {size}, and has {len(value)} entries"
    if not size and said.says("at least one"):
        return "is empty, and needs at least one entry"
    each = value if isinstance(value, list | tuple) else ()
    numeric = (torch.as_tensor(one) for one in each if isinstance(one, Tensor | float))
    return next((w for one in numeric if (w := _problem_of_numbers(one, said, letters))), "")


def _wrong_shape(value: Tensor, said: Statement, letters: dict[str, Any]) -> str:
    for dims, dtype in said.shapes:
        tried = dict(letters)
        if _fits(tuple(value.shape), list(dims), tried) and _has_dtype(value, dtype):
            letters |= tried
            return ""
    needed = " or ".join(
        f"({', '.join(dims)}{',' * (len(dims) == 1 and dims[0] not in ('', '...'))}) {dtype}"
        for dims, dtype in said.shapes
    )
    used = sorted({d for dims, _ in said.shapes for d in dims} & letters.keys())
    where = " and ".join(f"{d} = {letters[d]}" for d in used)
    needed = f"must be {needed.strip()}{f' with {where}' * bool(where)}, not {_shown(value)}"
    return needed if said.shapes else ""


def _fits(shape: tuple[int, ...], dims: list[str], letters: dict[str, Any]) -> bool:
    if "..." in dims:
        at, extra = dims.index("..."), len(shape) - len(dims) + 1
        if extra < 0 or letters.setdefault("...", shape[at : at + extra]) != shape[at : at + extra]:
            return False
        shape, dims = shape[:at] + shape[at + extra :], dims[:at] + dims[at + 1 :]
    dims = [dim for dim in dims if dim]
    pairs = list(zip(shape, dims, strict=False))
    if len(shape) != len(dims) or any(n == 0 and d != "D" for n, d in pairs):
        return False  # a policy may have D = 0 parameters
    named = [(n, d) for n, d in pairs if re.fullmatch(r"[\w']+", d)]
    return all(n == (int(d) if d.isdigit() else letters.setdefault(d, n)) for n, d in named)


def _has_dtype(value: Tensor, dtype: str) -> bool:
    if dtype in ("float64", "int64", "bool"):
        return value.dtype == getattr(torch, dtype)
    whole = not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    return {"float": value.is_floating_point(), "integer": whole}.get(dtype, True)


def _readable(value: Tensor) -> bool:
    """Whether a look at the numbers costs no wait for a device, and is possible at all."""
    plain = type(value) in (Tensor, torch.nn.Parameter) and value.device.type == "cpu"
    mapped = torch._C._functorch.is_functorch_wrapped_tensor(value)  # by `torch.func.vmap`
    return plain and value.numel() > 0 and not mapped


def _problem_of_numbers(
    value: Tensor, said: Statement, letters: dict[str, Any], *, everywhere: bool = False
) -> str:
    """What is wrong with the numbers of a tensor, or ""."""
    anything = said.says("anything") and not everywhere
    if not _readable(value) or value.dtype == torch.bool or anything:
        return ""
    value = value.detach()
    has = "has" if value.ndim else "is"
    if value.is_floating_point() and not bool(value.isfinite().all()):
        for bad, name, words in (
            (value.isnan(), "nan", ("nan",)),
            (value == -math.inf, "−inf", ("−inf", "inf")),
            (value == math.inf, "inf", ("inf",)),
        ):
            if bool(bad.any()) and not said.says(*words):
                return f"must be {_range(said) or 'finite'}, and {has} {name}"
    for word, allowed, sign in said.limits:
        limit = letters.get(word, word)
        if isinstance(limit, str) and not re.fullmatch(r"-?\d[\d.e-]*", limit.strip()):
            continue  # a letter that this call does not tell
        edge = sign * float((value * sign).min())
        if not (sign * (edge - float(limit)) >= 0 if allowed else sign * (edge - float(limit)) > 0):
            return f"must be {_range(said)}, and {has} {edge:g}"
    if said.says("sums to 1", "Rows sum to 1") and (
        float((value.sum(-1) - 1).abs().max()) > OFF or float(value.min()) < 0
    ):
        return "must be probabilities: at least 0, with the sum 1"
    if said.says("normalised") and float(value.logsumexp(-1).abs().max()) > OFF:
        return "must be normalised log-probabilities, whose exponentials have the sum 1"
    return ""


def _range(said: Statement) -> str:
    words = {1: ("above", "at least"), -1: ("below", "at most")}
    return " and ".join(f"{words[sign][allowed]} {limit}" for limit, allowed, sign in said.limits)


def _is(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; a bool is no number."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool)
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, each) for each in inner)
    if origin is collections.abc.Callable:
        return callable(value)
    if hint is None:
        return value is None
    if not isinstance(origin, type):
        return not isinstance(hint, type) or isinstance(value, hint)
    if not isinstance(value, origin) or isinstance(value, str | bytes):
        return False
    value = typing.cast(Any, value)
    if issubclass(origin, collections.abc.Mapping):
        return all(_is(k, inner[0]) and _is(v, inner[1]) for k, v in value.items())
    if origin is tuple and inner[-1] is not ...:
        return len(value) == len(inner) and all(
            _is(*pair) for pair in zip(value, inner, strict=True)
        )
    return not isinstance(value, collections.abc.Sequence) or all(_is(v, inner[0]) for v in value)


def _name(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_name(each) for each in typing.get_args(hint))
    if typing.get_origin(hint) is collections.abc.Callable:
        return "a function"
    if hint in NAMES or hint in (type(None), None):
        return NAMES.get(hint, "None")
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return f"a {re.sub(r'(?:[A-Za-z_]+[.])+(?=[A-Za-z])', '', text)}"  # without the modules


def _shown(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"{value!r:.60}"
    dtype = str(value.dtype).removeprefix("torch.")
    return f"a tensor of shape {tuple(value.shape)} and type {dtype}"
