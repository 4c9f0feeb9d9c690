"""Sampling completions from a language model, and scoring them again with gradients.

A completion's last token counts: if it ended, that token is EOS, which was an action like any
other. Masks come from lengths, never from token ids.

What makes sampling fast changes no completion: a prompt is read once for its whole group, and
rows that have ended leave the batch. Each token is drawn with a random number of its own, so
that it does not matter who else is still being written.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from helpers import contract, decoding, logprobs, models, probe

PIECE = 2**18  # logits that are drawn from at once on a CPU: 1 MiB


@dataclass(frozen=True)
class RolloutBatch:
    """Completions sampled from one policy. B rows, P prompt columns, T completion columns."""

    prompt_ids: Tensor  # (B, P) int64, ≥ 0, padded on the left; B ≥ 1, P ≥ 1
    prompt_mask: Tensor  # (B, P) bool, False for the padding on the left
    completion_ids: Tensor  # (B, T) int64, ≥ 0, padded on the right; T ≥ 1
    completion_mask: Tensor  # (B, T) bool, True up to and including EOS: no row is empty
    lengths: Tensor  # (B,) int64 in [1, T], tokens, EOS included
    finished: Tensor  # (B,) bool, False where max_new_tokens cut the completion
    old_logprobs: Tensor  # (B, T) float, nats, of each token under what it was drawn from
    entropies: Tensor  # (B, T) float, nats, of the distribution that each token was drawn from

    @property
    def sizes(self) -> dict[str, int]:
        """B, P and T, for what is said of other arguments (`helpers.contract`)."""
        rows, width = self.prompt_ids.shape
        return {"B": rows, "P": width, "T": self.completion_ids.shape[1]}


@dataclass(frozen=True)
class SamplingSettings:
    """From which distribution completions are drawn, how many, and where they end."""

    eos_ids: tuple[int, ...]  # ids ≥ 0 that end a completion; empty if only the limit does
    max_new_tokens: int  # the limit ≥ 1; a completion cut here has finished == False
    group_size: int = 1  # completions a prompt, ≥ 1; the rows of one prompt are neighbours
    temperature: float = 1.0  # > 0: see `logprobs.sampling_logits`, as for top_k and top_p
    top_k: int | None = None  # ≥ 1; anything but None, like temperature ≠ 1, is another policy
    top_p: float | None = None  # share in (0, 1]

    @property
    def sizes(self) -> dict[str, int]:
        """K, for what is said of other arguments."""
        return {"K": self.group_size}

    def logits(self, logits: Tensor) -> Tensor:
        """The logits that are drawn from.

        Args:
            logits: (..., V) float, the model's; −inf marks an impossible token.
        Returns:
            (..., V) float, at least float32.
        """
        return logprobs.sampling_logits(
            at_least_float32(logits),
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )


@torch.no_grad()
def sample(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    settings: SamplingSettings | None = None,
    *,
    generator: torch.Generator | None = None,
    uniforms: Tensor | None = None,
    decoder: decoding.Decoder | None = None,
    compact_below: float = 0.75,
    **fields: Any,
) -> RolloutBatch:
    """Sample completions token by token: with a key-value cache, where that changes no number.

    Args:
        model: any causal LM of `transformers`. Sampled in eval mode; its mode is restored.
        prompt_ids: (G, P) integer ≥ 0, padded on the left; G ≥ 1, P ≥ 1.
        prompt_mask: (G, P) bool, False for the padding on the left.
        settings: the distribution, the limit, the size of a group.
        fields: instead of `settings`, its fields by name: `eos_ids=(2,), max_new_tokens=8`.
        generator: the only source of chance: `uniforms` are drawn from it.
        uniforms: instead of a generator, (B, M) float in [0, 1), on any device, one column a new
            token: the number that draws token t of row i, whatever the other rows do.
        decoder: of this model, to decode without waiting for the CPU (on a GPU).
        compact_below: share in [0, 1]. Rows that have ended leave the batch when at most this
            share of it is still being written; 0 keeps them to the end. About speed alone.
    Returns:
        B = G·group_size completions; T is the longest one's length.
    Raises:
        ValueError: a setting is out of range, prompts are not padded on the left, prompt plus
            limit exceed the context, the model is no causal language model (`helpers.probe`), or
            its logits are not finite.
    """
    settings = _chosen(settings, fields)
    check_limits(
        models.context_length(model),
        prompt_ids.shape[1],
        settings.max_new_tokens,
        settings.group_size,
    )
    shape = (len(prompt_ids) * settings.group_size, settings.max_new_tokens)
    if (generator is None) == (uniforms is None) or (
        uniforms is not None and uniforms.shape != shape
    ):
        raise ValueError(f"pass a generator, or uniforms of shape {shape}, and not both.")
    if uniforms is None:
        uniforms = draw_uniforms(shape, generator)
    uniforms = _on(uniforms, prompt_ids.device)
    way = probe.reading(model)
    was_training = model.training
    model.eval()
    try:
        if decoder is not None:
            written = decoder.decode(prompt_ids, prompt_mask, settings, uniforms, draw)
        else:
            begin: Any = whole
            if way.cached and way.together(prompt_mask):
                lean = way.lean and decoding.leanable(model)
                begin = decoding.lean if lean else decoding.cached
            texts = begin(model, prompt_ids, prompt_mask, settings.group_size, shape[1])
            written = _decode(texts, settings, uniforms, compact_below)
    finally:
        model.train(was_training)
    batch = pack(prompt_ids, prompt_mask, *written, settings.eos_ids, settings.group_size)
    _check_finite(batch)
    return batch


def _chosen(settings: SamplingSettings | None, fields: dict[str, Any]) -> SamplingSettings:
    if settings is None:
        return SamplingSettings(**fields)
    if fields:
        raise ValueError(f"pass settings, or its fields {sorted(fields)} by name, and not both.")
    return settings


def draw_uniforms(shape: tuple[int, int], generator: torch.Generator | None) -> Tensor:
    """The random numbers of a batch: one for each token that could be written.

    Args:
        shape: B ≥ 0 and max_new_tokens ≥ 0.
        generator: the source of chance, on any device.
    Returns:
        (B, max_new_tokens) float64 in [0, 1), on the generator's device; float32 on MPS.
    """
    device = generator.device if generator is not None else torch.device("cpu")
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.rand(shape, generator=generator, device=device, dtype=dtype)


def check_limits(
    context: int | None, prompt_tokens: int, max_new_tokens: int, group_size: int
) -> None:
    """Refuse what cannot be sampled.

    Args:
        context: most tokens that the model can read, ≥ 1, or None.
        prompt_tokens: of the longest prompt, ≥ 0.
        max_new_tokens: the limit of a completion, ≥ 1.
        group_size: completions a prompt, ≥ 1.
    Raises:
        ValueError: prompt plus limit exceed the context.
    """
    if context is not None and prompt_tokens + max_new_tokens > context:
        raise ValueError(
            f"{prompt_tokens} prompt tokens and up to {max_new_tokens} new ones do not fit "
            f"the model's context of {context}, beyond which its positions are not defined or "
            f"change. Shorten the prompt or lower max_new_tokens to "
            f"{max(0, context - prompt_tokens)}."
        )


def _decode(
    texts: decoding.Texts, settings: SamplingSettings, uniforms: Tensor, compact_below: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, their log-probabilities and the entropies: (B, limit) each; junk after an end."""
    device, limit = uniforms.device, uniforms.shape[1]
    logits = next(texts)  # (B, V)
    written = torch.zeros(uniforms.shape, dtype=torch.int64, device=device)
    numbers = torch.zeros(2, *written.shape, dtype=at_least_float32(logits).dtype, device=device)
    eos = torch.tensor(settings.eos_ids, dtype=torch.int64, device=device)
    rows = torch.arange(len(written), device=device)  # those still in the batch
    alive = torch.ones_like(rows, dtype=torch.bool)
    look = decoding.tokens_between_looks(device)
    for t in range(limit):
        token, logp, entropy = draw(logits, uniforms[rows, t], settings)
        written[rows, t], numbers[0, rows, t], numbers[1, rows, t] = token, logp, entropy
        alive, keep = alive & ~torch.isin(token, eos), None
        if (t + 1) % look == 0:
            left = int(alive.sum())
            if left == 0:
                break
            if left <= compact_below * len(rows):
                keep = alive.nonzero().squeeze(1)
                rows, token, alive = rows[keep], token[keep], alive[keep]
        if t + 1 < limit:
            logits = texts.send((keep, token))
    return written, numbers[0], numbers[1]


def whole(
    model: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor, group_size: int, limit: int
) -> decoding.Texts:
    """As `decoding.cached`, without a cache: every text is read whole for each of its tokens.

    Args:
        model: any causal LM of `transformers`.
        prompt_ids: (G, P) integer ≥ 0, padded on the left; G ≥ 1, P ≥ 1.
        prompt_mask: (G, P) bool, False for the padding on the left.
        group_size: K ≥ 1, completions a prompt.
        limit: most tokens of a completion, ≥ 1.
    Yields:
        (B, V) float logits of each row's next token; send it a `decoding.Step`.
    """
    ids = prompt_ids.repeat_interleave(group_size, dim=0)  # (B, P + t)
    mask = prompt_mask.repeat_interleave(group_size, dim=0)
    while True:
        rows, tokens = yield read_columns(model, ids, mask, 1)[:, 0]
        if rows is not None:
            ids, mask = ids[rows], mask[rows]
        ids = torch.cat([ids, tokens.unsqueeze(1)], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)


def _check_finite(batch: RolloutBatch) -> None:
    """One look per batch: nan would draw the last token of the vocabulary again and again."""
    good = (batch.old_logprobs.isfinite() & batch.entropies.isfinite()).all(1)
    if not bool(good.all()):
        row = int((~good).nonzero()[0, 0])
        raise ValueError(
            f"the logits that completion {row} was drawn from are not finite (nan or infinite): "
            "the weights are damaged, by a step that was too large or by a broken file."
        )


def _on(uniforms: Tensor, device: torch.device) -> Tensor:
    if device.type == "mps":  # which has no float64
        uniforms = uniforms.float().clamp(max=1 - 2**-24)
    return uniforms.to(device)


def draw(
    logits: Tensor, uniforms: Tensor, settings: SamplingSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """One token a row: the first at which the summed probabilities exceed the row's number.

    Args:
        logits: (B, V) float, the model's; −inf marks an impossible token.
        uniforms: (B,) float in [0, 1); float64 where the device has it.
        settings: of the distribution.
    Returns:
        tokens: (B,) int64.
        log-probabilities: (B,) float, nats, of the tokens under what they were drawn from.
        entropies: (B,) float, nats, of what they were drawn from.
    """
    most = max(1, PIECE // logits.shape[-1])
    if logits.device.type == "cpu" and len(logits) > most:  # what fits into a core's cache
        drawn = map(draw, logits.split(most), uniforms.split(most), itertools.repeat(settings))
        token, logp, entropy = map(torch.cat, zip(*drawn, strict=True))
        return token, logp, entropy
    logp = settings.logits(logits).log_softmax(-1)
    probs = logp.exp()  # (B, V)
    summed = probs.to(uniforms.dtype).cumsum(-1)
    threshold = (uniforms * summed[:, -1]).unsqueeze(1)  # rounding may leave the sum off 1
    token = torch.searchsorted(summed, threshold, right=True).clamp(max=logits.shape[-1] - 1)
    entropy = torch.special.entr(probs).sum(-1)  # −p log p, and 0 where p is
    return token.squeeze(1), logp.gather(1, token).squeeze(1), entropy


def pack(
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    token_ids: Tensor,
    old_logprobs: Tensor,
    entropies: Tensor,
    eos_ids: tuple[int, ...],
    group_size: int,
) -> RolloutBatch:
    """A batch from what was written, cut to the longest completion, with 0 after each end.

    Args:
        prompt_ids: (G, P) integer ≥ 0, padded on the left; G ≥ 1, P ≥ 1.
        prompt_mask: (G, P) bool, False for the padding on the left.
        token_ids: (B, M) integer ≥ 0, M ≥ 1, B ≥ 1; what follows an end may be anything.
        old_logprobs: (B, M) float, nats, nan or −inf only after an end.
        entropies: (B, M) float, nats.
        eos_ids: ids ≥ 0 that end a completion.
        group_size: K ≥ 1, completions a prompt.
    Source: chapter 07, eq. (7.1): the mask.
    """
    lengths, finished = logprobs.completion_lengths(token_ids, eos_ids)
    width = int(lengths.max())
    mask = logprobs.mask_from_lengths(lengths, width)
    old_logprobs = old_logprobs[:, :width].masked_fill(~mask, 0.0)
    entropies = entropies[:, :width].masked_fill(~mask, 0.0)
    return RolloutBatch(
        prompt_ids.repeat_interleave(group_size, dim=0),
        prompt_mask.repeat_interleave(group_size, dim=0),
        token_ids[:, :width].masked_fill(~mask, 0),
        mask,
        lengths,
        finished,
        old_logprobs,
        entropies,
    )


def completion_logprobs(
    model: nn.Module,
    batch: RolloutBatch,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Log-probabilities of a batch's completion tokens, from one teacher-forced pass.

    Args:
        model: the policy that scores, in its current mode (dropout, if it has any, would make
            the scores differ from those at sampling); it need not be the one that sampled.
        batch: what is scored.
        temperature: > 0, of the scoring distribution. To compare with `batch.old_logprobs`, pass
            what the batch was sampled with; so too for top_k and top_p.
        top_k: ≥ 1, as above.
        top_p: share in (0, 1], as above.
    Returns:
        (B, T) float, nats, 0 outside the mask; differentiable in the model's weights. With
        top_k or top_p it is −inf for a token that the scoring distribution excludes.
    """
    logits = logprobs.sampling_logits(
        at_least_float32(read(model, batch)), temperature=temperature, top_k=top_k, top_p=top_p
    )
    scores = logprobs.token_logprobs(logits, batch.completion_ids)  # (B, T)
    return scores.masked_fill(~batch.completion_mask, 0.0)


def read(model: nn.Module, batch: RolloutBatch, *, states: bool = False) -> Tensor:
    """Read every row with its own prompt, without a cache; the last token predicts nothing.

    Args:
        model: any causal LM of `transformers`.
        batch: sampled.
        states: return the last hidden states in the place of the logits.
    Returns:
        (B, T, V) float logits, or (B, T, D) states: entry t predicts token t.
    """
    token_ids = torch.cat([batch.prompt_ids, batch.completion_ids[:, :-1]], dim=1)  # (B, P+T-1)
    mask = torch.cat([batch.prompt_mask, batch.completion_mask[:, :-1]], dim=1)
    return read_columns(model, token_ids, mask, batch.completion_ids.shape[1], states=states)


def read_columns(
    model: nn.Module, token_ids: Tensor, mask: Tensor, count: int, *, states: bool = False
) -> Tensor:
    """What a model says at the last columns of texts that are padded on the left.

    A model for which filler on the left changes numbers (`probe.Reading.padded`) gets the texts
    moved to the left, with the filler behind them, where a causal model does not see it.

    Args:
        model: any causal LM of `transformers`.
        token_ids: (B, L) integer ≥ 0, B ≥ 1.
        mask: (B, L) bool, L ≥ 1: False on filler, on the left and behind a text's end; no row is
            empty.
        count: C ≤ L, C ≥ 1, columns.
        states: return the last hidden states in the place of the logits.
    Returns:
        (B, count, V) float logits, or (B, count, D) states.
    """
    extra: dict[str, Any] = {"use_cache": False}
    if states:
        extra |= {"output_hidden_states": True, "logits_to_keep": 1}
    if probe.reading(model).together(mask):
        if not states:
            extra["logits_to_keep"] = count
        output = models.forward(model, token_ids, mask, **extra)
        return (output.hidden_states[-1] if states else output.logits)[:, -count:]
    length = token_ids.shape[1]
    first = mask.int().argmax(1, keepdim=True)  # (B, 1) column of each text's first token
    moved = torch.arange(length, device=mask.device) + first  # (B, L) where each is taken from
    inside = moved < length
    moved = moved.clamp(max=length - 1)
    output = models.forward(
        model, token_ids.gather(1, moved), mask.gather(1, moved) & inside, **extra
    )
    said = output.hidden_states[-1] if states else output.logits  # (B, L, ·)
    wanted = torch.arange(length - count, length, device=mask.device) - first  # (B, count)
    wanted = wanted.clamp(min=0).unsqueeze(-1).expand(-1, -1, said.shape[-1])
    return said.gather(1, wanted)


def at_least_float32(logits: Tensor) -> Tensor:
    """Half-precision logits would round log-probabilities to two digits.

    Args:
        logits: (...) float; nan, +inf and −inf stay.
    Returns:
        (...) float32, or float64 if it was.
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


contract.hold(globals())
