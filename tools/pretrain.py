"""Pretrain the reviews model on its grammar and measure how far from it it stays.

    python tools/pretrain.py [--steps N] [--out FOLDER]

Writes config.json, model.safetensors, the tokenizer's files and card.json (the measurements)
into helpers/pretrained/reviews. The same seed gives the same file on the same machine.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from course.worlds import imitation, reviews, tiny_models
from helpers import models

SEED = 0
PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; `<bos>` is put in front of every text."""
    vocab = {token: i for i, token in enumerate([PAD, BOS, EOS, UNK, *reviews.REVIEWS.words])}
    words = Tokenizer(WordLevel(vocab, unk_token=UNK))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocab[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


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
    model = tiny_models.new_reviews_model(len(tokenizer), seed=SEED)
    model.config.bos_token_id = model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    eos_ids = (tokenizer.get_vocab()[EOS],)
    lm = models.LanguageModel(model, tokenizer, eos_ids, models.context_length(model))
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(SEED)
    progress = tqdm(imitation.train(lm, options.steps, generator), total=options.steps)
    for step, record in enumerate(progress):
        if step % 50 == 0:
            progress.set_postfix(nats_per_token=f"{record.nats_per_token:.3f}")
    seconds = time.perf_counter() - started
    model.eval()
    card = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": SEED,
        "steps": options.steps,
        "reviews_seen": options.steps * imitation.BATCH,
        **imitation.measure(lm, options.samples, torch.Generator().manual_seed(SEED + 1)),
    }
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    (options.out / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card, indent=2))
    print(f"trained in {seconds:.0f} s, written to {options.out.name}/")


if __name__ == "__main__":
    main()
