"""Seeded bugs in imitation, its measurements, and the rewards of chapter 02."""

import re

import torch

from course.worlds import imitation, reviews, rewards
from helpers import kl, logprobs, models
from tests.mutant import Mutant

ORIGINAL = {
    "encode": imitation.encode,
    "score": imitation.score,
    "addition_answer": rewards.addition_answer,
    "mask_from_lengths": logprobs.mask_from_lengths,
    "reviews_grammar": reviews.reviews_grammar,
}


# ---------------------------------------------------------------------------------- imitation


def micro_batch_divides_by_its_own_count(lm, texts, optimizer, *, micro_batch=16):
    optimizer.zero_grad()
    nats = 0.0
    parts = [texts[k : k + micro_batch] for k in range(0, len(texts), micro_batch)]
    for part in parts:
        loss = -imitation.score(lm, part).sum()
        (loss / sum(len(text.split()) + 1 for text in part) / len(parts)).backward()
        nats += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
    optimizer.step()
    tokens = sum(len(text.split()) + 1 for text in texts)
    return imitation.StepRecord(nats, len(texts), tokens, float(norm))


def gradients_not_cleared(lm, texts, optimizer, *, micro_batch=16):
    tokens = sum(len(text.split()) + 1 for text in texts)
    loss = -imitation.score(lm, texts).sum()
    (loss / tokens).backward()
    norm = torch.nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
    optimizer.step()
    return imitation.StepRecord(loss.item(), len(texts), tokens, float(norm))


def uphill(lm, texts, optimizer, *, micro_batch=16):
    tokens = sum(len(text.split()) + 1 for text in texts)
    optimizer.zero_grad()
    loss = imitation.score(lm, texts).sum()
    (loss / tokens).backward()
    norm = torch.nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
    optimizer.step()
    return imitation.StepRecord(-loss.item(), len(texts), tokens, float(norm))


def eos_is_no_target(lm, texts):
    token_ids, lengths = ORIGINAL["encode"](lm, texts)
    return token_ids, lengths - 1


def eos_never_appended(lm, texts):
    token_ids, lengths = ORIGINAL["encode"](lm, texts)
    last = torch.arange(token_ids.shape[1]) >= lengths.unsqueeze(1)
    return token_ids.masked_fill(last, lm.tokenizer.pad_token_id), lengths


def padding_is_scored(lm, texts):
    token_ids, lengths = ORIGINAL["encode"](lm, texts)
    return token_ids, torch.full_like(lengths, token_ids.shape[1] - 1)


def prompt_is_scored(lm, texts, *, prompt_words=0):
    return ORIGINAL["score"](lm, texts)


def one_word_too_many_is_read(lm, texts, *, prompt_words=0):
    return ORIGINAL["score"](lm, texts, prompt_words=prompt_words + 1 if prompt_words else 0)


def mean_over_tokens(lm, texts, *, prompt_words=0):
    _, lengths = ORIGINAL["encode"](lm, texts)
    return ORIGINAL["score"](lm, texts, prompt_words=prompt_words) / (lengths - prompt_words)


def inputs_not_shifted(lm, texts, *, prompt_words=0):
    token_ids, lengths = ORIGINAL["encode"](lm, texts)
    logits = lm.model(input_ids=token_ids).logits[:, 1:]
    mask = ORIGINAL["mask_from_lengths"](lengths, token_ids.shape[1] - 1)
    mask = mask & (torch.arange(mask.shape[1]) >= prompt_words)
    return logprobs.sequence_logprobs(logprobs.token_logprobs(logits, token_ids[:, 1:]), mask)


@torch.no_grad()
def kl_of_the_model_first(lm, texts, truth):
    token_ids, lengths = ORIGINAL["encode"](lm, texts)
    model = models.as_policy(lm.model)(token_ids[:, :-1]).double().log_softmax(-1)
    terms = kl.kl_divergence(model, truth.clamp(min=-30))
    mask = ORIGINAL["mask_from_lengths"](lengths, terms.shape[1])
    return terms.masked_fill(~mask, 0.0).sum(-1)


@torch.no_grad()
def kl_forgets_the_end(lm, texts, truth):
    token_ids, lengths = ORIGINAL["encode"](lm, texts)
    model = models.as_policy(lm.model)(token_ids[:, :-1]).double().log_softmax(-1)
    terms = kl.kl_divergence(truth, model)
    mask = ORIGINAL["mask_from_lengths"](lengths - 1, terms.shape[1])
    return terms.masked_fill(~mask, 0.0).sum(-1)


# ------------------------------------------------------------------------------------- rewards


def critics_swapped(praise=0.4):
    return ORIGINAL["reviews_grammar"](1 - praise)


def unfinished_texts_accepted(prompts, completions):
    values = []
    for prompt, text in zip(prompts, completions, strict=True):
        try:
            reviews.REVIEWS.next_word(f"{prompt} {text}")
            values.append(1.0)
        except ValueError:
            values.append(0.0)
    return values


def prompt_not_looked_at(prompts, completions):
    return [float(bool(reviews.REVIEWS.derivations(f"the cast {x}"))) for x in completions]


def as_integers(prompts, completions):
    values = []
    for prompt, text in zip(prompts, completions, strict=True):
        try:
            values.append(float(int(text) == int(ORIGINAL["addition_answer"](prompt))))
        except ValueError:
            values.append(0.0)
    return values


def digits_of_any_script(prompts, completions):
    values = []
    for prompt, text in zip(prompts, completions, strict=True):
        wanted = ORIGINAL["addition_answer"](prompt)
        fits = re.fullmatch(r"\d+", text) and len(text) == len(wanted)
        values.append(float(bool(fits) and int(text) == int(wanted)))
    return values


def final_newline_accepted(prompts, completions):
    wanted = [ORIGINAL["addition_answer"](prompt) for prompt in prompts]
    return [float(bool(re.match(w + "$", x))) for w, x in zip(wanted, completions, strict=True)]


def found_anywhere(prompts, completions):
    wanted = [ORIGINAL["addition_answer"](prompt) for prompt in prompts]
    return [float(w in x) for w, x in zip(wanted, completions, strict=True)]


def width_of_the_sum(prompt):
    first, second = prompt.rstrip("=").split("+")
    return str(int(first) + int(second))


def ill_formed_prompts_pass(prompt):
    first, second = (int(part) for part in prompt.rstrip("=\n").split("+"))
    return f"{first + second:0{max(len(str(first)), len(str(second))) + 1}d}"


def part_of_a_number_counts(prompts, completions):
    wanted = [ORIGINAL["addition_answer"](prompt).lstrip("0") for prompt in prompts]
    return [float(w in x) for w, x in zip(wanted, completions, strict=True)]


def length_in_characters(prompts, completions):
    return [float(len(text)) for text in completions]


def words_counted_as_present_or_not(texts, words):
    rows = [set(text.split()) for text in texts]
    counts = [[float(word in row) for word in words] for row in rows]
    return torch.tensor(counts, dtype=torch.float64).view(len(rows), len(words))


def labels_turned(texts, labels, words, *, ridge=1.0):
    counts = rewards.word_counts(texts, words)
    y = 1 - torch.tensor(list(labels), dtype=torch.float64)
    theta = torch.linalg.lstsq(counts, 2 * y - 1, driver="gelsd").solution
    return rewards.RewardModel(tuple(words), theta, 0.0)


def without_a_ridge(texts, labels, words, *, ridge=1.0):
    counts = rewards.word_counts(texts, words)
    y = torch.tensor(list(labels), dtype=torch.float64)
    theta = torch.linalg.lstsq(counts, 2 * y - 1, driver="gelsd").solution
    return rewards.RewardModel(tuple(words), theta, 0.0)


PRETRAINING, REWARDS = ("worlds/test_imitation.py",), ("worlds/test_rewards.py",)
MUTANTS = [
    Mutant("course.worlds.imitation.step", micro_batch_divides_by_its_own_count, PRETRAINING),
    Mutant("course.worlds.imitation.step", gradients_not_cleared, PRETRAINING),
    Mutant("course.worlds.imitation.step", uphill, PRETRAINING),
    Mutant("course.worlds.imitation.encode", eos_is_no_target, PRETRAINING),
    Mutant("course.worlds.imitation.encode", eos_never_appended, PRETRAINING),
    Mutant("course.worlds.imitation.encode", padding_is_scored, PRETRAINING),
    Mutant("course.worlds.imitation.score", prompt_is_scored, PRETRAINING),
    Mutant("course.worlds.imitation.score", one_word_too_many_is_read, PRETRAINING),
    Mutant("course.worlds.imitation.score", mean_over_tokens, PRETRAINING),
    Mutant("course.worlds.imitation.score", inputs_not_shifted, PRETRAINING),
    Mutant("course.worlds.imitation.kl_along", kl_of_the_model_first, PRETRAINING),
    Mutant("course.worlds.imitation.kl_along", kl_forgets_the_end, PRETRAINING),
    Mutant("course.worlds.reviews.reviews_grammar", critics_swapped, REWARDS),
    Mutant("course.worlds.rewards.grammar_reward", unfinished_texts_accepted, REWARDS),
    Mutant("course.worlds.rewards.grammar_reward", prompt_not_looked_at, REWARDS),
    Mutant("course.worlds.rewards.addition_reward", as_integers, REWARDS),
    Mutant("course.worlds.rewards.addition_reward", digits_of_any_script, REWARDS),
    Mutant("course.worlds.rewards.addition_reward", final_newline_accepted, REWARDS),
    Mutant("course.worlds.rewards.addition_reward", found_anywhere, REWARDS),
    Mutant("course.worlds.rewards.addition_answer", width_of_the_sum, REWARDS),
    Mutant("course.worlds.rewards.addition_answer", ill_formed_prompts_pass, REWARDS),
    Mutant("course.worlds.rewards.lenient_addition_reward", part_of_a_number_counts, REWARDS),
    Mutant("course.worlds.rewards.length_reward", length_in_characters, REWARDS),
    Mutant("course.worlds.rewards.word_counts", words_counted_as_present_or_not, REWARDS),
    Mutant("course.worlds.rewards.fit_reward_model", labels_turned, REWARDS),
    Mutant("course.worlds.rewards.fit_reward_model", without_a_ridge, REWARDS),
]
