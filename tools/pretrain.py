"""Pretrain the reviews model on its grammar and measure how far from it it stays.

    python tools/pretrain.py [--steps N] [--out FOLDER]

Writes config.json, model.safetensors, the tokenizer's files and card.json (the measurements)
into helpers/pretrained/reviews. The same seed gives the same file on the same machine.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from helpers import logprobs, models, worlds

SEED, BATCH, MICRO_BATCH, LEARNING_RATE = 0, 32, 16, 3e-3
PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; `<bos>` is put in front of every text."""
    vocab = {token: i for i, token in enumerate([PAD, BOS, EOS, UNK, *worlds.REVIEWS.words])}
    words = Tokenizer(WordLevel(vocab, unk_token=UNK))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocab[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK,
        padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip


def score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> torch.Tensor:
    """(B,) nats: log p(review, EOS | BOS)."""
    rows = [[*row, tokenizer.eos_token_id] for row in tokenizer(list(texts)).input_ids]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    mask = logprobs.mask_from_lengths(torch.tensor([len(row) - 1 for row in rows]), width - 1)
    inputs_mask = torch.ones_like(ids[:, :-1])  # padding on the right, after all that is scored
    logits = model(input_ids=ids[:, :-1], attention_mask=inputs_mask, use_cache=False).logits
    return logprobs.sequence_logprobs(logprobs.token_logprobs(logits, ids[:, 1:]), mask)


def draw(count: int, generator: torch.Generator, context: int) -> list[str]:
    """Reviews that fit the context with `<bos>` and `<eos>`; longer ones are about 1 in 10^5."""
    texts = worlds.REVIEWS.sample(count, generator)
    return [text for text in texts if len(text.split()) + 2 <= context]


def train(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, steps: int) -> None:
    """Cross-entropy on fresh reviews at every step, so that there is nothing to overfit."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    progress = tqdm(range(steps))
    for step in progress:
        texts = sorted(draw(BATCH, generator, model.config.n_positions), key=len)
        num_tokens = sum(len(text.split()) + 1 for text in texts)  # EOS is a target too
        optimizer.zero_grad()
        nats = 0.0
        for start in range(0, len(texts), MICRO_BATCH):  # of similar length: little padding
            loss = -score(model, tokenizer, texts[start : start + MICRO_BATCH]).sum()
            (loss / num_tokens).backward()  # the whole batch's count, not the micro-batch's
            nats += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(nats_per_token=f"{nats / num_tokens:.3f}")


@torch.no_grad()
def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, count: int = 10_000
) -> dict[str, float]:
    """KL(grammar ‖ model) a review, from fresh reviews whose exact log-probability is known."""
    texts = draw(count, torch.Generator().manual_seed(SEED + 1), model.config.n_positions)
    truth = torch.tensor([worlds.REVIEWS.logprob(text) for text in texts], dtype=torch.float64)
    chunks = [texts[start : start + 500] for start in range(0, len(texts), 500)]
    scores = torch.cat([score(model, tokenizer, chunk) for chunk in chunks]).double()
    gap = truth - scores
    return {
        "kl_grammar_to_model_nats_per_review": gap.mean().item(),
        "kl_standard_error": gap.std().item() / math.sqrt(len(texts)),
        "kl_reviews_sampled": len(texts),
        "grammar_entropy_nats_per_review": worlds.REVIEWS.entropy(),
        "grammar_expected_words_per_review": worlds.REVIEWS.expected_length(),
        "grammar_expected_sentiment": worlds.REVIEWS.expected_score(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=models.REVIEWS_MODEL)
    parser.add_argument("--samples", type=int, default=10_000)
    options = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # sums in one order: the same file every time
    torch.use_deterministic_algorithms(True)
    tokenizer = build_tokenizer()
    model = models.new_reviews_model(len(tokenizer), seed=SEED)
    model.config.bos_token_id = model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    started = time.perf_counter()
    train(model, tokenizer, options.steps)
    seconds = time.perf_counter() - started
    model.eval()
    card = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": SEED,
        "steps": options.steps,
        "reviews_seen": options.steps * BATCH,
        **measure(model, tokenizer, options.samples),
    }
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    (options.out / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card, indent=2))
    print(f"trained in {seconds:.0f} s, written to {options.out.name}/")


if __name__ == "__main__":
    main()
