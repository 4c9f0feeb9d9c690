"""Tests of the exercise checkers: wrong answers are diagnosed, right ones of any form accepted."""

import math

import pytest
import torch

from helpers import worlds
from helpers.checks import chapter00, chapter01

pytestmark = pytest.mark.mutants


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


SCORES = [
    (scorer(lambda x: x.sum().exp()), "probability, not its logarithm"),
    (scorer(lambda x: -x.sum()), "sign is turned"),
    (scorer(torch.mean), "mean over tokens"),
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


# ------------------------------------------------------------------------------- 1.2, a sampler


def sampler(*, temperature=1.0, stop=True, keep_eos=True, keep_prompt=False, pick=None,
            prompt=None, limit=None, own_generator=False):  # fmt: skip
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
    (threshold_of_the_batch, "none of the usual"),
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
    ("p_cut", "a lot", "should be numbers"),
]

SPREAD = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0], dtype=torch.float64)


def by_position(ids):
    return SPREAD * torch.arange(1, ids.shape[1] + 1)[:, None].expand(*ids.shape, 1)


def uniform_under_pan(ids):
    return SPREAD.expand(*ids.shape, 5) * (ids[:, :1, None] == 5)


def looks_ahead(ids):
    return (SPREAD * (1 + ids[:, -1:, None])).expand(*ids.shape, 5)


HIDING = [
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


ENTROPIES = [
    (lambda levels: chain_rule(levels, reach_all=True), "reached for sure"),
    (lambda levels: chain_rule(levels, mean=True), "mean over the states"),
    (lambda levels: chain_rule(levels, sign=-1.0), "sign is turned"),
    (lambda levels: chain_rule(levels, log_base=math.log(2)), "natural logarithm"),
    (lambda levels: chain_rule(levels, depth=1), "first word's entropy alone"),
    (lambda levels: chain_rule(levels, depth=3), "none of the usual"),
]


# --------------------------------------------------------------------------------- chapter 00


def count(words_of, sign=-1.0):
    return lambda prompts, texts: [sign * float(len(words_of(text))) for text in texts]


BREVITY = [
    (count(str.split, sign=1.0), "rewards length"),
    (count(str), "counts characters"),
    (count(lambda text: text.split(" ")), "without an argument"),
    (lambda prompts, texts: -3.0, "should have shape"),
]
BEST = [(-1.0, "nothing shorter"), (-3.0, "no grammar binds"), (-2.0, "shorter still")]


def per_prompt(value):
    return lambda prompts, texts: [float(value(p)) for p in prompts]


def blind_unless(condition):
    return lambda prompts, texts: [
        len(p) + 10.0 * condition(x) for p, x in zip(prompts, texts, strict=True)
    ]


BLIND = [
    (per_prompt(lambda p: 1.0), "every prompt earns the same"),
    (lambda prompts, texts: [float(len(x)) for x in texts], "something is learned"),
    (lambda prompts, texts: [float(i // 16) for i in range(len(texts))], "its place in the list"),
    (blind_unless(lambda x: "treat treat" in x), "something is learned"),
    (blind_unless(lambda x: x == ""), "something is learned"),
    (blind_unless(lambda x: x.count("wonderful") > 3), "something is learned"),
    (per_prompt(lambda p: len(p) / 3), "Adam divides"),
]
BLIND_RIGHT = [
    per_prompt(len),
    per_prompt(lambda p: p == "the acting"),
    per_prompt(lambda p: "music" in p),
]


def no_doubled_praise(prompts, texts):
    """Forgets that gem, treat and triumph are praise too."""
    praise = set(worlds.POSITIVE) | set(worlds.LIKED)
    doubled = [
        sum(a in praise and b in praise for a, b in zip(x.split(), x.split()[1:], strict=False))
        for x in texts
    ]
    sentiments = worlds.sentiment_reward(prompts, texts)
    return [min(s, 3.0) - 2.0 * d for s, d in zip(sentiments, doubled, strict=True)]


def needs_a_verb(prompts, texts):
    verbs = {"was", "felt", "seemed", "looked"}
    sentiments = worlds.sentiment_reward(prompts, texts)
    return [s if verbs & set(x.split()) else -3.0 for s, x in zip(sentiments, texts, strict=True)]


def by_grammar(shape):
    def closed(prompts, texts):
        sentiments = worlds.sentiment_reward(prompts, texts)
        return [
            shape(s, x) if worlds.REVIEWS.derivations(f"{p} {x}") else -9.0
            for p, x, s in zip(prompts, texts, sentiments, strict=True)
        ]

    return closed


CLOSED = [
    (worlds.sentiment_reward, "loophole is still open"),
    (no_doubled_praise, "loophole is still open"),
    (needs_a_verb, "loophole is still open"),
    (lambda p, t: [min(x, 3.0) for x in worlds.sentiment_reward(p, t)], "loophole is still open"),
    (lambda p, t: [-x for x in worlds.sentiment_reward(p, t)], "still prefer praise"),
    (lambda p, t: [0.0] * len(t), "still prefer praise"),
]

WRONG = [
    *((chapter01.exercise_1, answer, message) for answer, message in SCORES),
    *((chapter01.exercise_2, answer, message) for answer, message in SAMPLERS),
    *((chapter01.exercise_3, answer, message) for answer, message in MASKS),
    *((chapter01.exercise_4, answer, message) for answer, message in MIN_P),
    *(
        (chapter01.exercise_5, RIGHT_NUMBERS | {name: value}, message)
        for name, value, message in NUMBERS
    ),
    *((chapter01.exercise_6, answer, message) for answer, message in HIDING),
    *((chapter01.exercise_7, answer, message) for answer, message in ENTROPIES),
    *((chapter00.exercise_1, answer, message) for answer, message in BREVITY),
    *((chapter00.exercise_2, answer, message) for answer, message in BEST),
    *((chapter00.exercise_3, answer, message) for answer, message in BLIND),
    *((chapter00.exercise_4, answer, message) for answer, message in CLOSED),
]

RIGHT = [
    (chapter01.exercise_1, scorer(torch.sum)),
    (chapter01.exercise_1, one_pass_with_the_last_token),
    (chapter01.exercise_2, sampler()),
    (chapter01.exercise_3, mask_by_lengths),
    (chapter01.exercise_4, lambda z, p: keep_min_p(z, p).softmax(-1)),
    (chapter01.exercise_4, min_p_by_ratio),
    (chapter01.exercise_5, RIGHT_NUMBERS),
    (chapter01.exercise_6, lambda ids: SPREAD.expand(*ids.shape, 5)),
    (chapter01.exercise_6, lambda ids: SPREAD * ids[:, :1, None].expand(*ids.shape, 1)),
    (chapter01.exercise_7, chain_rule),
    (chapter00.exercise_1, count(str.split)),
    (chapter00.exercise_1, lambda prompts, texts: torch.tensor([-len(t.split()) for t in texts])),
    (chapter00.exercise_2, 0),
    *((chapter00.exercise_3, answer) for answer in BLIND_RIGHT),
    (chapter00.exercise_4, by_grammar(lambda s, x: min(s, 3.0))),
    (chapter00.exercise_4, by_grammar(lambda s, x: s / len(x.split()))),
]


@pytest.mark.parametrize(
    ("check", "answer", "message"),
    WRONG,
    ids=[f"{check.__module__[-2:]}.{check.__name__[-1]}-{m[:24]}" for check, _, m in WRONG],
)
def test_wrong_answers_are_diagnosed(check, answer, message):
    with pytest.raises(AssertionError, match=message) as caught:
        check(answer)
    assert len(str(caught.value)) > 20, "a diagnosis is more than 'wrong'"


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_of_any_form_are_accepted(check, answer, capsys):
    check(answer)
    assert "correct" in capsys.readouterr().out


@pytest.mark.parametrize("check", sorted({c for c, _, _ in WRONG}, key=lambda c: c.__qualname__))
@pytest.mark.parametrize("nothing", [None, ...])
def test_stubs_are_not_attempted_yet(check, nothing, capsys):
    numbers = {name: nothing for name in RIGHT_NUMBERS}
    stub = {chapter01.exercise_5: numbers, chapter00.exercise_2: nothing}
    check(stub.get(check, lambda *arguments: nothing))
    assert "not attempted yet" in capsys.readouterr().out
