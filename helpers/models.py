"""Language models behind one call: load, save, encode, decode, forward.

With `helpers.decoding` the only module that imports `transformers`. Weights are read from
safetensors alone, and code that comes with a model is never run.
"""

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

REVIEWS_MODEL = Path(__file__).parent / "pretrained" / "reviews"


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer, ready to be sampled from."""

    model: PreTrainedModel  # in eval mode
    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]  # every id that ends a completion
    context_length: int | None  # most tokens of prompt + completion; None: no fixed limit

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids of prompts, padded on the left whatever the tokenizer's own habit is.

        Args:
            prompts: B strings.
        Returns:
            prompt_ids: (B, P) int64.
            prompt_mask: (B, P) bool, False on padding.
        Raises:
            ValueError: no prompt, one without a token, with unknown words, or longer than the
                context.
        """
        if isinstance(prompts, str) or not prompts:
            raise ValueError("prompts must be a list of at least one string.")
        rows: list[list[int]] = [self._read(prompt) for prompt in prompts]
        unknown = self.tokenizer.unk_token_id
        if unknown in (self.tokenizer.bos_token_id, *self.eos_ids):
            unknown = None  # GPT-2's tokenizer has one token for all three, and knows every text
        for prompt, row in zip(prompts, rows, strict=True):
            if not row:
                raise ValueError(
                    f"prompt {prompt!r} has no tokens: a causal model needs at least one to "
                    "predict from. Start it with a word or the tokenizer's BOS token."
                )
            if unknown is not None and unknown in row:
                raise ValueError(
                    f"prompt {prompt[:40]!r} has words that this tokenizer does not know. The "
                    "shipped model knows only the words of its grammar: worlds.REVIEWS.words."
                )
            if self.context_length is not None and len(row) >= self.context_length:
                raise ValueError(
                    f"prompt {prompt[:40]!r}… has {len(row)} tokens; this model's context holds "
                    f"{self.context_length} with the completion. Shorten the prompt or take a "
                    "model with a longer context."
                )
        width = max(len(row) for row in rows)
        filler = self.eos_ids[0]  # any valid id: padding is known by the mask, never by its id
        ids = torch.tensor([[filler] * (width - len(row)) + row for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(width) >= width - lengths.unsqueeze(1)  # (B, P)
        return ids.to(self.model.device), mask.to(self.model.device)

    def _read(self, prompt: str) -> list[int]:
        """Ids of a prompt: with the BOS that its tokenizer adds, without an EOS that it adds."""
        ids: list[int] = self.tokenizer(prompt).input_ids
        written: list[int] = self.tokenizer(prompt, add_special_tokens=False).input_ids
        if len(ids) > 1 and ids[-1] in self.eos_ids and ids[-1:] != written[-1:]:
            ids = ids[:-1]
        bos = self.tokenizer.bos_token_id
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids

    def decode(self, completion_ids: Tensor, lengths: Tensor) -> list[str]:
        """Text of each completion, without special tokens and without what follows its end.

        Args:
            completion_ids: (B, T) integer.
            lengths: (B,) integer, EOS included.
        Returns:
            B strings.
        """
        rows = zip(completion_ids.tolist(), lengths.tolist(), strict=True)
        return [str(self.tokenizer.decode(row[:n], skip_special_tokens=True)) for row, n in rows]


def load(
    name_or_path: str | Path | None = None,
    *,
    eos_token: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LanguageModel:
    """Load the course's reviews model, a folder, or a model from the Hugging Face hub.

    Args:
        name_or_path: a folder, or a hub name such as `Qwen/Qwen3-0.6B`. None takes the
            environment variable COURSE_MODEL, and without it the shipped reviews model.
        eos_token: the token that ends a completion, for a model that does not say it itself.
        device: where the weights go.
        dtype: of the weights.
    Returns:
        The model in eval mode with its tokenizer.
    Raises:
        FileNotFoundError: the folder is missing or incomplete.
        ConnectionError: the hub cannot be reached, or does not know the name.
        ValueError: no end-of-sequence token is known.
    """
    source = str(name_or_path or os.environ.get("COURSE_MODEL") or REVIEWS_MODEL)
    source = os.path.expanduser(source)
    _check_source(source)
    try:
        with _no_bars():
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                source, trust_remote_code=False, use_safetensors=True, dtype=dtype
            )
    except OSError as error:
        if Path(source).is_dir():
            raise FileNotFoundError(
                f"the folder {source!r} could not be loaded. It needs config.json, "
                f"model.safetensors (not .bin) and the tokenizer's files. Reason: {error}"
            ) from error
        raise ConnectionError(
            f"the model {source!r} could not be fetched. Check the name and the network, or "
            "download it once elsewhere and pass the folder. Without COURSE_MODEL the course "
            f"uses its own model, which needs no network. Reason: {error}"
        ) from error
    eos_ids = _find_eos(model, tokenizer, eos_token)
    nn.Module.to(model, device)
    return LanguageModel(model.eval(), tokenizer, eos_ids, context_length(model))


def save(lm: LanguageModel, folder: Path) -> None:
    """Write a model such that `load` reads it back.

    Args:
        lm: model and tokenizer.
        folder: made if it is missing.
    Raises:
        OSError: it could not be written.
    """
    with _no_bars():
        lm.model.save_pretrained(folder)
        lm.tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """A small model is there before a progress bar can be read."""
    bars_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars_on:
            logging.enable_progress_bar()


def _check_source(source: str) -> None:
    """Tell a missing folder from a hub name before any library asks the network."""
    path = Path(source)
    looks_like_path = path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1
    if not path.is_dir() and (looks_like_path or path.exists()):
        raise FileNotFoundError(
            f"there is no model folder {source!r}. Pass a folder that holds config.json, "
            "model.safetensors and the tokenizer's files, or a hub name like 'owner/model'. "
            "`make pretrain` rebuilds the course's own model."
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"the folder {source!r} has no config.json, so it is not a Hugging Face model "
            "folder. Save one there with model.save_pretrained(folder) and "
            "tokenizer.save_pretrained(folder)."
        )


def _find_eos(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, eos_token: str | None
) -> tuple[int, ...]:
    if eos_token is not None:
        eos_id = tokenizer.get_vocab().get(eos_token)
        if eos_id is None:
            raise ValueError(f"eos_token {eos_token!r} is not in the tokenizer's vocabulary.")
        return (eos_id,)
    declared = [
        getattr(model.generation_config, "eos_token_id", None),
        getattr(model.config, "eos_token_id", None),
        tokenizer.eos_token_id,
    ]
    ids: set[int] = set()
    for value in declared:
        ids |= set(value) if isinstance(value, list) else {value} if value is not None else set()
    embeddings: Any = model.get_input_embeddings()
    ids = {i for i in ids if 0 <= i < embeddings.num_embeddings}
    if not ids:
        raise ValueError(
            "this model names no end-of-sequence token, so a completion could never end by "
            "itself. Pass eos_token='…' with the token that should end one (for example '.')."
        )
    return tuple(sorted(ids))


def context_length(model: nn.Module) -> int | None:
    """Most tokens that the model can read at once, or None if its config sets no limit.

    Args:
        model: a Hugging Face model.
    """
    return getattr(getattr(model, "config", None), "max_position_embeddings", None)


def best_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def forward(model: nn.Module, token_ids: Tensor, mask: Tensor, **kwargs: Any) -> Any:
    """Call a Hugging Face causal model so that padding on the left changes nothing.

    Positions are counted from each row's first real token, where the model takes positions.

    Args:
        model: any causal LM of `transformers`, bare or wrapped (PEFT, DDP, torch.compile).
        token_ids: (B, L) integer: the new tokens.
        mask: (B, M) bool over all tokens so far, cached ones included; M ≥ L, False on padding.
        kwargs: passed on; `logits_to_keep` only to models that take it.
    Returns:
        The model's output; `.logits` is (B, L, V), or fewer positions with `logits_to_keep`.
    """
    accepted = inspect.signature(unwrap(model).forward).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    if "position_ids" in accepted:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)  # (B, M)
        kwargs["position_ids"] = positions[:, -token_ids.shape[1] :]
    if "logits_to_keep" not in accepted and not open_ended:
        kwargs.pop("logits_to_keep", None)
    return model(input_ids=token_ids, attention_mask=mask.long(), **kwargs)


def unwrap(model: nn.Module) -> nn.Module:
    """The model whose signature counts, below the wrappers that hide it behind **kwargs.

    Args:
        model: any causal LM, bare or wrapped (PEFT, DDP, torch.compile).
    """
    for name in ("_orig_mod", "module"):  # torch.compile, DistributedDataParallel
        model = getattr(model, name, model)
    base: Any = getattr(model, "get_base_model", None)  # PEFT
    return base() if base else model


def as_policy(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A Hugging Face causal model as a policy: token ids (B, L) → logits (B, L, V).

    Args:
        model: any causal LM of `transformers`; gradients flow. No padding, no cache.
    """
    return lambda token_ids: model(input_ids=token_ids, use_cache=False).logits
