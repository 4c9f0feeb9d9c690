"""Which ways of reading a model give the log-probabilities of each text alone: tried out, once.

Padding, key-value caches and shared prompts are about speed. Whether they change a number depends
on the architecture, so a model is asked itself, with two short texts, before it is used. A way
that is not exact is not taken; a model that is no policy at all is refused in words.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from helpers import contract, decoding, models

LONG, SHORT, WINDOW = 12, 7, 5  # tokens of the two texts, and most of a window of attention
WINDOWS = ("sliding_window", "attention_chunk_size")
# Nats that rounding may move a log-probability by.
ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-3}
ROUNDING_OF_HALF = 0.3


@dataclass(frozen=True)
class Reading:
    """What a model can do without a number changing."""

    padded: bool  # prompts of different lengths side by side, with filler on the left
    cached: bool  # one token after the other, with keys and values kept
    shared: bool  # many completions from one prompt's keys and values
    lean: bool = False  # one token after the other by `decoding.lean`

    def together(self, mask: Tensor) -> bool:
        """Whether rows can be read as they stand: nothing is filled up, or filler is harmless.

        Args:
            mask: (B, L) bool, False on padding.
        """
        return self.padded or bool(mask.all())


def reading(model: nn.Module) -> Reading:
    """How a model may be read; found out at the first call, and remembered.

    Args:
        model: any causal LM of `transformers`, bare or wrapped.
    Raises:
        ValueError: it cannot be called as a language model, its logits are not numbers, or what
            it says about a token depends on later ones.
    """
    _refuse_virtual_tokens(model)  # a wrapper, which may have come after the first call
    bare: Any = models.unwrap(model)
    attention = getattr(getattr(bare, "config", None), "_attn_implementation", None)
    known = bare.__dict__.get("_reading", {})  # a deep copy of the model has it too
    if attention not in known:
        was_training = model.training
        model.eval()
        try:
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(bare.device.type, enabled=False),
                _small_windows(bare, attention),
            ):
                found = _find_out(model)
        finally:
            model.train(was_training)
        bare.__dict__["_reading"] = known | {attention: found}
        if not found.cached:
            warnings.warn(
                f"{type(bare).__name__} is read whole for each new token, because with its cache "
                "the numbers would be others: exact, but slow.",
                stacklevel=3,
            )
    return bare.__dict__["_reading"][attention]


@contextlib.contextmanager
def _small_windows(bare: Any, attention: str | None) -> Iterator[None]:
    """Windows of attention that the short texts outgrow: there, caches and masks can differ."""
    config = models.text_config(bare)
    known = vars(config) if attention in ("sdpa", "eager") else {}  # whose masks ask the config
    before = {name: known[name] for name in WINDOWS if isinstance(known.get(name), int)}
    for name, width in before.items():
        setattr(config, name, min(width, WINDOW))
    try:
        yield
    finally:
        for name, width in before.items():
            setattr(config, name, width)


def _find_out(model: nn.Module) -> Reading:
    bare: Any = models.unwrap(model)
    context = models.context_length(model)
    long = LONG if context is None else min(LONG, context)
    if long < 3:  # nothing to be padded or kept
        return Reading(True, True, decoding.has_plain_cache(model))
    short = min(SHORT, long - 1)
    ids = _ordinary_ids(model, long)
    everything = torch.ones_like(ids, dtype=torch.bool)
    try:
        whole = _logits(model, ids, everything)  # (1, L, V)
        begin = _logits(model, ids[:, :short], everything[:, :short])
        if any(weight.requires_grad for weight in model.parameters()):
            _ask_for_gradient(model, ids)
    except Exception as error:  # whatever it is: then it is no policy
        raise ValueError(
            f"{type(bare).__name__} cannot be read and trained with token ids alone and without "
            f"dropout, as a policy must ({type(error).__name__}: {error!s:.200})."
        ) from error
    _refuse_no_numbers(whole)
    gap = _gap(whole[:, :short], begin)
    if gap > _rounding(whole):
        raise ValueError(
            f"{type(bare).__name__} is not causal: a later token moves what it says about earlier "
            f"ones by {gap:.1f} nats, so it sees the future, and no text can be sampled from it. "
            "A BERT needs is_decoder=True in its config."
        )
    padded = _padding_is_harmless(model, ids, short, begin)
    if not (padded or _padding_is_harmless(model, ids, short, begin, behind=True)):
        raise ValueError(
            f"{type(bare).__name__} says something else about a text when another one is beside "
            "it in the batch, so no text has a probability of its own."
        )
    cached = _writes_exactly(decoding.cached, model, ids, whole, padded)
    shared = cached and decoding.has_plain_cache(model) and _prompt_can_be_shared(model, ids, whole)
    ways = [functools.partial(decoding.lean, share=share) for share in (False, True)]
    lean = shared and decoding.leanable(model)
    lean = lean and all(_writes_exactly(way, model, ids, whole, padded) for way in ways)
    return Reading(padded, cached, shared, lean)


def _refuse_virtual_tokens(model: nn.Module) -> None:
    about = getattr(model, "active_peft_config", None)
    if getattr(about, "is_prompt_learning", False):
        raise ValueError(
            f"this adapter ({getattr(about, 'peft_type', 'prompt learning')}) puts virtual tokens "
            "before each prompt, which are no actions and shift every position. Use one that "
            "changes weights, such as LoRA."
        )


def _ordinary_ids(model: nn.Module, count: int) -> Tensor:
    """(1, count) int64: tokens that have no special meaning to the model's config."""
    bare: Any = models.unwrap(model)
    config = getattr(bare, "config", None)
    special: set[int] = set()
    for settings in (config, models.text_config(bare)):
        for name, value in (settings.to_dict() if settings is not None else {}).items():
            if name.endswith(("token_id", "token_index", "token_ids")):
                values = value if isinstance(value, list) else [value]
                special |= {v for v in values if isinstance(v, int)}
    size = min(bare.get_input_embeddings().num_embeddings, 4096)
    usable = [i for i in range(size) if i not in special] or [0]
    drawn = torch.randint(len(usable), (1, count), generator=torch.Generator().manual_seed(0))
    return torch.tensor(usable, dtype=torch.int64)[drawn].to(bare.device)


def _logits(model: nn.Module, ids: Tensor, mask: Tensor, **cache: Any) -> Tensor:
    kwargs = cache or {"use_cache": False}
    return models.forward(model, ids, mask, **kwargs).logits


def _gap(one: Tensor, other: Tensor) -> float:
    """Nats: the largest difference of log-probabilities; impossible tokens must be the same."""
    one, other = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (one, other))
    one, other = one.log_softmax(-1), other.log_softmax(-1)
    gap = (one - other).abs().masked_fill((one == -torch.inf) & (other == -torch.inf), 0.0)
    return float(gap.nan_to_num(torch.inf, torch.inf).max())


def _rounding(logits: Tensor) -> float:
    return ROUNDING.get(logits.dtype, ROUNDING_OF_HALF)


def _refuse_no_numbers(logits: Tensor) -> None:
    numbers = ~(logits.isnan() | (logits == torch.inf))  # −inf is an impossible token
    if not bool(numbers.all() & logits.isfinite().any(-1).all()):
        raise ValueError(
            "the logits of this model are not finite (nan or infinite) for ordinary tokens: its "
            "weights are damaged, by a broken download or by an overflow in an earlier run."
        )


def _ask_for_gradient(model: nn.Module, ids: Tensor) -> None:
    """Some models give one in training mode alone, in which they drop out."""
    read: list[Tensor] = []  # the tokens' embeddings: their gradient comes through all layers
    table: Any = models.unwrap(model).get_input_embeddings()  # type: ignore[operator]
    hook = table.register_forward_hook(lambda *call: read.append(call[2].requires_grad_()))
    with torch.enable_grad(), hook:  # which is removed at the end
        total = _logits(model, ids, torch.ones_like(ids, dtype=torch.bool)).float().sum()
        torch.autograd.grad(total, read, allow_unused=True)


def _padding_is_harmless(
    model: nn.Module, ids: Tensor, short: int, alone: Tensor, *, behind: bool = False
) -> bool:
    """Beside a longer text, with filler on the left or behind, a short one has its own numbers."""
    first = 0 if behind else ids.shape[1] - short
    rows = torch.cat([ids.flip(1), ids.roll(first, 1)])  # the rest of the second is its filler
    mask = torch.zeros_like(ids[0], dtype=torch.bool)
    mask[first : first + short] = True
    try:
        both = _logits(model, rows, torch.stack([torch.ones_like(mask), mask]))
    except Exception:  # whatever it is: then it is not done
        return False
    return _gap(both[1:, first : first + short], alone) <= _rounding(alone)


def _writes_exactly(
    begin: Callable[..., decoding.Texts], model: nn.Module, ids: Tensor, whole: Tensor, padded: bool
) -> bool:
    """Token by token as `rollout` does it: rows repeated, padded, and taken out."""
    first = ids.shape[1] - 2
    rows, mask, wanted = ids, torch.ones_like(ids, dtype=torch.bool), whole
    if padded:  # the second row is the first one, cut, behind filler
        rows, wanted = torch.cat([ids, ids.roll(1, 1)]), torch.cat([whole, whole.roll(1, 1)])
        mask = torch.cat([mask, torch.arange(ids.shape[1], device=ids.device)[None] >= 1])
    try:
        texts = begin(model, rows[:, :first], mask[:, :first], 2, 2)
        owner = torch.arange(len(rows), device=ids.device).repeat_interleave(2)
        gaps, keep = [_gap(next(texts), wanted[owner, first - 1])], None
        for column in (first, first + 1):
            said = texts.send((keep, rows[owner, column]))
            gaps.append(_gap(said, wanted[owner, column]))
            keep = torch.arange(1, len(owner), device=ids.device)
            owner = owner[1:]
    except Exception:  # whatever it is: then it is not done
        return False
    return max(gaps) <= _rounding(whole)


def _prompt_can_be_shared(model: nn.Module, ids: Tensor, whole: Tensor) -> bool:
    """From a copy of the prompt's keys and values, the rest in one pass, as `scoring` does it."""
    begin = ids.shape[1] // 2
    mask = torch.ones_like(ids, dtype=torch.bool)
    try:
        cache = decoding.new_cache(model)
        models.forward(
            model, ids[:, :begin], mask[:, :begin], past_key_values=cache, use_cache=True
        )
        tensors = [t.repeat_interleave(2, 0) for t in decoding.cached_tensors(cache)]
        rest = _logits(
            model,
            ids[:, begin:].repeat(2, 1),
            mask.repeat(2, 1),
            past_key_values=decoding.cache_of(model, tensors),
            use_cache=True,
        )
    except Exception:
        return False
    return _gap(rest, whole[:, begin:].expand_as(rest)) <= _rounding(whole)


contract.hold(globals())
