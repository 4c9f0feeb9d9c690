"""Language models behind one call: load, save, encode, decode, forward.

With `helpers.decoding` the only module that imports `transformers`. Weights are read from
safetensors alone, and code that comes with a model is never run.
"""

import contextlib
import functools
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from helpers import contract, cpu

REVIEWS_MODEL = Path(__file__).parent / "pretrained" / "reviews"
ADAPTER = "adapter_config.json"
TOKENIZER_FILES = (  # any of them makes a tokenizer
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.tiktoken",
    "tekken.json",
)


if TYPE_CHECKING:
    from transformers import PreTrainedModel as Model
else:
    Model = nn.Module  # which may hold one: PEFT, DistributedDataParallel, torch.compile


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer, ready to be sampled from."""

    model: Model  # in eval mode
    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]  # every id ≥ 0 that ends a completion
    context_length: int | None  # ≥ 1: most tokens of prompt + completion; None: no fixed limit

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
        rows = [self.read(prompt) for prompt in prompts]
        width = max(len(row) for row in rows)
        filler = self.eos_ids[0]  # any valid id: padding is known by the mask, never by its id
        ids = torch.tensor([[filler] * (width - len(row)) + row for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(width) >= width - lengths.unsqueeze(1)  # (B, P)
        return ids.to(self.model.device), mask.to(self.model.device)

    def read(self, prompt: str) -> list[int]:
        """Ids of one prompt: with the BOS that its tokenizer adds, without an EOS that it adds.

        Args:
            prompt: a string.
        Returns:
            At least one id.
        Raises:
            ValueError: the prompt has no token, unknown words, a token that the model has no
                embedding for, or more tokens than the context.
        """
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt must be a string, not {prompt!r:.60}.")
        ids: list[int] = self.tokenizer(prompt).input_ids
        written: list[int] = self.tokenizer(prompt, add_special_tokens=False).input_ids
        if len(ids) > 1 and ids[-1] in self.eos_ids and ids[-1:] != written[-1:]:
            ids = ids[:-1]
        bos = self.tokenizer.bos_token_id
        ids = ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids
        self._check(prompt, ids)
        return ids

    def _check(self, prompt: str, ids: list[int]) -> None:
        if not ids:
            raise ValueError(
                f"prompt {prompt!r} has no tokens: a causal model needs at least one to "
                "predict from. Start it with a word or the tokenizer's BOS token."
            )
        unknown = self.tokenizer.unk_token_id
        if unknown in (self.tokenizer.bos_token_id, *self.eos_ids):
            unknown = None  # GPT-2's tokenizer has one token for all three, and knows every text
        if unknown is not None and unknown in ids:
            raise ValueError(
                f"prompt {prompt[:40]!r} has words that this tokenizer does not know. The "
                "shipped model knows only the words of its grammar: worlds.reviews.REVIEWS.words."
            )
        rows = _embedding_rows(self.model)
        if max(ids) >= rows:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise ValueError(_without_a_row(token, max(ids), rows))
        if self.context_length is not None and len(ids) >= self.context_length:
            raise ValueError(
                f"prompt {prompt[:40]!r}… has {len(ids)} tokens; this model's context holds "
                f"{self.context_length} with the completion. Shorten the prompt or take a "
                "model with a longer context."
            )

    def decode(
        self, completion_ids: Tensor, lengths: Tensor, *, special_tokens: bool = False
    ) -> list[str]:
        """Text of each completion, without the EOS that ends it and without what follows.

        Args:
            completion_ids: (B, T) integer ≥ 0.
            lengths: (B,) integer in [1, T], EOS included.
            special_tokens: keep those before the end, for a reward that looks for them.
        Returns:
            B strings.
        """
        rows = [row[:n] for row, n in zip(completion_ids.tolist(), lengths.tolist(), strict=True)]
        if special_tokens:
            rows = [row[:-1] if row[-1] in self._special_ends() else row for row in rows]
        skip = not special_tokens
        return [str(self.tokenizer.decode(row, skip_special_tokens=skip)) for row in rows]

    def _special_ends(self) -> set[int]:
        """Ends that are special tokens; a world's "." is a word of the text."""
        return set(self.eos_ids) & set(self.tokenizer.all_special_ids)


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
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            model, about = _load_weights(source, dtype)
    except ImportError:
        raise
    except Exception as error:  # the libraries' own kinds: OSError, ValueError, SafetensorError, …
        if Path(source).is_dir():
            raise FileNotFoundError(
                f"the folder {source!r} could not be loaded. It needs config.json, "
                "model.safetensors (not .bin) and the tokenizer's files, all whole. Reason: "
                f"{type(error).__name__}: {error!s:.400}"
            ) from error
        raise ConnectionError(
            f"the model {source!r} could not be fetched. Check the name and the network, or "
            "download it once elsewhere and pass the folder. Without COURSE_MODEL the course "
            f"uses its own model, which needs no network. Reason: {error!s:.400}"
        ) from error
    _check_weights(source, about)
    _check_tokenizer(source, tokenizer)
    eos_ids = _find_eos(model, tokenizer, eos_token)
    nn.Module.to(model, device)
    return LanguageModel(model.eval(), tokenizer, eos_ids, context_length(model))


def _load_weights(source: str, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """The model, and what its files lacked. An adapter's folder names the model that it changes."""
    options: dict[str, Any] = {"use_safetensors": True, "dtype": dtype}
    if (Path(source) / ADAPTER).is_file():
        if importlib.util.find_spec("peft") is None:
            raise ImportError(
                f"{source!r} is an adapter, which needs the package peft: pip install peft."
            )
        from peft import AutoPeftModelForCausalLM

        adapted = AutoPeftModelForCausalLM.from_pretrained(source, is_trainable=True, **options)
        return adapted, {}
    loaded = AutoModelForCausalLM.from_pretrained(
        source, trust_remote_code=False, output_loading_info=True, **options
    )
    return loaded[0], loaded[1]


def _check_weights(source: str, about: dict[str, Any]) -> None:
    """Refuse a model of which a part was drawn at random."""
    missing = sorted(about.get("missing_keys", ()))
    wrong = [str(each[0]) for each in about.get("mismatched_keys", ())]
    if missing or wrong:
        names = ", ".join([*missing, *wrong][:4])
        raise ValueError(
            f"the weights of {source!r} are missing {len(missing) + len(wrong)} tensors that its "
            f"config.json asks for ({names}, …): they would be random numbers. Is the file whole, "
            "is it of this architecture, and has it a head that predicts tokens?"
        )


def _check_tokenizer(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that the library made up, because no file of one was there."""
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(
            f"the folder {source!r} has no tokenizer (tokenizer.json). Save one there with "
            "tokenizer.save_pretrained(folder)."
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(f"the tokenizer of {source!r} has no tokens but special ones.")


def _embedding_rows(model: Any) -> int:
    return int(model.get_input_embeddings().num_embeddings)


def _without_a_row(token: str, number: int, rows: int) -> str:
    return (
        f"the token {token!r} has the id {number}, but the model has only {rows} rows of "
        "embeddings: tokenizer and model do not belong together, or "
        "model.resize_token_embeddings(len(tokenizer)) was forgotten."
    )


def save(lm: LanguageModel, folder: str | Path) -> None:
    """Write a model such that `load` reads it back.

    Args:
        lm: model and tokenizer.
        folder: made if it is missing.
    Raises:
        OSError: it could not be written.
    """
    with _quiet():
        lm.model.save_pretrained(folder)
        lm.tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, which a small model outruns; no report, which the checks here replace."""
    bars_on, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
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
    if path.is_dir():
        _check_pointers(path)
    if path.is_dir() and not ((path / "config.json").is_file() or (path / ADAPTER).is_file()):
        raise FileNotFoundError(
            f"the folder {source!r} has no config.json, so it is not a Hugging Face model "
            "folder. Save one there with model.save_pretrained(folder) and "
            "tokenizer.save_pretrained(folder)."
        )


def _check_pointers(folder: Path) -> None:
    """A clone without git-lfs has small text files in the place of large ones."""
    for path in sorted(folder.iterdir()):
        small = path.is_file() and path.stat().st_size < 1024
        if small and path.read_bytes().startswith(b"version https://git-lfs"):
            raise FileNotFoundError(
                f"{path} is a git-lfs pointer, not the file itself. Run `git lfs pull` in "
                f"{folder}, or download the file."
            )


def _find_eos(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, eos_token: str | None
) -> tuple[int, ...]:
    rows = _embedding_rows(model)
    if eos_token is not None:
        eos_id = tokenizer.get_vocab().get(eos_token)
        if eos_id is None:
            raise ValueError(f"eos_token {eos_token!r} is not in the tokenizer's vocabulary.")
        if eos_id >= rows:
            raise ValueError(_without_a_row(eos_token, eos_id, rows))
        return (eos_id,)
    ids: set[int] = set()
    for settings in (model.generation_config, model.config, text_config(model), tokenizer):
        value = getattr(settings, "eos_token_id", None)
        ids |= set(value) if isinstance(value, list) else {value} if value is not None else set()
    # A config that was never told keeps its architecture's default, which is some word here.
    meant = {tokenizer.eos_token_id, *tokenizer.all_special_ids}
    meant |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = {i for i in ids if 0 <= i < rows and i in meant}
    if not ids:
        raise ValueError(
            "this model names no end-of-sequence token, so a completion could never end by "
            "itself. Pass eos_token='…' with the token that should end one (for example '.')."
        )
    return tuple(sorted(ids))


def text_config(model: nn.Module) -> Any:
    """The settings of the part that reads and writes text, also of a model for images and text.

    Args:
        model: a Hugging Face model.
    Returns:
        A config of `transformers`; None if the model has none.
    """
    config: Any = getattr(model, "config", None)
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def context_length(model: nn.Module) -> int | None:
    """Most tokens that the model can read at once and in one way, or None if there is no limit.

    Some rotary embeddings change all their factors once a text is longer than some length, so
    that what was cached before belongs to another model. Here a text ends before.

    Args:
        model: a Hugging Face model.
    """
    config = text_config(model)
    limits = [getattr(config, "max_position_embeddings", None)]
    found: Any = getattr(config, "rope_parameters", None) or {}
    for rope in (found, *(each for each in found.values() if isinstance(each, dict))):
        if rope.get("rope_type") in ("longrope", "dynamic"):
            limits.append(rope.get("original_max_position_embeddings"))
            limits.append(getattr(config, "original_max_position_embeddings", None))
    known = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(known) - first_position(model) if known else None


def best_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def forward(model: nn.Module, token_ids: Tensor, mask: Tensor, **kwargs: Any) -> Any:
    """Call a Hugging Face causal model so that padding on the left changes nothing.

    Positions are counted from each row's first real token on, where the model takes positions.

    Args:
        model: any causal LM of `transformers`, bare or wrapped (PEFT, DDP, torch.compile).
        token_ids: (B, L) integer ≥ 0, L ≥ 1: the new tokens.
        mask: (B, M) bool over all tokens so far, cached ones included; M ≥ L, False on padding.
        kwargs: passed on; `logits_to_keep` only to models that take it.
    Returns:
        The model's output; `.logits` is (B, L, V), or fewer positions with `logits_to_keep`.
    """
    function = unwrap(model).forward
    accepted, open_ended = _parameters(getattr(function, "__func__", function))
    if "position_ids" in accepted:
        positions = (mask.cumsum(-1) - 1).clamp(min=0) + first_position(model)  # (B, M)
        kwargs["position_ids"] = positions[:, -token_ids.shape[1] :]
    if "logits_to_keep" not in accepted and not open_ended:
        kwargs.pop("logits_to_keep", None)
    with cpu.chosen_products():
        return model(input_ids=token_ids, attention_mask=mask.long(), **kwargs)


@functools.lru_cache(64)
def _parameters(function: Callable) -> tuple[frozenset[str], bool]:
    """Names that a function takes, and whether it takes others too."""
    found = inspect.signature(function).parameters
    return frozenset(found), any(p.kind is p.VAR_KEYWORD for p in found.values())


def first_position(model: nn.Module) -> int:
    """The number of a text's first position: 0, but behind that of filler in a RoBERTa.

    Args:
        model: any causal LM, bare or wrapped.
    """
    known = unwrap(model).__dict__
    if "_first_position" not in known:
        counting = [m for m in model.modules() if hasattr(m, "create_position_ids_from_input_ids")]
        known["_first_position"] = max((int(m.padding_idx) + 1 for m in counting), default=0)  # type: ignore[arg-type]
    return known["_first_position"]


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
    policy: Any = lambda token_ids: model(input_ids=token_ids, use_cache=False).logits  # noqa: E731
    policy.model = model  # for who can read it faster
    return policy


contract.hold(globals())
