"""Wrong and right answers to the exercises of chapter 01."""

import math

import torch

from course.ch01_factorization import checks

# ---------------------------------------------------------------------- 1.1, score a completion


def scorer(reduce, *, first=0, last=None, normalise=True, with_prompt=True, shift=0):
    """Scorers of all kinds from one mould: only the first argument of the right one is `sum`."""

    def score(policy, prompt_id, completion_ids):
        head = [prompt_id] if with_prompt else []
        ids = torch.tensor([[*head, *completion_ids.tolist()]])
        logits = policy(ids)[0]
        rows = logits.log_softmax(-1) if normalise else logits
        rows = rows[shift:][: len(completion_ids)]
        picked = rows.gather(-1, completion_ids[: len(rows), None])[:, 0]
        return reduce(picked[first:last])

    return score


def many_calls(policy, prompt_id, completion_ids):
    ids, total = [prompt_id], 0.0
    for word in completion_ids.tolist():
        total += policy(torch.tensor([ids]))[0, -1].log_softmax(-1)[word]
        ids.append(word)
    return total


def without_eos(policy, prompt_id, completion_ids):
    """Drops the `.`, and keeps the last word of a cut completion."""
    kept = completion_ids[completion_ids != 4]
    return scorer(torch.sum)(policy, prompt_id, kept) if len(kept) else one_pass(policy, prompt_id)


def one_pass(policy, prompt_id):
    return 0.0 * policy(torch.tensor([[prompt_id]])).sum()


def product_then_log(policy, prompt_id, completion_ids):
    ids = torch.tensor([[prompt_id, *completion_ids.tolist()]])
    probs = policy(ids)[0, :-1].softmax(-1)
    return probs.gather(-1, completion_ids[:, None]).prod().log()


SCORES = [
    (scorer(lambda x: x.sum().exp()), "probability, not its logarithm"),
    (scorer(lambda x: -x.sum()), "sign is turned"),
    (scorer(torch.mean), "mean over tokens"),
    (without_eos, "EOS is missing"),
    (product_then_log, "underflow"),
    (lambda *a: product_then_log(*a).float(), "underflow"),
    (scorer(torch.sum, last=-1), "last token is missing"),
    (scorer(torch.sum, first=1), "first token is missing"),
    (scorer(torch.sum, shift=1), "shifted by one"),
    (scorer(torch.sum, normalise=False), "sums of logits"),
    (scorer(torch.prod), "none of the usual mistakes"),
    (scorer(lambda x: x), "should have shape"),
    (many_calls, "called 2 times"),
]


def one_pass_with_the_last_token(policy, prompt_id, completion_ids):
    """Section 1.5, to the letter."""
    ids = torch.cat([torch.tensor([prompt_id]), completion_ids])[None]
    aligned = policy(ids)[:, :-1].log_softmax(-1)
    return aligned.gather(-1, ids[:, 1:, None]).sum()


def in_float32(policy, prompt_id, completion_ids):
    """As large models are run."""
    ids = torch.tensor([[prompt_id, *completion_ids.tolist()]])
    aligned = policy(ids)[0, :-1].float().log_softmax(-1)
    return aligned.gather(-1, completion_ids[:, None]).sum()


# ------------------------------------------------------------------------------- 1.2, a sampler


def sampler(
    *,
    temperature=1.0,
    stop=True,
    keep_eos=True,
    keep_prompt=False,
    pick=None,
    prompt=None,
    limit=None,
    own_generator=False,
):
    @torch.no_grad()
    def sample(policy, prompt_id, eos_id, max_length, generator):
        if own_generator:
            generator = torch.Generator().manual_seed(0)
        ids = [prompt_id if prompt is None else prompt]
        while len(ids) <= (limit or max_length) and (not stop or ids[-1] != eos_id):
            probs = (policy(torch.tensor([ids[:4]]))[0, -1] / temperature).softmax(-1)
            word = pick(probs) if pick else torch.multinomial(probs, 1, generator=generator)
            ids.append(int(word))
        words = ids if keep_prompt else ids[1:]
        return words[:-1] if not keep_eos and words[-1] == eos_id else words

    return sample


@torch.no_grad()
def sampler_in_place(policy, prompt_id, eos_id, max_length, generator):
    """It scribbles on the logits that it was given."""
    words = []
    while len(words) < max_length and eos_id not in words:
        logits = policy(torch.tensor([[prompt_id, *words]]))
        probs = logits.sub_(logits.max()).exp_()[0, -1]
        words.append(int(torch.multinomial(probs, 1, generator=generator)))
    return words


SAMPLERS = [
    (sampler(temperature=0.9), "do not look like the exact joint"),
    (sampler(temperature=1.1), "do not look like the exact joint"),
    (sampler(prompt=5), "do not look like the exact joint"),
    (sampler(stop=False), "goes on after"),
    (sampler(keep_eos=False), "keep it|EOS belongs"),
    (sampler(keep_prompt=True), "without the prompt"),
    (sampler(pick=torch.argmax), "takes the argmax"),
    (sampler(pick=lambda p: torch.multinomial(p, 1)), "pass generator="),
    (sampler(own_generator=True), "generator of its own"),
    (sampler(limit=5), "longer than max_length"),
    (sampler(limit=3), "nor reaches the limit"),
    (sampler(limit=4), "max_length=3"),
]


# --------------------------------------------------------------------------------- 1.3, a mask


def argmax_mask(ids, eos):
    return torch.arange(ids.shape[1]) <= (ids == eos).int().argmax(-1, keepdim=True)


def writes_into_its_argument(ids, eos):
    ids[ids == eos] = 0
    return ids == 0


MASKS = [
    (lambda ids, eos: (ids == eos).cumsum(-1) == 0, "EOS itself is masked out"),
    (lambda ids, eos: ids != eos, "masks every EOS id"),
    (lambda ids, eos: torch.ones_like(ids, dtype=torch.bool), "still in"),
    (lambda ids, eos: (ids == eos).cumsum(-1) <= 1, "between the first and the second"),
    (argmax_mask, "argmax of a row without EOS"),
    (
        lambda ids, eos: argmax_mask(ids, eos) & (ids == eos).any(-1, keepdim=True),
        "no end to find",
    ),
    (lambda ids, eos: ((ids == eos).cumsum(-1) - (ids == eos).int() == 0).int(), "dtype bool"),
    (writes_into_its_argument, "wrote into its argument"),
    (lambda ids, eos: (ids == eos).cumsum(-1).roll(1, -1) == 0, "brings the last column round"),
    (lambda ids, eos: (ids == eos).roll(1, -1).cumsum(-1) == 0, "an EOS of the last column"),
    (lambda ids, eos: (ids == 4).cumsum(-1) - (ids == 4).int() == 0, "none of the usual"),
]


def mask_by_lengths(ids, eos):
    lengths = [row.index(eos) + 1 if eos in row else len(row) for row in ids.tolist()]
    return torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]


# ---------------------------------------------------------------------------------- 1.4, min-p


def keep_min_p(logits, min_p):
    probs = logits.softmax(-1)
    return logits.masked_fill(probs < min_p * probs.max(dim=-1, keepdim=True).values, -math.inf)


def threshold_of_the_batch(logits, min_p):
    probs = logits.softmax(-1)
    return logits.masked_fill(probs < min_p * probs.max(), -math.inf).softmax(-1)


def threshold_of_logits(logits, min_p):
    largest = logits.max(dim=-1, keepdim=True).values
    return logits.masked_fill(logits < min_p * largest, -math.inf).softmax(-1)


def strictly_above(logits, min_p):
    probs = logits.softmax(-1)
    keep = probs > min_p * probs.max(dim=-1, keepdim=True).values
    return logits.masked_fill(~keep, -math.inf).softmax(-1)


def turned(logits, min_p):
    probs = logits.softmax(-1)
    keep = probs < min_p * probs.max(dim=-1, keepdim=True).values
    return logits.masked_fill(~keep, -math.inf).softmax(-1)


MIN_P = [
    (lambda z, p: z.softmax(-1) * (keep_min_p(z, p) > -math.inf), "not renormalised"),
    (lambda z, p: z.softmax(-1), "nothing was dropped"),
    (lambda z, p: keep_min_p(z, p).softmax(0), "wrong dimension"),
    (lambda z, p: z.masked_fill(keep_min_p(z, p) == -math.inf, 0.0).softmax(-1), "is not 0"),
    (lambda z, p: z.masked_fill(z.softmax(-1) < p, -math.inf).softmax(-1), "min_p itself"),
    (threshold_of_logits, "compares logits"),
    (threshold_of_the_batch, "largest probability of all rows"),
    (strictly_above, ">=, not >"),
    (lambda z, p: strictly_above(z, p).nan_to_num(0.0), ">=, not >"),
    (lambda z, p: keep_min_p(z, p).clamp(min=-100.0).softmax(-1), "must be −inf"),
    (lambda z, p: keep_min_p(z.float(), p).clamp(min=-100.0).softmax(-1), "must be −inf"),
    (turned, "comparison is turned"),
    (lambda z, p: keep_min_p(z, p).softmax(-1).log(), "none of the usual"),
    (lambda z, p: keep_min_p(z, 0.4).softmax(-1), "none of the usual"),
]


def min_p_by_ratio(logits, min_p):
    """The threshold in logits that is right: log(min_p) below the largest."""
    largest = logits.max(dim=-1, keepdim=True).values
    return logits.masked_fill(logits < largest + math.log(min_p), -math.inf).softmax(-1)


# ---------------------------------------------------- 1.5 numbers, 1.6 hiding, 1.7 chain rule

RIGHT_NUMBERS = {
    "p_good_stop": 1 / 25,
    "p_cut": 0.4096,
    "expected_length": 2.952,
    "entropy": 2.952 * math.log(5),
}
NUMBERS = [
    ("p_good_stop", 1 / 5, "has a probability too"),
    ("p_good_stop", 1 / 341, "not equally probable"),
    ("p_cut", 4 / 5, "four words"),
    ("p_cut", 256 / 341, "share of the list"),
    ("p_cut", 1 - 0.4096, "asked is what was cut"),
    ("expected_length", 5.0, "without the limit"),
    ("expected_length", 1314 / 341, "none of the usual|plain average"),
    ("expected_length", 1.3136, "cut completions count too"),
    ("expected_length", 3.3616, "fifth word"),
    ("entropy", math.log(341), "equally probable"),
    ("entropy", math.log(5), "one word"),
    ("entropy", 4 * math.log(5), "not always 4"),
    ("entropy", 2.952 * math.log2(5), "natural logarithm"),
    ("entropy", 4.75 - 0.004, "close: more digits"),
    ("expected_length", 2.95, "close: more digits"),
    ("p_good_stop", 0.05, "none of the usual"),
    ("p_cut", "a lot", "should be numbers"),
]

SPREAD = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0], dtype=torch.float64)


def by_position(ids):
    return SPREAD * torch.arange(1, ids.shape[1] + 1)[:, None].expand(*ids.shape, 1)


def uniform_under_pan(ids):
    return SPREAD.expand(*ids.shape, 5) * (ids[:, :1, None] == 5)


def looks_ahead(ids):
    return (SPREAD * (1 + ids[:, -1:, None])).expand(*ids.shape, 5)


def never_good(ids):
    return SPREAD.masked_fill(SPREAD == 0, -math.inf).expand(*ids.shape, 5)


HIDING = [
    (never_good, "probability above 0"),
    (lambda ids: torch.zeros(*ids.shape, 5), "too easy"),
    (by_position, "the bug shows"),
    (uniform_under_pan, "under both prompts"),
    (looks_ahead, "cannot look ahead"),
    (lambda ids: torch.zeros(*ids.shape, 7), "should have shape"),
]


def chain_rule(levels, *, reach_all=False, mean=False, sign=1.0, log_base=1.0, depth=4):
    reach, total = torch.ones(1, dtype=torch.float64), 0.0
    for level in levels[:depth]:
        local = -(level.exp() * level).sum(-1)
        total = total + (local.sum() if reach_all else local.mean() if mean else reach @ local)
        reach = (reach[:, None] * level[:, :4].exp()).reshape(-1)
    return sign * total / log_base


def chain_rule_of_two_words(levels):
    """Weighs a prefix by its last word alone."""
    reach, total = torch.ones(1, dtype=torch.float64), 0.0
    for level in levels:
        total = total - reach @ (level.exp() * level).sum(-1)
        reach = level[:, :4].exp().reshape(-1)
    return total


ENTROPIES = [
    (lambda levels: chain_rule(levels, reach_all=True), "reached for sure"),
    (lambda levels: chain_rule(levels, mean=True), "mean over the states"),
    (lambda levels: chain_rule(levels, sign=-1.0), "sign is turned"),
    (lambda levels: chain_rule(levels, log_base=math.log(2)), "natural logarithm"),
    (lambda levels: chain_rule(levels, depth=1), "first word's entropy alone"),
    (chain_rule_of_two_words, "d\\(s\\) is a product"),
    (lambda levels: chain_rule(levels, depth=3), "none of the usual"),
]


WRONG = [
    *((checks.exercise_1, answer, message) for answer, message in SCORES),
    *((checks.exercise_2, answer, message) for answer, message in SAMPLERS),
    *((checks.exercise_3, answer, message) for answer, message in MASKS),
    *((checks.exercise_4, answer, message) for answer, message in MIN_P),
    *(
        (checks.exercise_5, RIGHT_NUMBERS | {name: value}, message)
        for name, value, message in NUMBERS
    ),
    *((checks.exercise_6, answer, message) for answer, message in HIDING),
    *((checks.exercise_7, answer, message) for answer, message in ENTROPIES),
]

RIGHT = [
    (checks.exercise_1, scorer(torch.sum)),
    (checks.exercise_1, one_pass_with_the_last_token),
    (checks.exercise_1, lambda *arguments: scorer(torch.sum)(*arguments).float()),
    (checks.exercise_1, in_float32),
    (checks.exercise_2, sampler()),
    (checks.exercise_2, sampler_in_place),
    (checks.exercise_3, mask_by_lengths),
    (checks.exercise_4, lambda z, p: keep_min_p(z, p).softmax(-1)),
    (checks.exercise_4, min_p_by_ratio),
    (checks.exercise_4, lambda z, p: keep_min_p(z.float(), p).softmax(-1)),
    (checks.exercise_5, RIGHT_NUMBERS),
    (checks.exercise_5, {name: round(value, 3) for name, value in RIGHT_NUMBERS.items()}),
    (checks.exercise_6, lambda ids: SPREAD.expand(*ids.shape, 5)),
    (checks.exercise_6, lambda ids: SPREAD * ids[:, :1, None].expand(*ids.shape, 1)),
    (checks.exercise_7, chain_rule),
    (checks.exercise_7, lambda levels: chain_rule(levels).float()),
]

# A stub is a function that returns nothing, unless it says so here: nothing → stub.
STUBS = {checks.exercise_5: lambda nothing: {name: nothing for name in RIGHT_NUMBERS}}
