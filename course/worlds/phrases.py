"""Phrases that the course's docstrings say of arguments, besides those of `helpers.contract`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from helpers import contract

Sizes = dict[str, Any]  # letter → size, of the call that is checked


def _levels(x: Sequence[Tensor], sizes: Sizes) -> bool:
    """One tensor a level of the tree: (n^k, A) numbers, or (n^k,)."""
    if not len(x) or sizes.setdefault("T", len(x)) != len(x):
        return False
    n = sizes.setdefault("n", len(x[1]) if len(x) > 1 and x[1].ndim else 1)
    wide = all(t.ndim == 2 and sizes.setdefault("A", t.shape[1]) == t.shape[1] for t in x)
    if wide:
        sizes["E"] = sum(t.numel() for t in x)
    fits = all(t.ndim and t.is_floating_point() and len(t) == n**k for k, t in enumerate(x))
    return fits and (wide or all(t.ndim == 1 for t in x))


def _states(record: Any, sizes: Sizes) -> bool:
    """A record's texts, or one text: transitions whose states and words are in the table."""
    texts = [record] if record and isinstance(record[0][0], int) else record
    most = sizes.get("S", 0)
    if most < 1:
        return True  # which another statement refuses
    return all(
        0 <= state < most and 0 <= word < sizes.get("A", word + 1) and (after or 0) < most
        for text in texts
        for state, word, _, after in text
    )


def _down(path: Any, sizes: Sizes) -> bool:
    words, n = [int(word) for word in path], sizes.get("n", 1)
    inner = all(0 <= word < n for word in words[:-1])
    return inner and len(words) <= sizes["T"] and all(0 <= w < sizes["A"] for w in words[-1:])


def _sum_to_1(x: Tensor, sizes: Sizes) -> bool:
    rounding = 1e-5 if x.dtype in (torch.float32, torch.float64) else 2e-2
    return bool(((x.detach().double().sum(-1) - 1).abs() < rounding).all())


contract.PHRASES.update(
    {
        "world's prompts": lambda x, sizes: x in sizes.get("prompts", (x,)),
        "T tensors (n^k, A)": lambda x, sizes: _levels(x, sizes) and all(t.ndim == 2 for t in x),
        "T tensors (n^k,)": lambda x, sizes: _levels(x, sizes) and all(t.ndim == 1 for t in x),
        "at most T word ids": _down,
        "states below S": _states,
        "sum to 1": _sum_to_1,
        "some above 0": lambda x, _: bool((x > 0).any()),
        "require gradients": lambda x, _: (
            not isinstance(x, list | tuple) or (len(x) > 0 and all(t.requires_grad for t in x))
        ),
        "E − 1 is one": lambda x, sizes: int(x.max()) == sizes["E"] - 1,
        "rising": lambda x, _: all(a < b for a, b in zip(x, x[1:], strict=False)),
        "all different": lambda x, _: len(set(x)) == len(x),
        "0 or 1": lambda x, _: all(each in (0, 1) for each in x),
        "rows of one length": lambda x, _: len({len(row) for row in x}) == 1,
        "floating dtype": lambda x, _: x.is_floating_point,
    }
)
