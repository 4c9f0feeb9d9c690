"""Decoding: key-value caches, lean steps, and on a GPU one that is captured once and replayed.

On a CPU most of a small model's decode step is the library's layers of Python; GPT-2 and Llama are
called without them, and a long prompt's keys and values are read once for its group.

On a GPU it is a few microseconds of arithmetic behind hundreds of kernels that the CPU must launch
one by one, so that the GPU mostly waits. A CUDA graph launches them all at once. It needs tensors
that stay where they are: a cache of fixed length, and counters that live on the device. The same
step runs uncaptured on a CPU, which is how the tests see that it writes what the plain loop writes.

Weights are read where they lie, so that a captured step follows every update of them.
"""

import inspect
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

from helpers import contract, cpu, models

Draw = Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor, Tensor]]
# Tokens between two looks at which rows have ended; a look makes a GPU wait for the CPU.
LOOKS = {"cpu": 1, "token by token": 16, "captured": 64}
WIDTH = 16  # prompts are padded to a multiple of this, so that few steps need capturing
LEAST_SHARED = 16  # tokens of a prompt from which reading it once for its group pays


@dataclass
class _Step:
    """The tensors of one captured step, for one shape of the batch."""

    cache: Any
    slot: Tensor  # (1,) int64: where in the cache the next token goes
    column: Tensor  # (1,) int64: the column of `uniforms` that draws the next token
    token: Tensor  # (B, 1) int64: the last token written
    position: Tensor  # (B, 1) int64: its position in its row, padding not counted
    allowed: Tensor  # (B, 1, 1, P + limit) bool: what may be attended to
    uniforms: Tensor  # (B, limit)
    written: Tensor  # (B, limit) int64
    numbers: Tensor  # (2, B, limit): log-probabilities and entropies, nats
    replay: Callable[[], None]


class Decoder:
    """Decodes with one model; keeps the step of the shape that was asked for last."""

    def __init__(self, model: nn.Module, *, capture: bool = True) -> None:
        """Nothing is captured yet.

        Args:
            model: a causal LM that `supported` accepts.
            capture: False runs the same step as it is, on any device.
        """
        self.model, self.capture = model, capture
        self._key: tuple | None = None
        self._step: _Step | None = None

    @torch.no_grad()
    def decode(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        settings: Any,
        uniforms: Tensor,
        draw: Draw,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Write completions up to the limit; what follows an end is junk.

        Args:
            prompt_ids: (G, P) integer ≥ 0, padded on the left; G ≥ 1, P ≥ 1.
            prompt_mask: (G, P) bool, False for the padding on the left.
            settings: a `rollout.SamplingSettings`; a step that was captured with others is
                captured anew.
            uniforms: (B, M) float in [0, 1), on the model's device; B = G·K, M ≥ 1.
            draw: logits (B, V), numbers (B,), settings → tokens, log-probabilities, entropies.
        Returns:
            tokens: (B, limit) int64.
            log-probabilities: (B, limit) float, nats.
            entropies: (B, limit) float, nats.
        """
        extra = -prompt_ids.shape[1] % WIDTH
        prompt_ids = nn.functional.pad(prompt_ids, (extra, 0))
        prompt_mask = nn.functional.pad(prompt_mask, (extra, 0))
        cache = new_cache(self.model)
        logits = (
            models.forward(
                self.model,
                prompt_ids,
                prompt_mask,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .repeat_interleave(settings.group_size, dim=0)
        )
        step = self._step_for(logits, prompt_ids, uniforms, draw, settings)
        self._begin(step, cache, prompt_mask, settings.group_size, uniforms)
        token, logp, entropy = draw(logits, step.uniforms[:, 0], settings)
        step.token.copy_(token.unsqueeze(1))
        step.written[:, 0], step.numbers[0, :, 0], step.numbers[1, :, 0] = token, logp, entropy
        eos = torch.tensor(settings.eos_ids, dtype=prompt_ids.dtype, device=prompt_ids.device)
        look = tokens_between_looks(prompt_ids.device, captured=True)
        for t in range(1, uniforms.shape[1]):
            if t % look == 0 and bool(torch.isin(step.written[:, :t], eos).any(1).all()):
                break
            step.replay()
        return step.written.clone(), step.numbers[0].clone(), step.numbers[1].clone()

    def _step_for(
        self, logits: Tensor, prompt_ids: Tensor, uniforms: Tensor, draw: Draw, settings: Any
    ) -> _Step:
        """The kept step if it has this shape; else a new one, captured."""
        (count, limit), width = uniforms.shape, prompt_ids.shape[1]
        key = (count, limit, width, settings, torch.is_autocast_enabled(prompt_ids.device.type))
        if self._step is not None and self._key == key:
            return self._step
        self._step = None  # frees the old cache before the new one is made
        device, whole = prompt_ids.device, torch.zeros(count, limit, dtype=torch.int64)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        step = _Step(
            cache=fixed_cache(self.model, width + limit),
            slot=torch.zeros(1, dtype=torch.int64, device=device),
            column=torch.zeros(1, dtype=torch.int64, device=device),
            token=torch.zeros(count, 1, dtype=torch.int64, device=device),
            position=torch.zeros(count, 1, dtype=torch.int64, device=device),
            allowed=torch.zeros(count, 1, 1, width + limit, dtype=torch.bool, device=device),
            uniforms=torch.zeros(count, limit, dtype=uniforms.dtype, device=device),
            written=whole.to(device),
            numbers=torch.zeros(2, count, limit, dtype=dtype, device=device),
            replay=lambda: None,
        )
        step.replay = lambda: self._one_token(step, draw, settings)
        self._key, self._step = key, step
        return step

    def _begin(
        self, step: _Step, cache: Any, prompt_mask: Tensor, group_size: int, uniforms: Tensor
    ) -> None:
        """Prompts into the fixed cache, counters to the first token; capture if it is new."""
        tensors = [t.repeat_interleave(group_size, 0) for t in cached_tensors(cache)]
        fresh = not step.cache.layers[0].is_initialized
        mask = prompt_mask.repeat_interleave(group_size, dim=0)  # (B, P)
        self._rewind(step, tensors, mask)
        step.uniforms.copy_(uniforms)
        if fresh and self.capture and uniforms.shape[1] > 1:  # the first token needs no step
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._warm_up(step, tensors, mask)
            torch.cuda.current_stream().wait_stream(stream)
            graph, eager = torch.cuda.CUDAGraph(), step.replay
            with torch.cuda.graph(graph):
                eager()
            step.replay = graph.replay
            self._rewind(step, tensors, mask)

    def _warm_up(self, step: _Step, tensors: list[Tensor], mask: Tensor) -> None:
        """Two steps in which kernels choose their workspaces, both at the first place: there may
        be no second one."""
        for _ in range(2):
            step.replay()
            self._rewind(step, tensors, mask)

    def _rewind(self, step: _Step, tensors: list[Tensor], mask: Tensor) -> None:
        width = mask.shape[1]
        for layer, keys, values in zip(step.cache.layers, tensors[::2], tensors[1::2], strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(keys, values)
            layer.keys[:, :, :width].copy_(keys)
            layer.values[:, :, :width].copy_(values)
            layer.cumulative_length.fill_(width)
        step.slot.fill_(width)
        step.column.fill_(1)
        step.position.copy_(mask.sum(1, keepdim=True) + models.first_position(self.model))
        step.allowed.zero_()
        step.allowed[:, 0, 0, :width] = mask

    def _one_token(self, step: _Step, draw: Draw, settings: Any) -> None:
        """Read the last token, draw the next: everything on the device, in fixed places."""
        step.allowed.index_fill_(3, step.slot, True)
        device = step.token.device.type
        # Autocast's copies of the weights would outlive an update of them inside a graph.
        with torch.autocast(
            device,
            dtype=torch.bfloat16,
            enabled=torch.is_autocast_enabled(device),
            cache_enabled=False,
        ):
            logits = self.model(
                input_ids=step.token,
                attention_mask=step.allowed,
                position_ids=step.position,
                past_key_values=step.cache,
                use_cache=True,
            ).logits[:, -1]
        number = step.uniforms.index_select(1, step.column).squeeze(1)
        token, logp, entropy = draw(logits, number, settings)
        step.token.copy_(token.unsqueeze(1))
        step.written.index_copy_(1, step.column, step.token)
        step.numbers[0].index_copy_(1, step.column, logp.unsqueeze(1))
        step.numbers[1].index_copy_(1, step.column, entropy.unsqueeze(1))
        for counter in (step.slot, step.column, step.position):
            counter.add_(1)


def tokens_between_looks(device: torch.device, *, captured: bool = False) -> int:
    """After how many tokens it pays to ask which rows have ended.

    Args:
        device: that of the model.
        captured: whether the step is replayed, so that a token is cheap and a look is not.
    """
    if captured:
        return LOOKS["captured"]
    return LOOKS["cpu" if device.type == "cpu" else "token by token"]


def supported(model: nn.Module) -> bool:
    """Whether a model can be decoded so: it takes positions and masks, and its cache is plain.

    Args:
        model: any causal LM of `transformers`.
    """
    takes = inspect.signature(model.forward).parameters
    if "position_ids" not in takes or "past_key_values" not in takes:
        return False
    # Eager attention would add the mask of 0 and 1 to its scores; sdpa masks with it.
    attention = getattr(getattr(model, "config", None), "_attn_implementation", None)
    return attention == "sdpa" and has_plain_cache(model)


Step = tuple[Tensor | None, Tensor]  # the rows (n,) that go on, None: all; and their tokens (n,)
Texts = Generator[Tensor, Step, None]


def cached(
    model: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor, group_size: int, limit: int
) -> Texts:
    """Texts that are being written, with the library's cache: only new tokens are read.

    Args:
        model: any causal LM of `transformers` that takes a cache.
        prompt_ids: (G, P) integer ≥ 0, padded on the left; G ≥ 1, P ≥ 1.
        prompt_mask: (G, P) bool, False for the padding on the left.
        group_size: K ≥ 1, completions a prompt.
        limit: most tokens of a completion, ≥ 1.
    Yields:
        (B, V) float logits of each row's next token; send it a `Step`.
    """
    cache = new_cache(model, room=prompt_ids.shape[1] + limit)
    kept: Any = {"past_key_values": cache, "use_cache": True}
    logits = models.forward(model, prompt_ids, prompt_mask, **kept, logits_to_keep=1).logits
    logits = logits.repeat_interleave(group_size, dim=0)  # each prompt was read once,
    cache.batch_repeat_interleave(group_size)  # and is shared by its group
    mask = prompt_mask.repeat_interleave(group_size, dim=0)
    while True:
        rows, tokens = yield logits[:, -1]
        if rows is not None:
            cache.batch_select_indices(rows)
            mask = mask[rows]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        logits = models.forward(model, tokens.unsqueeze(1), mask, **kept).logits


def lean(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    group_size: int,
    limit: int,
    *,
    share: bool | None = None,
) -> Texts:
    """As `cached`, by the modules of a GPT-2 or a Llama, without what the library puts around
    them, and with the keys and values of a long prompt kept once for its whole group.

    Args:
        model: one that `leanable` accepts.
        prompt_ids: (G, P) integer ≥ 0, padded on the left; G ≥ 1, P ≥ 1.
        prompt_mask: (G, P) bool, False for the padding on the left.
        group_size: K ≥ 1, completions a prompt.
        limit: most tokens of a completion, ≥ 1.
        share: keep a prompt's keys and values once; None: where it pays.
    Yields:
        (B, V) float logits of each row's next token; send it a `Step`.
    """
    bare, cache = models.unwrap(model), new_cache(model)
    kept: Any = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
    logits = models.forward(model, prompt_ids, prompt_mask, **kept).logits[:, -1]
    logits = logits.repeat_interleave(group_size, dim=0)
    positions = prompt_mask.sum(1).repeat_interleave(group_size)  # (B,) of the next token
    positions += models.first_position(model)
    if share is None:
        share = prompt_ids.shape[1] >= LEAST_SHARED and group_size > 1
    keys = (_SharedKeys if share else _OwnKeys)(
        cached_tensors(cache), prompt_mask, group_size, limit
    )
    while True:
        rows, tokens = yield logits
        if rows is not None:
            keys.select(rows)
            positions = positions[rows]
        with cpu.chosen_products():
            logits = LEAN[type(bare).__name__](bare, tokens, positions, keys.attend)
        keys.used += 1
        positions += 1


class _OwnKeys:
    """Keys and values of each row, its prompt's included."""

    def __init__(self, prompts: list[Tensor], mask: Tensor, size: int, limit: int) -> None:
        self.own = [
            nn.functional.pad(t.repeat_interleave(size, 0), (0, 0, 0, limit)) for t in prompts
        ]  # (B, heads, room, width of a head) each, of every layer the keys and then the values
        self.used, self.bias = mask.shape[1], self._bias(mask).repeat_interleave(size, 0)
        self.bias = nn.functional.pad(self.bias, (0, limit))  # (B, 1, 1, room)

    def _bias(self, mask: Tensor) -> Tensor:
        """0 where it may be read and −inf where filler stands, as what attention adds."""
        bias = torch.zeros_like(mask, dtype=self.own[0].dtype)
        return bias.masked_fill_(~mask, -torch.inf)[:, None, None]

    def select(self, rows: Tensor) -> None:
        self.own, self.bias = [t[rows] for t in self.own], self.bias[rows]

    def _add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.own[2 * layer : 2 * layer + 2]
        keys[:, :, self.used], values[:, :, self.used] = k, v
        return keys[:, :, : self.used + 1], values[:, :, : self.used + 1]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """(B, heads, width) each, of the new token → (B, heads · width)."""
        keys, values = self._add(layer, k, v)
        bias, grouped = self.bias[..., : self.used + 1], q.shape[1] > k.shape[1]
        return nn.functional.scaled_dot_product_attention(
            q.unsqueeze(2), keys, values, attn_mask=bias, scale=scale, enable_gqa=grouped
        ).flatten(1)


class _SharedKeys(_OwnKeys):
    """Keys and values of what each row has written; those of the prompts once for all members."""

    def __init__(self, prompts: list[Tensor], mask: Tensor, size: int, limit: int) -> None:
        super().__init__([t[:, :, :0] for t in prompts], mask[:, :0], size, limit)
        self.prompts, self.size = prompts, size
        self.slots = torch.arange(len(mask) * size)  # (B,) group and member of each row
        self.bias = self._bias(mask)  # (G, 1, 1, P)

    def select(self, rows: Tensor) -> None:
        slots = self.slots[rows]
        left, group = torch.unique(slots // self.size, return_inverse=True)
        self.slots = group * self.size + slots % self.size
        self.prompts, self.bias = [t[left] for t in self.prompts], self.bias[left]
        self.own = [t[rows] for t in self.own]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        keys, values = self._add(layer, k, v)
        q = (q * scale).unflatten(1, (k.shape[1], -1))  # (B, heads, queries a head, width)
        prompt_keys, prompt_values = self.prompts[2 * layer : 2 * layer + 2]
        on_prompt = self._to_rows(self._by_prompt(q) @ prompt_keys.mT + self.bias)
        weights = torch.cat([on_prompt, q @ keys.mT], dim=-1).softmax(-1)
        on_prompt, on_own = weights.split([prompt_keys.shape[2], self.used + 1], dim=-1)
        read = self._to_rows(self._by_prompt(on_prompt) @ prompt_values)
        return read.add_(on_own @ values).flatten(1)

    def _by_prompt(self, rows: Tensor) -> Tensor:
        """(B, heads, queries, n) → (G, heads, K · queries, n), 0 where a text has ended."""
        members = rows.new_zeros(len(self.bias) * self.size, *rows.shape[1:])
        members = members.index_copy_(0, self.slots, rows).unflatten(0, (-1, self.size))
        return members.transpose(1, 2).flatten(2, 3)

    def _to_rows(self, by_prompt: Tensor) -> Tensor:
        """What `_by_prompt` did, undone."""
        members = by_prompt.unflatten(2, (self.size, -1)).transpose(1, 2).flatten(0, 1)
        return members[self.slots]


def _gpt2_token(model: Any, tokens: Tensor, positions: Tensor, attend: Callable) -> Tensor:
    body = model.transformer
    x = body.wte(tokens) + body.wpe(positions)  # (B, D)
    for layer, block in enumerate(body.h):
        inner = block.attn
        qkv = inner.c_attn(block.ln_1(x)).unflatten(1, (3, inner.num_heads, -1)).unbind(1)
        x = x + inner.c_proj(attend(layer, *qkv, inner.scaling))
        x = x + block.mlp(block.ln_2(x))
    return model.lm_head(body.ln_f(x))


def _llama_token(model: Any, tokens: Tensor, positions: Tensor, attend: Callable) -> Tensor:
    body = model.model
    x = body.embed_tokens(tokens)  # (B, D)
    cos, sin = body.rotary_emb(x, positions.unsqueeze(1))  # (B, 1, width of a head)
    for layer, block in enumerate(body.layers):
        inner, read = block.self_attn, block.input_layernorm(x)
        q, k, v = (
            part(read).unflatten(1, (-1, inner.head_dim))  # (B, heads, width)
            for part in (inner.q_proj, inner.k_proj, inner.v_proj)
        )
        if hasattr(inner, "q_norm"):
            q, k = inner.q_norm(q), inner.k_norm(k)
        q, k = (t * cos + _rotated(t) * sin for t in (q, k))
        x = x + inner.o_proj(attend(layer, q, k, v, inner.scaling))
        x = x + block.mlp(block.post_attention_layernorm(x))
    return model.lm_head(body.norm(x))


def _rotated(pairs: Tensor) -> Tensor:
    first, second = pairs.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


LEAN = {  # classes of transformers whose step is written down here
    "GPT2LMHeadModel": _gpt2_token,
    "LlamaForCausalLM": _llama_token,
    "MistralForCausalLM": _llama_token,
    "Qwen2ForCausalLM": _llama_token,
    "Qwen3ForCausalLM": _llama_token,
}


def leanable(model: nn.Module) -> bool:
    """Whether `lean` can be tried: a known class in float32 on the CPU, and nobody has put a hook
    on, or another forward into, a module that it passes over.

    Args:
        model: any causal LM of `transformers`.
    """
    bare: Any = models.unwrap(model)
    if type(bare).__name__ not in LEAN or bare.device.type != "cpu" or bare.dtype != torch.float32:
        return False
    body = bare.base_model
    blocks = list(getattr(body, "layers", None) or body.h)
    passed_over = [bare, body, *blocks, *(getattr(b, "self_attn", None) or b.attn for b in blocks)]
    return not any(
        m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in passed_over
    )


class _RoomyLayer(DynamicLayer):
    """Keys and values with room for the tokens to come, written in place.

    The library's own layer copies all keys and values for each new token.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.used = room, 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            rows, heads, _positions, width = key_states.shape
            self.keys = key_states.new_empty(rows, heads, self.room, width)
            self.values = value_states.new_empty(rows, heads, self.room, value_states.shape[-1])
        start, self.used = self.used, self.used + key_states.shape[-2]
        self.keys[:, :, start : self.used] = key_states
        self.values[:, :, start : self.used] = value_states
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def get_seq_length(self) -> int:
        return self.used


def new_cache(model: nn.Module, *, room: int | None = None) -> DynamicCache:
    """An empty key-value cache, for one batch and one decoding run.

    Args:
        model: any causal LM of `transformers`.
        room: ≥ 1; tokens that it will hold at most, each row; for sampling alone: no gradients.
            None: it grows.
    Raises:
        ValueError: the model does not take one, as state-space models do not.
    """
    bare = models.unwrap(model)
    if "past_key_values" not in inspect.signature(bare.forward).parameters:
        raise ValueError(f"{type(bare).__name__} takes no key-value cache.")
    cache = DynamicCache(config=getattr(model, "config", None))
    if room is not None:  # layers that see all tokens; sliding windows keep their own
        cache.layers = [
            _RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers
        ]
    return cache


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
        raise ValueError(
            f"this model's cache has layers of the kinds {kinds}, which hold more "
            "than keys and values. Pass share_prompts=False."
        )
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
    """An empty cache that never moves, for `helpers.decoding`.

    Args:
        model: any causal LM whose cache is plain.
        length: ≥ 1, most tokens a row, prompt included.
    """
    config: Any = model.config
    return StaticCache(config=config, max_cache_len=length)


def has_plain_cache(model: nn.Module) -> bool:
    """Whether the cache holds keys and values of all positions in every layer, and no more.

    Args:
        model: any causal LM of `transformers`.
    """
    return all(type(layer) is DynamicLayer for layer in new_cache(model).layers)


contract.hold(globals())
