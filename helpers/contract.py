"""What a function takes is said once, in its docstring, and held to: bad input is refused in words.

The statement of an argument is the first sentence of its entry under `Args:`; that of a field of a
dataclass is the comment behind it. Together with the type in the signature it says all that is
checked:

    (B, T) float           the shape, and the kind: float, integer, bool or number. A letter is one
    (..., V) or (V,)       size in all arguments of a call, `B ≥ 2` bounds it, ... stands for any
    B strings; K, a size   dimensions. The same letters count lists, and name whole numbers
    ≥ 0, > 0, in [0, V)    bounds of a number, or of all entries
    −inf, +inf, nan        are refused, unless the statement names them
    not empty, …           and the phrases in `PHRASES`; a package may add its own

`hold(globals())` at the end of a module does this for its public functions, methods and
constructors. Only calls from outside are checked, as those of a notebook, or of a reader's reward
function that the loop calls: one held module trusts the next, so that a step of training pays
nothing. Entries are looked at on the CPU alone, since a GPU would have to be waited for; shapes and
kinds are checked everywhere.
"""

import functools
import inspect
import math
import operator
import re
import sys
import types
import typing
from collections import abc, defaultdict
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

MOST = 50  # entries at either end of a list that are looked at
HELD: set[str] = set()  # names of modules whose functions are held to what they say
KINDS: dict[str, Callable[[Tensor], bool]] = {
    "float": torch.is_floating_point,
    "int": lambda x: not torch.is_floating_point(x) and KINDS["number"](x),
    "bool": lambda x: x.dtype == torch.bool,
    "number": lambda x: x.dtype != torch.bool and not x.is_complex(),
}
PHRASES: dict[str, Callable[[Any, dict[str, Any]], bool]] = {  # (value, sizes) → is it like that?
    "no row is empty": lambda x, _: bool(x.any(-1).all()),
    "padding on the left": lambda x, _: bool(x[..., -1:].all() and (x.diff() >= 0).all()),
    "later tokens below V": lambda x, sizes: bool((x[..., 1:] < sizes["V"]).all()),
    "B = G·K": lambda _, sizes: sizes["B"] == sizes["G"] * sizes.get("K", 1),
    "not empty": lambda x, _: bool(x.numel() if isinstance(x, Tensor) else len(x)),
    "callable": lambda x, _: callable(x),
}
SIGNS = {"≥": operator.ge, "≤": operator.le, ">": operator.gt, "<": operator.lt}
BOUND = r"(−?\d[\d.]*|[A-Z])"


class WrongTypeError(TypeError, ValueError):
    """An argument is of another type than its function takes."""


def hold(module: dict[str, Any]) -> None:
    """Check what a module's public functions, methods and constructors are given from outside.

    Args:
        module: its `globals()`.
    """
    HELD.add(module["__name__"])
    for name, thing in list(module.items()):
        own = getattr(thing, "__module__", None) == module["__name__"]
        if inspect.isclass(thing) and own and not name.startswith("_"):
            for key, method in list(vars(thing).items()):
                if not key.startswith("_") or key in ("__init__", "__call__"):
                    setattr(thing, key, _held(method, thing))
        elif own and not name.startswith("_") and hasattr(thing, "__qualname__"):
            module[name] = _held(thing)


def _held(function: Any, owner: type | None = None) -> Any:
    if isinstance(function, staticmethod | classmethod):
        return type(function)(_held(function.__func__))
    if not callable(function):  # a property
        return function

    @functools.wraps(function)
    def held(*args: Any, **kwargs: Any) -> Any:
        if sys._getframe(1).f_globals.get("__name__") not in HELD:
            check(function, args, kwargs, owner)
        return function(*args, **kwargs)

    return held


@functools.cache
def statements(function: Callable[..., Any], owner: type | None = None) -> dict[str, Any]:
    """What a function says of its arguments: name → (type, statement), in their order.

    Args:
        function: any.
        owner: the class of a constructor; a dataclass says it in the comments of its fields.
    """
    text = inspect.cleandoc(function.__doc__ or "") + "\n"
    said = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text.partition("Args:\n")[2], re.M))
    for each in reversed(owner.__mro__) if owner and function.__name__ == "__init__" else ():
        if hasattr(each, "__dataclass_fields__"):
            said |= dict(re.findall(r"^    (\w+): .*?  # (.*)", inspect.getsource(each), re.M))
    hints = typing.get_type_hints(function, localns=defaultdict(lambda: Any))
    first = {name: re.split(r"\.(?: |$)", " ".join(s.split()))[0] for name, s in said.items()}
    names = inspect.signature(function).parameters
    return {name: (hints.get(name, Any), first.get(name, "")) for name in names}


def check(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    owner: type | None = None,
) -> None:
    """Refuse what a function does not take.

    Args:
        function: whose statements count.
        args: by position.
        kwargs: by name.
        owner: see `statements`.
    Raises:
        ValueError: the message names the function, the argument, what it is and what is needed.
        WrongTypeError: likewise, if it is of a wrong type; a ValueError and a TypeError.
    """
    said = statements(function, owner)
    given = {k: v for k, v in [*zip(said, args, strict=False), *kwargs.items()] if k in said}
    sizes: dict[str, Any] = {}
    where: dict[str, str] = {}  # letter → the argument that has this size
    for name, value in given.items():
        sizes |= getattr(value, "sizes", {}) if type(value).__module__ in HELD else {}
        where |= dict.fromkeys(sizes.keys() - where.keys(), name)
    for look in (_type, _size, _within):  # all types first, then all sizes, then the entries
        for name, value in given.items():
            hint, statement = said[name]
            if name == "self" or (value is None and look is not _type and hint is not Any):
                continue
            why = look(value, statement, hint if look is _type else sizes, given)
            where |= dict.fromkeys(sizes.keys() - where.keys(), name)
            if why:
                place = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
                known = [k for k in where if re.search(rf"\b{re.escape(k)}\b", statement)]
                sized = ", ".join(f"{k} = {sizes[k]} of {where[k]}" for k in known)
                takes = f" It takes: {statement}." if statement else ""
                kind = WrongTypeError if look is _type else ValueError
                raise kind(
                    f"{place}: {name} must {why}, not {_short(value)}.{takes} {sized}".strip()
                )


def _short(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"{value!r:.60}"
    return f"a {str(value.dtype)[6:]} tensor of shape {tuple(value.shape)}"


def _type(value: Any, statement: str, hint: Any, given: Mapping[str, Any]) -> str:
    if hint is Any:  # some types cannot be imported: then the statement names them
        named = re.match(r"an? `[\w.]*?(\w+)`", statement)
        fits = not named or named[1] in [each.__name__ for each in type(value).__mro__]
        return "" if fits or not named else f"be a {named[1]}"
    words = re.sub(r"\b[\w.]+\.(?=\w)", "", inspect.formatannotation(hint))
    return "" if _is_a(value, hint) else f"be of type {words}"


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; a bool is no number, and a string no sequence of strings."""
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_a(value, each) for each in inner)
    if origin is Any:
        return True
    if origin in (int, float):
        return isinstance(value, Integral if origin is int else Real) and not isinstance(
            value, bool
        )
    if not inspect.isclass(origin) or not inner or origin is abc.Callable:
        return not inspect.isclass(origin) or isinstance(value, origin)
    if isinstance(value, Tensor):  # a row of numbers may stand for a list of them
        return issubclass(list, origin) and value.ndim == 1 and inner[0] in (int, float)
    if issubclass(origin, Mapping):
        pairs = value.items() if isinstance(value, origin) else []
        fits = all(_is_a(k, inner[0]) and _is_a(v, inner[1]) for k, v in pairs)
        return isinstance(value, origin) and fits
    listed = isinstance(value, origin) or origin is abc.Sequence and hasattr(value, "__getitem__")
    if not listed or isinstance(value, str | bytes | Mapping):
        return False
    if origin is tuple and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(_is_a, value, inner))
    return isinstance(value, Iterator) or all(_is_a(each, inner[0]) for each in _ends(value))


def _size(value: Any, statement: str, sizes: dict[str, Any], given: Mapping[str, Any]) -> str:
    shapes = re.match(r"\([^()]*\)(?: or \([^()]*\))*", statement)
    if isinstance(value, Tensor | tuple) and shapes:
        options = re.findall(r"\(([^()]*)\)", shapes[0])
        if not any(_bind(tuple(getattr(value, "shape", value)), each, sizes) for each in options):
            return f"have the shape {shapes[0]}"
    if isinstance(value, Tensor):
        kind = re.search(r"\b(float|int|bool|number)", statement)
        if kind and not KINDS[kind[1]](value):
            return f"be {kind[1]}"
        devices = {str(each.device) for each in given.values() if isinstance(each, Tensor)}
        anywhere = len(devices) < 2 or "CPU" in statement or "device" in statement
        return "" if anywhere else f"be on one device with the other tensors: {devices}"
    letter = re.match(r"([A-Z])(?=$|,|;| [a-z≥≤])", statement)
    count = value if isinstance(value, int) else len(value) if hasattr(value, "__len__") else None
    if letter and count is not None and not _bind((count,), letter[1], sizes):
        what = "be" if count is value else "have as many entries as"
        return f"{what} {letter[1]} = {sizes[letter[1]]}"
    return "be below 2^63" if isinstance(value, int) and abs(value) >= 2**63 else ""


def _bind(shape: tuple[int, ...], said: str, sizes: dict[str, Any]) -> bool:
    """Whether a shape is the one that is said; notes the size of each letter."""
    dims = [each.strip() for each in said.split(",") if each.strip()]
    found: dict[str, Any] = {}
    if "..." in dims:
        start = dims.index("...")
        end = len(shape) - (len(dims) - 1 - start)
        found["..."] = tuple(shape[start : max(start, end)])
        shape, dims = (*shape[:start], *shape[end:]), [each for each in dims if each != "..."]
    for dim, size in zip(dims, shape, strict=False):
        name, sign, number = re.findall(r"(.+?)(?:\s*([+−])\s*(\d+))?$", dim)[0]
        found.setdefault(name, size + int(number or 0) * (1 if sign == "−" else -1))
        if found[name] != size + int(number or 0) * (1 if sign == "−" else -1):
            return False
    fits = all(sizes.get(k, int(k) if str(k).isdigit() else v) == v for k, v in found.items())
    if fits and len(dims) == len(shape):
        sizes |= found
    return fits and len(dims) == len(shape)


def _within(value: Any, statement: str, sizes: dict[str, Any], given: Mapping[str, Any]) -> str:
    """What is wrong with the entries of a value, or with a size that the statement bounds."""
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return ""
    if isinstance(value, Tensor) and "anything" in statement:  # where a mask is False
        masks = (m for m in given.values() if isinstance(m, Tensor) and m.dtype == torch.bool)
        value = next((value[m] for m in masks if m.shape == value.shape), value)
    for letter, sign, number in re.findall(rf"\b([A-Za-z]) ([≥≤><]) {BOUND}", statement):
        if letter in sizes and not SIGNS[sign](sizes[letter], _number(number, sizes)):
            return f"have {letter} {sign} {number}"
    for phrase, fits in PHRASES.items():
        if phrase in statement and not fits(value, sizes):
            return f"be such that “{phrase}”"
    return next((why for part in _leaves(value) if (why := _bounds(part, statement, sizes))), "")


def _leaves(value: Any) -> Iterator[Tensor]:
    """Tensors and numbers in a value, however deep."""
    if isinstance(value, Tensor):
        yield value.detach()
    inside = isinstance(value, list | tuple)
    listed = _ends(value) if inside else [value]
    single = [float(x) for x in listed if isinstance(x, Real) and not isinstance(x, bool)]
    if single:
        yield torch.tensor(single, dtype=torch.float64)
    for each in listed if inside else ():
        if isinstance(each, list | tuple | Tensor):
            yield from _leaves(each)


def _ends(value: Any) -> Any:
    """All entries, or those at both ends of a long list: a look must not cost more than work."""
    long = isinstance(value, list | tuple) and len(value) > 2 * MOST
    return [*value[:MOST], *value[-MOST:]] if long else value


def _bounds(x: Tensor, statement: str, sizes: Mapping[str, Any]) -> str:
    """Whether all entries of a tensor are finite and between their bounds."""
    if x.dtype == torch.bool or not x.numel():
        return ""
    if x.is_floating_point() and not bool(x.isfinite().all()):
        for name, holds in (("nan", x.isnan()), ("+inf", x == math.inf), ("−inf", x == -math.inf)):
            if name not in statement and bool(holds.any()):
                return "be finite" if name not in statement else f"hold no {name}"
    bounds = re.findall(rf"(?<!\b[A-Za-z] )([≥≤><]) {BOUND}", statement)
    for left, low, high, right in re.findall(rf"in ([\[(]){BOUND}, {BOUND}([\])])", statement):
        bounds += [("≥" if left == "[" else ">", low), ("≤" if right == "]" else "<", high)]
    for sign, number in bounds:
        bound = _number(number, sizes)
        if bound is not None and not bool((SIGNS[sign](x, bound) | x.isnan()).all()):
            return f"be {sign} {number}{'' if number[-1].isdigit() else f' = {bound}'}"
    return ""


def _number(text: str, sizes: Mapping[str, Any]) -> Any:
    return sizes.get(text) if text.isalpha() else float(text.replace("−", "-").rstrip("."))
