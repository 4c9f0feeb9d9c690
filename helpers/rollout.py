"""Sampling completions from a language model, and scoring them again with gradients.

A completion's last token counts: if it ended, that token is EOS, which was an action like any
other. Masks come from lengths, never from token ids.

What makes sampling fast changes no completion: a prompt is read once for its whole group, and
rows that have ended leave the batch. Each token is drawn with a random number of its own, so
that it does not matter who else is still being written.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from helpers import decoding, logprobs, models


@dataclass(frozen=True)
class RolloutBatch:
    """Completions sampled from one policy. B rows, P prompt columns, T completion columns."""

    prompt_ids: Tensor  # (B, P) int64, padded on the left
    prompt_mask: Tensor  # (B, P) bool, False on padding
    completion_ids: Tensor  # (B, T) int64, padded on the right
    completion_mask: Tensor  # (B, T) bool, True up to and including EOS
    lengths: Tensor  # (B,) int64, tokens, EOS included
    finished: Tensor  # (B,) bool, False where max_new_tokens cut the completion
    old_logprobs: Tensor  # (B, T) nats, of each token under the distribution it was drawn from
    entropies: Tensor  # (B, T) nats, of the distribution that each token was drawn from


@dataclass(frozen=True)
class SamplingSettings:
    """From which distribution completions are drawn, how many, and where they end."""

    eos_ids: tuple[int, ...]  # ids that end a completion; empty if only the limit does
    max_new_tokens: int  # the limit, ≥ 1; a completion cut here has finished == False
    group_size: int = 1  # completions a prompt; the rows of one prompt are neighbours
    temperature: float = 1.0  # see `logprobs.sampling_logits`, as for top_k and top_p
    top_k: int | None = None  # anything but None, like temperature ≠ 1, is another policy
    top_p: float | None = None

    def logits(self, logits: Tensor) -> Tensor:
        """The logits that are drawn from.

        Args:
            logits: (..., V) float, the model's.
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
    settings: SamplingSettings,
    *,
    generator: torch.Generator | None = None,
    uniforms: Tensor | None = None,
    decoder: decoding.Decoder | None = None,
    compact_below: float = 0.75,
) -> RolloutBatch:
    """Sample completions token by token, with a key-value cache.

    Args:
        model: any causal LM of `transformers`. Sampled in eval mode; its mode is restored.
        prompt_ids: (P', P) integer, padded on the left.
        prompt_mask: (P', P) bool, False on padding.
        settings: the distribution, the limit, the size of a group.
        generator: the only source of chance: `uniforms` are drawn from it.
        uniforms: instead of a generator, (B, max_new_tokens) float64 in [0, 1): the number
            that draws token t of row i, whatever the other rows do.
        decoder: of this model, to decode without waiting for the CPU (on a GPU).
        compact_below: rows that have ended leave the batch when at most this share of it is
            still being written; 0 keeps them to the end. About speed alone.
    Returns:
        B = P'·group_size completions; T is the longest one's length.
    Raises:
        ValueError: a setting is out of range, prompts are not padded on the left, prompt plus
            limit exceed the context, or the model keeps no key-value cache.
    """
    _check_prompts(prompt_ids, prompt_mask, settings.eos_ids)
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
    was_training = model.training
    model.eval()
    try:
        if decoder is None:
            written = _decode(model, prompt_ids, prompt_mask, settings, uniforms, compact_below)
        else:
            written = decoder.decode(prompt_ids, prompt_mask, settings, uniforms, draw)
    finally:
        model.train(was_training)
    return pack(prompt_ids, prompt_mask, *written, settings.eos_ids, settings.group_size)


def draw_uniforms(shape: tuple[int, int], generator: torch.Generator | None) -> Tensor:
    """The random numbers of a batch: one for each token that could be written.

    Args:
        shape: (B, max_new_tokens).
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
        context: most tokens that the model can read, or None.
        prompt_tokens: of the longest prompt.
        max_new_tokens: the limit of a completion.
        group_size: completions a prompt.
    Raises:
        ValueError: a number is below 1, or prompt plus limit exceed the context.
    """
    if max_new_tokens < 1 or group_size < 1:
        raise ValueError(
            f"max_new_tokens ({max_new_tokens}) and group_size ({group_size}) must be at least 1."
        )
    if context is not None and prompt_tokens + max_new_tokens > context:
        raise ValueError(
            f"{prompt_tokens} prompt tokens and up to {max_new_tokens} new ones do not fit "
            f"the model's context of {context}. Shorten the prompt or lower max_new_tokens to "
            f"{max(0, context - prompt_tokens)}."
        )


def _check_prompts(prompt_ids: Tensor, prompt_mask: Tensor, eos_ids: tuple[int, ...]) -> None:
    if prompt_ids.shape != prompt_mask.shape or prompt_mask.dtype != torch.bool:
        raise ValueError(
            f"prompt_ids {tuple(prompt_ids.shape)} and prompt_mask {tuple(prompt_mask.shape)} need "
            f"one shape (B, P), and the mask must be bool, got {prompt_mask.dtype}."
        )
    if not prompt_mask.numel() or not prompt_mask[:, -1].all():
        raise ValueError(
            "the last column of prompt_mask must be True: prompts are padded on the left and have "
            "at least one token. LanguageModel.encode does that."
        )
    if not isinstance(eos_ids, tuple):
        raise ValueError(f"eos_ids must be a tuple of ids such as (2,), got {eos_ids!r}.")


def _decode(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    settings: SamplingSettings,
    uniforms: Tensor,
    compact_below: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, their log-probabilities and the entropies: (B, limit) each; junk after an end."""
    device, (count, limit) = prompt_ids.device, uniforms.shape
    eos = torch.tensor(settings.eos_ids, dtype=prompt_ids.dtype, device=device)
    written = torch.zeros(count, limit, dtype=prompt_ids.dtype, device=device)
    cache = decoding.new_cache(model, room=prompt_ids.shape[1] + limit)
    logits = models.forward(
        model, prompt_ids, prompt_mask, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits[:, -1]  # (P', V): each prompt is read once,
    cache.batch_repeat_interleave(settings.group_size)  # and shared by its group
    logits = logits.repeat_interleave(settings.group_size, dim=0)  # (B, V)
    mask = prompt_mask.repeat_interleave(settings.group_size, dim=0)
    numbers = torch.zeros(2, count, limit, dtype=at_least_float32(logits).dtype, device=device)
    rows = torch.arange(count, device=device)  # those still in the batch
    alive = torch.ones_like(rows, dtype=torch.bool)
    look = decoding.tokens_between_looks(device)
    for t in range(limit):
        token, logp, entropy = draw(logits, uniforms[rows, t], settings)
        written[rows, t], numbers[0, rows, t], numbers[1, rows, t] = token, logp, entropy
        alive = alive & ~torch.isin(token, eos)
        if (t + 1) % look == 0:
            left = int(alive.sum())
            if left == 0:
                break
            if left <= compact_below * len(rows):
                keep = alive.nonzero().squeeze(1)
                cache.batch_select_indices(keep)
                rows, token, mask, alive = rows[keep], token[keep], mask[keep], alive[keep]
        if t + 1 < limit:
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            logits = models.forward(
                model, token.unsqueeze(1), mask, past_key_values=cache, use_cache=True
            ).logits[:, -1]  # with a cache, only the new token is fed
    return written, numbers[0], numbers[1]


def _on(uniforms: Tensor, device: torch.device) -> Tensor:
    if device.type == "mps":  # which has no float64
        uniforms = uniforms.float().clamp(max=1 - 2**-24)
    return uniforms.to(device)


def draw(
    logits: Tensor, uniforms: Tensor, settings: SamplingSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """One token a row: the first at which the summed probabilities exceed the row's number.

    Args:
        logits: (B, V) float, the model's.
        uniforms: (B,) float in [0, 1); float64 where the device has it.
        settings: of the distribution.
    Returns:
        tokens: (B,) int64.
        log-probabilities: (B,) float, nats, of the tokens under what they were drawn from.
        entropies: (B,) float, nats, of what they were drawn from.
    """
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
        prompt_ids: (P', P) integer, padded on the left.
        prompt_mask: (P', P) bool.
        token_ids: (B, limit) integer; what follows an end may be anything.
        old_logprobs: (B, limit) float, nats.
        entropies: (B, limit) float, nats.
        eos_ids: ids that end a completion.
        group_size: completions a prompt.
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
        temperature: of the scoring distribution. To compare with `batch.old_logprobs`, pass
            what the batch was sampled with; so too for top_k and top_p.
        top_k: as above.
        top_p: as above.
    Returns:
        (B, T) float, nats, 0 outside the mask; differentiable in the model's weights. With
        top_k or top_p it is −inf for a token that the scoring distribution excludes.
    """
    width = batch.completion_ids.shape[1]
    aligned = read(model, batch, logits_to_keep=width).logits[:, -width:]
    logits = logprobs.sampling_logits(
        at_least_float32(aligned), temperature=temperature, top_k=top_k, top_p=top_p
    )
    scores = logprobs.token_logprobs(logits, batch.completion_ids)  # (B, T)
    return scores.masked_fill(~batch.completion_mask, 0.0)


def read(model: nn.Module, batch: RolloutBatch, **kwargs: Any) -> Any:
    """Read every row with its own prompt, without a cache; the last token predicts nothing.

    Args:
        model: any causal LM of `transformers`.
        batch: sampled.
        kwargs: as for `models.forward`.
    Returns:
        The model's output; its last T positions belong to the states that the tokens were
        drawn in: entry t predicts token t.
    """
    token_ids = torch.cat([batch.prompt_ids, batch.completion_ids[:, :-1]], dim=1)  # (B, P+T-1)
    mask = torch.cat([batch.prompt_mask, batch.completion_mask[:, :-1]], dim=1)
    return models.forward(model, token_ids, mask, use_cache=False, **kwargs)


def at_least_float32(logits: Tensor) -> Tensor:
    """Half-precision logits would round log-probabilities to two digits.

    Args:
        logits: (...) float.
    Returns:
        (...) float32, or float64 if it was.
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
