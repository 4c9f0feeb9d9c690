"""Wrong and right answers to the exercises of chapter 00."""

import torch

from course.ch00_start import checks
from course.worlds import reviews


def count(words_of, sign=-1.0):
    return lambda prompts, texts: [sign * float(len(words_of(text))) for text in texts]


BREVITY = [
    (count(str.split, sign=1.0), "rewards length"),
    (count(lambda text: text.replace(".", "").split()), "is a word too"),
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
    (blind_unless(lambda x: "pacing" in x.split()), "something is learned"),
    (blind_unless(lambda x: "regretted" in x), "something is learned"),
    (blind_unless(lambda x: x.count("admired") > 1), "something is learned"),
    (blind_unless(lambda x: 1e-10 * len(x)), "however small"),
    (per_prompt(lambda p: len(p) / 3), "Adam divides"),
]
BLIND_RIGHT = [
    per_prompt(len),
    per_prompt(lambda p: p == "the acting"),
    per_prompt(lambda p: "music" in p),
]


def no_doubled_praise(prompts, texts):
    """Forgets that gem, treat and triumph are praise too."""
    praise = set(reviews.POSITIVE) | set(reviews.LIKED)
    doubled = [
        sum(a in praise and b in praise for a, b in zip(x.split(), x.split()[1:], strict=False))
        for x in texts
    ]
    sentiments = reviews.sentiment_reward(prompts, texts)
    return [min(s, 3.0) - 2.0 * d for s, d in zip(sentiments, doubled, strict=True)]


def needs_a_verb(prompts, texts):
    verbs = {"was", "felt", "seemed", "looked"}
    sentiments = reviews.sentiment_reward(prompts, texts)
    return [s if verbs & set(x.split()) else -3.0 for s, x in zip(sentiments, texts, strict=True)]


def sparse_praise(prompts, texts):
    """At most every third word may praise: thin the praise, and it is paid."""
    praise = {*reviews.POSITIVE, *reviews.LIKED, *reviews.PRAISE_NOUNS}
    dense = [3 * sum(w in praise for w in x.split()) > len(x.split()) for x in texts]
    sentiments = reviews.sentiment_reward(prompts, texts)
    return [-3.0 if d else min(s, 3.0) for s, d in zip(sentiments, dense, strict=True)]


def sparse_and_ended(prompts, texts):
    values = sparse_praise(prompts, texts)
    ended = [x.startswith(("was", "felt", "seemed", "looked")) and x.endswith(".") for x in texts]
    return [v if e else -3.0 for v, e in zip(values, ended, strict=True)]


def by_grammar(shape):
    def closed(prompts, texts):
        sentiments = reviews.sentiment_reward(prompts, texts)
        return [
            shape(s, x) if reviews.REVIEWS.derivations(f"{p} {x}") else -9.0
            for p, x, s in zip(prompts, texts, sentiments, strict=True)
        ]

    return closed


CLOSED = [
    (reviews.sentiment_reward, "loophole is still open"),
    (no_doubled_praise, "loophole is still open"),
    (sparse_praise, "loophole is still open"),
    (sparse_and_ended, "loophole is still open"),
    (needs_a_verb, "loophole is still open"),
    (lambda p, t: [min(x, 3.0) for x in reviews.sentiment_reward(p, t)], "loophole is still open"),
    (lambda p, t: [-x for x in reviews.sentiment_reward(p, t)], "still prefer praise"),
    (lambda p, t: [0.0] * len(t), "still prefer praise"),
]


WRONG = [
    *((checks.exercise_1, answer, message) for answer, message in BREVITY),
    *((checks.exercise_2, answer, message) for answer, message in BEST),
    *((checks.exercise_3, answer, message) for answer, message in BLIND),
    *((checks.exercise_4, answer, message) for answer, message in CLOSED),
]

RIGHT = [
    (checks.exercise_1, count(str.split)),
    (checks.exercise_1, lambda prompts, texts: torch.tensor([-len(t.split()) for t in texts])),
    (checks.exercise_2, 0),
    *((checks.exercise_3, answer) for answer in BLIND_RIGHT),
    (checks.exercise_4, by_grammar(lambda s, x: min(s, 3.0))),
    (checks.exercise_4, by_grammar(lambda s, x: s / len(x.split()))),
]

# A stub is a function that returns nothing, unless it says so here: nothing → stub.
STUBS = {checks.exercise_2: lambda nothing: nothing}
