"""Sampling completions from a language model, and scoring them again with gradients.

A completion's last token counts: if it ended, that token is EOS, which was an action like any
other. Masks come from lengths, never from token ids.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from helpers import logprobs, models


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


@torch.no_grad()
def sample(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    *,
    eos_ids: tuple[int, ...],
    max_new_tokens: int,
    generator: torch.Generator,
    group_size: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> RolloutBatch:
    """Sample completions token by token, with a key-value cache.

    Args:
        model: any causal LM of `transformers`. Sampled in eval mode; its mode is restored.
        prompt_ids: (P', P) integer, padded on the left.
        prompt_mask: (P', P) bool, False on padding.
        eos_ids: ids that end a completion; empty if only the limit does.
        max_new_tokens: the limit, ≥ 1. A completion cut here has finished == False.
        generator: the only source of chance, on the model's device.
        group_size: completions a prompt; the rows of one prompt are neighbours.
        temperature: see `logprobs.sampling_logits`, as are top_k and top_p.
        top_k: anything but None, like temperature ≠ 1, samples from another policy.
        top_p: likewise.
    Returns:
        B = P'·group_size completions; T is the longest one's length.
    Raises:
        ValueError: a setting is out of range, prompts are not padded on the left, prompt plus
            limit exceed the context, or the model keeps no key-value cache.
    """
    limit = models.context_length(model)
    _check_prompts(prompt_ids, prompt_mask, eos_ids)
    if max_new_tokens < 1 or group_size < 1:
        raise ValueError(
            f"max_new_tokens ({max_new_tokens}) and group_size ({group_size}) must be at least 1."
        )
    if limit is not None and prompt_ids.shape[1] + max_new_tokens > limit:
        raise ValueError(
            f"{prompt_ids.shape[1]} prompt tokens and up to {max_new_tokens} new ones do not fit "
            f"the model's context of {limit}. Shorten the prompt or lower max_new_tokens to "
            f"{max(0, limit - prompt_ids.shape[1])}."
        )
    prompt_ids = prompt_ids.repeat_interleave(group_size, dim=0)  # (B, P)
    prompt_mask = prompt_mask.repeat_interleave(group_size, dim=0)
    was_training = model.training
    model.eval()
    try:
        columns = _decode(
            model, prompt_ids, prompt_mask, eos_ids, max_new_tokens, generator,
            {"temperature": temperature, "top_k": top_k, "top_p": top_p},
        )  # fmt: skip
    finally:
        model.train(was_training)
    completion_ids = torch.stack([token for token, _ in columns], dim=1)  # (B, T)
    old_logprobs = torch.stack([logp for _, logp in columns], dim=1)
    lengths, finished = logprobs.completion_lengths(completion_ids, eos_ids)
    mask = logprobs.mask_from_lengths(lengths, completion_ids.shape[1])
    return RolloutBatch(
        prompt_ids, prompt_mask, completion_ids.masked_fill(~mask, 0), mask, lengths, finished,
        old_logprobs.masked_fill(~mask, 0.0),
    )  # fmt: skip


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
    token_ids: Tensor,
    mask: Tensor,
    eos_ids: tuple[int, ...],
    max_new_tokens: int,
    generator: torch.Generator,
    settings: dict,
) -> list[tuple[Tensor, Tensor]]:
    """One (token, log-probability) pair of (B,) tensors a step, until every row has ended."""
    cache = models.new_cache(model)
    columns: list[tuple[Tensor, Tensor]] = []
    done = torch.zeros(len(token_ids), dtype=torch.bool, device=token_ids.device)
    eos = torch.tensor(eos_ids, dtype=token_ids.dtype, device=token_ids.device)
    while len(columns) < max_new_tokens and not bool(done.all()):
        output = models.forward(
            model, token_ids, mask, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits = logprobs.sampling_logits(
            _at_least_float32(output.logits[:, -1]), **settings
        )  # (B, V)
        token = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)  # (B,)
        columns.append((token, logprobs.token_logprobs(logits, token)))
        done = done | torch.isin(token, eos)
        token_ids = token.unsqueeze(1)  # with a cache, only the new token is fed
        mask = torch.cat([mask, torch.ones_like(token_ids, dtype=torch.bool)], dim=1)
    return columns


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
    token_ids = torch.cat([batch.prompt_ids, batch.completion_ids], dim=1)  # (B, P+T)
    mask = torch.cat([batch.prompt_mask, batch.completion_mask], dim=1)
    width = batch.completion_ids.shape[1]
    output = models.forward(model, token_ids, mask, use_cache=False, logits_to_keep=width + 1)
    aligned = output.logits[:, -width - 1 : -1]  # the last prompt position predicts token 0
    logits = logprobs.sampling_logits(
        _at_least_float32(aligned), temperature=temperature, top_k=top_k, top_p=top_p
    )
    scores = logprobs.token_logprobs(logits, batch.completion_ids)  # (B, T)
    return scores.masked_fill(~batch.completion_mask, 0.0)


def _at_least_float32(logits: Tensor) -> Tensor:
    """Half-precision logits would round log-probabilities to two digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
