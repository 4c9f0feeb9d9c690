"""Key-value caches: what a model has read so far, as tensors that can be shared and kept.

With `helpers.models` the only module that imports `transformers`.
"""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

from helpers import models


def new_cache(model: nn.Module) -> DynamicCache:
    """An empty key-value cache, for one batch and one decoding run.

    Args:
        model: any causal LM of `transformers`.
    Raises:
        ValueError: the model does not take one, as state-space models do not.
    """
    bare = models.unwrap(model)
    if "past_key_values" not in inspect.signature(bare.forward).parameters:
        raise ValueError(
            f"{type(bare).__name__} takes no key-value cache, so it cannot be decoded "
            "token by token here. Use a transformer (GPT-2, Llama, Qwen, OPT, Gemma, …)."
        )
    return DynamicCache(config=getattr(model, "config", None))


def cached_tensors(cache: DynamicCache) -> list[Tensor]:
    """Keys and values of every layer, in turn, each (B, heads, positions, width); with graph.

    Args:
        cache: filled by a forward pass.
    Raises:
        ValueError: it holds something else besides, as sliding windows and linear attention do.
    """
    layers = [layer for layer in cache.layers if type(layer) is DynamicLayer]
    if len(layers) < len(cache.layers):
        kinds = sorted({type(layer).__name__ for layer in cache.layers})
        raise ValueError(f"this model's cache has layers of the kinds {kinds}, which hold more "
                         "than keys and values. Pass share_prompts=False.")  # fmt: skip
    pairs = [(layer.keys, layer.values) for layer in layers]
    return [tensor for pair in pairs for tensor in pair if tensor is not None]


def cache_of(model: nn.Module, tensors: Sequence[Tensor]) -> DynamicCache:
    """A cache that holds these keys and values; it never writes into them.

    Args:
        model: whose cache it is.
        tensors: as `cached_tensors` returns them.
    """
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return DynamicCache(pairs, config=getattr(model, "config", None))


def fixed_cache(model: nn.Module, length: int) -> StaticCache:
    """An empty cache that never moves, for `helpers.graphs`.

    Args:
        model: any causal LM whose cache is plain.
        length: most tokens a row, prompt included.
    """
    config: Any = model.config
    return StaticCache(config=config, max_cache_len=length)


def has_plain_cache(model: nn.Module) -> bool:
    """Whether the cache holds keys and values of all positions in every layer, and no more.

    Args:
        model: any causal LM of `transformers`.
    """
    return all(type(layer) is DynamicLayer for layer in new_cache(model).layers)
