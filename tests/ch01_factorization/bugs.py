"""Seeded bugs in log-probabilities, samplers, models, worlds and the enumeration."""

import math

import torch

from course.exact import oracle
from course.worlds import grammar, reviews, word_world
from helpers import logprobs, models, rollout
from tests.mutant import Mutant

ORIGINAL = {
    "completion_lengths": logprobs.completion_lengths,
    "sampling_logits": logprobs.sampling_logits,
    "forward": models.forward,
    "state_logprobs": oracle.state_logprobs,
    "completion_logprobs": oracle.completion_logprobs,
    "objective_gradient": oracle.objective_gradient,
    "scores": word_world._score_words,
    "polarity": reviews._count_polarity,
    "sample": rollout.sample,
    "encode": models.LanguageModel.encode,
}


# --------------------------------------------------------------------------- log-probabilities


def logits_t_scores_token_t(logits, token_ids):
    return logprobs.token_logprobs(logits[:, 1:], token_ids[:, 1:])


def softmax_over_the_batch(logits, token_ids):
    return logits.log_softmax(0).gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)


def logits_not_normalised(logits, token_ids):
    return logits.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)


def product_instead_of_sum(token_logprobs, completion_mask):
    return token_logprobs.masked_fill(~completion_mask, 1.0).prod(-1)


def mean_instead_of_sum(token_logprobs, completion_mask):
    total = token_logprobs.masked_fill(~completion_mask, 0.0).sum(-1)
    return total / completion_mask.sum(-1)


def mask_by_multiplying(token_logprobs, completion_mask):
    return (token_logprobs * completion_mask).sum(-1)  # nan · 0 is nan


def eos_dropped(completion_ids, eos_ids):
    lengths, finished = ORIGINAL["completion_lengths"](completion_ids, eos_ids)
    return (lengths - finished.long()).clamp(min=1), finished


def last_eos_instead_of_first(completion_ids, eos_ids):
    lengths, finished = ORIGINAL["completion_lengths"](completion_ids.flip(-1), eos_ids)
    width = completion_ids.shape[-1]
    return torch.where(finished, width - lengths + 1, width), finished


def mask_by_id(completion_ids, eos_ids):
    eos = torch.tensor(eos_ids, dtype=completion_ids.dtype)
    is_eos = torch.isin(completion_ids, eos)
    return (~is_eos).sum(-1).clamp(min=1), is_eos.any(-1)


def mask_one_too_long(lengths, width):
    return torch.arange(width) <= lengths.unsqueeze(-1)


def entropy_in_bits(logits):
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp.masked_fill(logp == -torch.inf, 0.0)).sum(-1) / 0.6931471805599453


def entropy_as_mean_surprise(logits):
    return -logits.log_softmax(-1).mean(-1)


# ------------------------------------------------------------------------------------ samplers


def temperature_forgotten(logits, *, temperature=1.0, top_k=None, top_p=None):
    return ORIGINAL["sampling_logits"](logits, top_k=top_k, top_p=top_p)


def temperature_multiplied(logits, *, temperature=1.0, top_k=None, top_p=None):
    return ORIGINAL["sampling_logits"](logits * temperature, top_k=top_k, top_p=top_p)


def dropped_words_get_logit_zero(logits, *, temperature=1.0, top_k=None, top_p=None):
    kept = ORIGINAL["sampling_logits"](logits, temperature=temperature, top_k=top_k, top_p=top_p)
    return kept.masked_fill(kept == -torch.inf, 0.0)


def top_k_not_renormalised(logits, *, temperature=1.0, top_k=None, top_p=None):
    # Log-probabilities of the full softmax, with −inf where a word is dropped and a huge spare
    # outcome nowhere: what a loop does that masks probabilities and forgets to divide again.
    kept = ORIGINAL["sampling_logits"](logits, temperature=temperature, top_k=top_k, top_p=top_p)
    return (logits / temperature).log_softmax(-1).where(kept > -torch.inf, torch.tensor(-20.0))


def top_p_drops_the_word_that_reaches_p(logits, *, temperature=1.0, top_k=None, top_p=None):
    logits = ORIGINAL["sampling_logits"](logits, temperature=temperature, top_k=top_k)
    if top_p is None:
        return logits
    probs, order = logits.softmax(-1).sort(dim=-1, descending=True)
    drop = probs.cumsum(-1) >= top_p
    drop[..., 0] = False
    return logits.masked_fill(drop.scatter(-1, order, drop), -torch.inf)


def kl_reversed(sampler_logprobs, other_logprobs):
    return (other_logprobs.exp() * (other_logprobs - sampler_logprobs)).sum(-1)


def kl_sign_turned(sampler_logprobs, other_logprobs):
    return (sampler_logprobs.exp() * (other_logprobs - sampler_logprobs)).sum(-1)


# -------------------------------------------------------------------------------- language models


def cache_position_off_by_one(model, token_ids, mask, **kwargs):
    if token_ids.shape[1] > 1:
        return ORIGINAL["forward"](model, token_ids, mask, **kwargs)
    positions = mask.cumsum(-1)[:, -1:]  # the next token's position, not this one's
    return model(input_ids=token_ids, attention_mask=mask.long(), position_ids=positions, **kwargs)


def positions_count_the_padding(model, token_ids, mask, **kwargs):
    kwargs.pop("logits_to_keep", None)
    start = mask.shape[1] - token_ids.shape[1]
    positions = torch.arange(start, mask.shape[1]).expand(len(token_ids), -1)
    return model(input_ids=token_ids, attention_mask=mask.long(), position_ids=positions, **kwargs)


def padding_is_attended_to(model, token_ids, mask, **kwargs):
    return ORIGINAL["forward"](model, token_ids, torch.ones_like(mask), **kwargs)


def prompts_padded_on_the_right(self, prompts):
    ids, mask = ORIGINAL["encode"](self, prompts)
    order = mask.int().argsort(dim=-1, descending=True, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def sampled_at_t_but_scored_at_one(model, *args, **kwargs):
    batch = ORIGINAL["sample"](model, *args, **kwargs)
    plain = rollout.completion_logprobs(model, batch).detach()
    return rollout.RolloutBatch(**{**vars(batch), "old_logprobs": plain})


def truncation_not_reported(model, *args, **kwargs):
    batch = ORIGINAL["sample"](model, *args, **kwargs)
    return rollout.RolloutBatch(**{**vars(batch), "finished": torch.ones_like(batch.finished)})


def eos_not_noted_down(model, *args, **kwargs):
    batch = ORIGINAL["sample"](model, *args, **kwargs)
    last = torch.arange(batch.completion_mask.shape[1]) == batch.lengths[:, None] - 1
    scores = batch.old_logprobs.masked_fill(last & batch.finished[:, None], 0.0)
    return rollout.RolloutBatch(**{**vars(batch), "old_logprobs": scores})


# -------------------------------------------------------------------------------- worlds, oracle


def prompt_ignored(policy, world, prompt):
    return ORIGINAL["state_logprobs"](policy, world, world.prompts[0])


def cut_completions_forgotten(policy, world, prompt):
    logp = ORIGINAL["completion_logprobs"](policy, world, prompt)
    return logp.masked_fill(~oracle.enumerate_completions(world).finished, -torch.inf)


def gradient_downhill(*args, **kwargs):
    return -ORIGINAL["objective_gradient"](*args, **kwargs)


def table_forgets_the_first_word(self, token_ids):
    states = [self.first_state[0].expand(len(token_ids))]
    rank = torch.zeros_like(token_ids[:, 0])
    for k in range(1, token_ids.shape[1]):
        if k > 1:
            rank = rank * self.world.num_continuing + token_ids[:, k].clamp(max=3)
        states.append(self.first_state[k] + rank)
    prompts = token_ids[:, 0] - self.world.num_actions
    return self.logits[prompts.unsqueeze(1), torch.stack(states, dim=1)]


def pan_rewards_praise(prompt, words):
    return ORIGINAL["scores"]("praise", words)


def cut_completions_go_unpunished(prompt, words):
    return ORIGINAL["scores"](prompt, [*words, "."] if words else words)


def score_not_clipped(prompt, words):
    if not words or words[-1] != ".":
        return -1.0
    score, factor = 0.0, 1.0
    for word in words:
        factor *= {"not": -1.0, "very": 2.0}.get(word, 1.0)
        if word in ("good", "bad"):
            score, factor = score + factor * (1 if word == "good" else -1), 1.0
    return -score if prompt == "pan" else score


def not_is_ignored(words):
    return ORIGINAL["polarity"]([word for word in words if word != "not"])


def grammar_logprob_is_joint(self, text, prefix=""):
    return grammar._logsumexp([logp for logp, _ in self.derivations(f"{prefix} {text}")])


def grammar_entropy_of_one_rule(self):
    return -sum(math.exp(logp) * logp for logp, _, _ in self.rules[self.start])


MUTANTS = [
    Mutant(
        "helpers.logprobs.next_token_logprobs",
        logits_t_scores_token_t,
        ("helpers/test_logprobs.py",),
    ),
    Mutant(
        "helpers.logprobs.token_logprobs", softmax_over_the_batch, ("helpers/test_logprobs.py",)
    ),
    Mutant("helpers.logprobs.token_logprobs", logits_not_normalised, ("helpers/test_logprobs.py",)),
    Mutant(
        "helpers.logprobs.sequence_logprobs", product_instead_of_sum, ("helpers/test_logprobs.py",)
    ),
    Mutant(
        "helpers.logprobs.sequence_logprobs", mean_instead_of_sum, ("helpers/test_logprobs.py",)
    ),
    Mutant(
        "helpers.logprobs.sequence_logprobs", mask_by_multiplying, ("helpers/test_logprobs.py",)
    ),
    Mutant("helpers.logprobs.completion_lengths", eos_dropped, ("helpers/test_logprobs.py",)),
    Mutant("helpers.logprobs.completion_lengths", eos_dropped, ("helpers/test_rollout.py",)),
    Mutant(
        "helpers.logprobs.completion_lengths",
        last_eos_instead_of_first,
        ("helpers/test_logprobs.py",),
    ),
    Mutant("helpers.logprobs.completion_lengths", mask_by_id, ("helpers/test_logprobs.py",)),
    Mutant("helpers.logprobs.mask_from_lengths", mask_one_too_long, ("helpers/test_logprobs.py",)),
    Mutant("helpers.logprobs.entropy", entropy_in_bits, ("helpers/test_logprobs.py",)),
    Mutant("helpers.logprobs.entropy", entropy_as_mean_surprise, ("helpers/test_logprobs.py",)),
    Mutant(
        "helpers.logprobs.sampling_logits", temperature_forgotten, ("helpers/test_logprobs.py",)
    ),
    Mutant(
        "helpers.logprobs.sampling_logits",
        temperature_forgotten,
        ("ch01_factorization/test_widgets.py",),
    ),
    Mutant(
        "helpers.logprobs.sampling_logits", temperature_multiplied, ("helpers/test_logprobs.py",)
    ),
    Mutant(
        "helpers.logprobs.sampling_logits",
        dropped_words_get_logit_zero,
        ("helpers/test_logprobs.py",),
    ),
    Mutant(
        "helpers.logprobs.sampling_logits", top_k_not_renormalised, ("helpers/test_logprobs.py",)
    ),
    Mutant(
        "helpers.logprobs.sampling_logits",
        top_p_drops_the_word_that_reaches_p,
        ("helpers/test_logprobs.py",),
    ),
    Mutant("helpers.kl.kl_divergence", kl_reversed, ("helpers/test_kl.py",)),
    Mutant("helpers.kl.kl_divergence", kl_reversed, ("exact/test_oracle.py",)),
    Mutant("helpers.kl.kl_divergence", kl_sign_turned, ("helpers/test_kl.py",)),
    Mutant("helpers.models.forward", cache_position_off_by_one, ("helpers/test_rollout.py",)),
    Mutant("helpers.models.forward", positions_count_the_padding, ("helpers/test_rollout.py",)),
    Mutant("helpers.models.forward", padding_is_attended_to, ("helpers/test_rollout.py",)),
    Mutant(
        "helpers.models.LanguageModel.encode",
        prompts_padded_on_the_right,
        ("helpers/test_models.py",),
    ),
    Mutant("helpers.rollout.sample", sampled_at_t_but_scored_at_one, ("helpers/test_rollout.py",)),
    Mutant("helpers.rollout.sample", truncation_not_reported, ("helpers/test_rollout.py",)),
    Mutant("helpers.rollout.sample", eos_not_noted_down, ("helpers/test_rollout.py",)),
    Mutant("course.exact.oracle.state_logprobs", prompt_ignored, ("exact/test_oracle.py",)),
    Mutant(
        "course.exact.oracle.completion_logprobs",
        cut_completions_forgotten,
        ("exact/test_oracle.py",),
    ),
    Mutant("course.exact.oracle.objective_gradient", gradient_downhill, ("exact/test_oracle.py",)),
    Mutant(
        "course.exact.tables.TablePolicy.forward",
        table_forgets_the_first_word,
        ("exact/test_tables.py",),
    ),
    Mutant("course.worlds.word_world._score_words", pan_rewards_praise, ("worlds/test_worlds.py",)),
    Mutant(
        "course.worlds.word_world._score_words",
        cut_completions_go_unpunished,
        ("worlds/test_worlds.py",),
    ),
    Mutant("course.worlds.word_world._score_words", score_not_clipped, ("worlds/test_worlds.py",)),
    Mutant("course.worlds.reviews._count_polarity", not_is_ignored, ("worlds/test_worlds.py",)),
    Mutant(
        "course.worlds.grammar.Grammar.logprob",
        grammar_logprob_is_joint,
        ("worlds/test_grammar.py",),
    ),
    Mutant(
        "course.worlds.grammar.Grammar.entropy",
        grammar_entropy_of_one_rule,
        ("worlds/test_grammar.py",),
    ),
]
