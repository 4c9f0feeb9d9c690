"""What is measured: a model of 0.8 M parameters, two workloads, one reward.

A is short: 6 + 16 tokens, and no completion ends early. B is long and ragged: 64 prompt tokens,
completions of 8 to 48. So that lengths are these, the model is first taught, in some seconds, to
write random symbols and to end when it should; the result is kept in a temporary folder.
"""

import random
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.utils import logging

from helpers.models import LanguageModel
from helpers.settings import Config, Reward
from helpers.train import Loop

logging.disable_progress_bar()
logging.set_verbosity_error()
PAD, EOS = 0, 1
SYMBOLS = "0123456789+=$ abcdefghijklmnopqrstuvwxyz.,"
VOCABULARY = {"<pad>": PAD, "<eos>": EOS, "<unk>": 2} | {c: 3 + i for i, c in enumerate(SYMBOLS)}
PROMPTS, GROUP_SIZE = 32, 8  # of a step
LR, MAX_GRAD_NORM = 1e-6, 1.0  # a rate so small that lengths stay as they are
ACTIVATION = "gelu_pytorch_tanh"  # GPT-2's function in one kernel; "gelu_new" takes several


@dataclass(frozen=True)
class Workload:
    """Sizes of a step, in tokens."""

    name: str
    prompt_tokens: int
    max_new_tokens: int
    shortest: int  # completions are this long at least; uniform up to the limit, EOS included
    ends: bool  # False: no EOS at all
    lessons: int  # steps of supervised learning
    words: int = len(VOCABULARY)  # rows of the embeddings; more than the symbols are never read
    width: int = 128
    layers: int = 4


WORKLOADS = {
    "A": Workload("A", 6, 16, shortest=16, ends=False, lessons=120),
    "B": Workload("B", 64, 48, shortest=8, ends=True, lessons=250),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a symbol, padded on the left."""
    letters = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=letters,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
    )


def new_model(
    work: Workload | None = None, *, activation: str = ACTIVATION, seed: int = 0
) -> GPT2LMHeadModel:
    """GPT-2 with 4 heads, without dropout, untrained: 4 layers of width 128, or as work says.

    Args:
        work: whose sizes it has; None: A's.
        activation: of the multilayer perceptrons.
        seed: of the weights. The global random state is left as it was.
    """
    work = work or WORKLOADS["A"]
    config = GPT2Config(
        vocab_size=work.words,
        n_positions=max(128, work.prompt_tokens + work.max_new_tokens),
        n_embd=work.width,
        n_layer=work.layers,
        n_head=4,
        activation_function=activation,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def lesson(work: Workload, generator: torch.Generator, *, rows: int = 32) -> tuple[Tensor, Tensor]:
    """Random symbols that end where the workload wants it, and the mask of what is learned.

    Args:
        work: the workload.
        generator: the source of chance.
        rows: how many.
    Returns:
        token ids (rows, P+T) int64, and (rows, T) bool: which completion tokens count.
    """
    width = work.prompt_tokens + work.max_new_tokens
    ids = torch.randint(3, len(VOCABULARY), (rows, width), generator=generator)
    last = torch.full((rows, 1), work.max_new_tokens - 1)
    position = torch.arange(work.max_new_tokens)  # (T,)
    if work.ends:
        span = (work.shortest - 1, work.max_new_tokens)
        last = torch.randint(*span, (rows, 1), generator=generator)
        ids[:, work.prompt_tokens :][position == last] = EOS
    return ids, position <= last


def starting_model(work: Workload, *, activation: str = ACTIVATION) -> GPT2LMHeadModel:
    """The model that every library starts from: taught once, then read from a temporary folder.

    Args:
        work: the workload whose lengths it writes.
        activation: of the multilayer perceptrons.
    Returns:
        The model in eval mode.
    """
    if not work.lessons:
        model = new_model(work, activation=activation).eval()
        if not work.ends:
            _never_end(model)
        return model
    kept = Path(tempfile.gettempdir()) / "tokens-as-actions-benchmarks"
    kept = kept / f"{work.name}-{activation}-{work.lessons}"
    if not (kept / "config.json").exists():
        model = new_model(work, activation=activation)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
        generator = torch.Generator().manual_seed(0)
        for _ in range(work.lessons):
            ids, counts = lesson(work, generator)
            logits = model(input_ids=ids, use_cache=False).logits[:, work.prompt_tokens - 1 : -1]
            targets = ids[:, work.prompt_tokens :]
            torch.nn.functional.cross_entropy(logits[counts], targets[counts]).backward()
            optimizer.step()
            optimizer.zero_grad()
        shutil.rmtree(kept, ignore_errors=True)
        model.save_pretrained(kept)
    return GPT2LMHeadModel.from_pretrained(kept).eval()


@torch.no_grad()
def _never_end(model: GPT2LMHeadModel) -> None:
    """One direction of the last state is a constant, which speaks against EOS and for no other."""
    table, last = model.transformer.wte.weight, model.transformer.ln_f.bias
    table[:, 0] = 0.0
    table[EOS] = 0.0
    table[EOS, 0], last[0] = -10.0, 10.0  # a logit of some −100


def prompts(work: Workload, count: int, *, seed: int = 7) -> list[str]:
    """Distinct prompts of random symbols.

    Args:
        work: how long they are.
        count: how many.
        seed: of the symbols.
    """
    chance = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(chance.choices(SYMBOLS, k=work.prompt_tokens))] = None
    return list(found)


def reward(asked: list[str], completions: list[str]) -> list[float]:
    """Chance in [0, 1), fixed by the completion: no group is equal, so no row can be skipped.

    Args:
        asked: B prompts, not looked at.
        completions: B strings.
    """
    return [zlib.crc32(text.encode()) / 2**32 for text in completions]


def half_equal(asked: list[str], completions: list[str]) -> list[float]:
    """The same, but 0 for the first half of the groups: they teach nothing.

    Args:
        asked: B prompts; groups are whole.
        completions: B strings.
    """
    half = len(completions) // 2
    return [0.0] * half + reward(asked[half:], completions[half:])


def our_loop(
    work: Workload,
    asked: list[str],
    pay: Reward = reward,
    *,
    activation: str = ACTIVATION,
    **settings: Any,
) -> Loop:
    """The project's loop on a workload, with its own copy of the starting weights.

    Args:
        work: the workload.
        asked: prompts to draw from.
        pay: the reward.
        activation: of the multilayer perceptrons.
        settings: of `settings.Config`, instead of its defaults.
    """
    model = starting_model(work, activation=activation)
    lm = LanguageModel(model, tokenizer(), (EOS,), model.config.n_positions)
    usual: dict[str, Any] = {"prompts_per_step": PROMPTS, "group_size": GROUP_SIZE}
    usual |= {"max_new_tokens": work.max_new_tokens, "lr": LR, "max_grad_norm": MAX_GRAD_NORM}
    return Loop(lm, asked, pay, Config(**usual | settings))
