"""Imitation: cross-entropy on fresh reviews, and how far the model stays from its grammar.

A step draws new reviews, so that there is nothing to overfit, and the loss has a known floor:
the grammar's entropy. Left out of what is usual at full size: several passes over a fixed set of
texts, packing many texts into one row, a validation set, mixed precision.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course.worlds.reviews import REVIEWS
from helpers import contract, kl, logprobs, models

BATCH, MICRO_BATCH, LEARNING_RATE = 32, 16, 3e-3


@dataclass(frozen=True)
class StepRecord:
    """What one step of imitation saw, before its weights were moved."""

    nats: float  # ≥ 0, summed surprise of the batch, −Σ log p_θ(review, EOS)
    reviews: int  # ≥ 1
    tokens: int  # ≥ 1: scored tokens: every word, and EOS once a review
    gradient_norm: float  # ≥ 0, of the loss in nats per token, before clipping

    @property
    def nats_per_review(self) -> float:
        """The cross-entropy estimate that the grammar's entropy is the floor of."""
        return self.nats / self.reviews

    @property
    def nats_per_token(self) -> float:
        """The number whose exponential is the perplexity."""
        return self.nats / self.tokens


def draw(count: int, generator: torch.Generator, context_length: int | None = None) -> list[str]:
    """Reviews that fit the context with `<bos>` and `<eos>`; longer ones are about 1 in 10^5.

    Args:
        count: ≥ 1, how many are drawn; rarely one fewer is returned.
        generator: the source of chance.
        context_length: ≥ 1, most tokens that the model can read; None: no limit.
    """
    texts = REVIEWS.sample(count, generator)
    return [t for t in texts if context_length is None or len(t.split()) + 2 <= context_length]


def encode(lm: models.LanguageModel, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids of whole texts, `<bos>` first and `<eos>` last, padded on the right.

    Args:
        lm: its tokenizer puts `<bos>` in front.
        texts: B strings of known words, B ≥ 1.
    Returns:
        token_ids: (B, L) int64.
        lengths: (B,) int64: tokens that are scored, which is all but `<bos>`.
    Raises:
        ValueError: no text, or a word that the tokenizer does not know.
    """
    rows: list[list[int]] = [[*row, lm.eos_ids[0]] for row in lm.tokenizer(list(texts)).input_ids]
    unknown = lm.tokenizer.unk_token_id
    for text, row in zip(texts, rows, strict=True):
        if unknown is not None and unknown in row:
            raise ValueError(f"{text[:40]!r} has words that this tokenizer does not know.")
    width = max(map(len, rows))
    filler = lm.tokenizer.pad_token_id or 0  # any valid id: lengths say what counts
    token_ids = torch.tensor([row + [filler] * (width - len(row)) for row in rows])
    return token_ids, torch.tensor([len(row) - 1 for row in rows])


def score(lm: models.LanguageModel, texts: Sequence[str], *, prompt_words: int = 0) -> Tensor:
    """log p(review, EOS | BOS), or of what follows the first words of each review.

    Args:
        lm: the model that scores.
        texts: B strings, B ≥ 1.
        prompt_words: ≥ 0, so many words at the start are read and not scored.
    Returns:
        (B,) float, nats: sums over tokens, differentiable in the weights.
    Raises:
        ValueError: as `encode`, or a text has no more words than the prompt.
    Source: chapter 02, eq. (2.1).
    """
    token_ids, lengths = encode(lm, texts)
    if prompt_words and int(lengths.min()) <= prompt_words + 1:
        raise ValueError(f"some text has no word after its first {prompt_words}.")
    width = token_ids.shape[1] - 1
    mask = logprobs.mask_from_lengths(lengths, width)
    mask = mask & (torch.arange(width) >= prompt_words)
    inputs_mask = torch.ones_like(token_ids[:, :-1])  # padding is right of all that is scored
    logits = lm.model(
        input_ids=token_ids[:, :-1], attention_mask=inputs_mask, use_cache=False
    ).logits
    return logprobs.sequence_logprobs(logprobs.token_logprobs(logits, token_ids[:, 1:]), mask)


def step(
    lm: models.LanguageModel,
    texts: Sequence[str],
    optimizer: torch.optim.Optimizer,
    *,
    micro_batch: int = MICRO_BATCH,
) -> StepRecord:
    """One step downhill on the mean surprise per token of these texts.

    Args:
        lm: its weights are moved, in place.
        texts: B strings, B ≥ 1; sorted by length they need little padding.
        optimizer: of these weights.
        micro_batch: ≥ 1, texts that are scored at once; it changes the memory, not the gradient.
    Source: chapter 02, section 2.2.
    """
    num_tokens = sum(len(text.split()) + 1 for text in texts)  # EOS is a target too
    optimizer.zero_grad()
    nats = 0.0
    for start in range(0, len(texts), micro_batch):
        loss = -score(lm, texts[start : start + micro_batch]).sum()
        (loss / num_tokens).backward()  # the whole batch's count, not the micro-batch's
        nats += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
    optimizer.step()
    return StepRecord(nats, len(texts), num_tokens, float(norm))


def new_optimizer(
    lm: models.LanguageModel, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, and a learning rate that rises for 30 % of the steps and then falls to zero.

    Args:
        lm: whose weights are moved.
        steps: ≥ 1, length of the run.
    """
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)


def train(
    lm: models.LanguageModel, steps: int, generator: torch.Generator, *, batch: int = BATCH
) -> Iterator[StepRecord]:
    """Cross-entropy on fresh reviews; one record a step, after the step was taken.

    Args:
        lm: its weights are moved, in place.
        steps: ≥ 1, how many.
        generator: the source of the reviews.
        batch: ≥ 1, reviews a step.
    """
    optimizer, schedule = new_optimizer(lm, steps)
    for _ in range(steps):
        texts = sorted(draw(batch, generator, lm.context_length), key=len)
        record = step(lm, texts, optimizer)
        schedule.step()
        yield record


@torch.no_grad()
def surprise(lm: models.LanguageModel, texts: Sequence[str], *, chunk: int = 500) -> Tensor:
    """−log p(review, EOS | BOS) of many reviews, without gradients.

    Args:
        lm: the model that is surprised.
        texts: B strings, B ≥ 1.
        chunk: ≥ 1, texts that are scored at once.
    Returns:
        (B,) float64, nats; the mean over reviews of the grammar estimates the cross-entropy.
    """
    parts = [score(lm, texts[start : start + chunk]) for start in range(0, len(texts), chunk)]
    return -torch.cat(parts).double()


def exact_conditionals(lm: models.LanguageModel, texts: Sequence[str]) -> Tensor:
    """The grammar's own next-word distribution after every prefix of every text.

    Args:
        lm: its tokenizer numbers the words.
        texts: B reviews, B ≥ 1.
    Returns:
        (B, T, V) float64, nats, T = tokens of the longest review with EOS; log-probabilities,
        −inf on words that cannot come, and everywhere outside a review.
    """
    vocabulary = lm.tokenizer.get_vocab() | {"": lm.eos_ids[0]}
    rows = [text.split() for text in texts]
    width = max(len(row) for row in rows) + 1
    table = torch.full((len(rows), width, len(lm.tokenizer)), -torch.inf, dtype=torch.float64)
    known: dict[str, tuple[Tensor, Tensor]] = {}
    for i, row in enumerate(rows):
        for t in range(len(row) + 1):
            prefix = " ".join(row[:t])
            if prefix not in known:
                following = REVIEWS.next_word(prefix)
                ids = torch.tensor([vocabulary[word] for word in following])
                known[prefix] = ids, torch.tensor(list(following.values()), dtype=torch.float64)
            ids, probs = known[prefix]
            table[i, t, ids] = probs.log()
    return table


@torch.no_grad()
def kl_along(lm: models.LanguageModel, texts: Sequence[str], truth: Tensor) -> Tensor:
    """Σ_t KL(grammar's next word ‖ model's next word) along each review, exact at every prefix.

    Its mean over reviews of the grammar estimates KL(grammar ‖ model), by the chain rule. No
    entry can be negative, and it varies less than the log-ratio of whole reviews.

    Args:
        lm: the model.
        texts: B reviews, B ≥ 1 of the grammar.
        truth: (B, T, V) float64 ≤ 0, nats, −inf on what cannot come, from `exact_conditionals(lm,
            texts)`.
    Returns:
        (B,) float64, nats.
    Source: chapter 02, eq. (2.3); Cover and Thomas (2006), theorem 2.5.3.
    """
    token_ids, lengths = encode(lm, texts)
    logits = models.as_policy(lm.model)(token_ids[:, :-1]).double()
    terms = kl.kl_divergence(truth, logits.log_softmax(-1))  # (B, T); 0 outside a review
    mask = logprobs.mask_from_lengths(lengths, terms.shape[1])
    return terms.masked_fill(~mask, 0.0).sum(-1)


def measure(lm: models.LanguageModel, count: int, generator: torch.Generator) -> dict[str, float]:
    """KL(grammar ‖ model) a review, from fresh reviews whose exact log-probability is known.

    Args:
        lm: the model.
        count: ≥ 2, reviews to draw.
        generator: the source of the reviews.
    """
    texts = draw(count, generator, lm.context_length)
    truth = torch.tensor([REVIEWS.logprob(text) for text in texts], dtype=torch.float64)
    gap = truth + surprise(lm, texts)
    return {
        "kl_grammar_to_model_nats_per_review": gap.mean().item(),
        "kl_standard_error": gap.std().item() / math.sqrt(len(texts)),
        "kl_reviews_sampled": len(texts),
        "grammar_entropy_nats_per_review": REVIEWS.entropy(),
        "grammar_expected_words_per_review": REVIEWS.expected_length(),
        "grammar_expected_sentiment": REVIEWS.expected_score(),
    }


contract.hold(globals())
