"""Wrong and right answers to the exercises of chapter 05."""

import torch

from course.ch05_reinforce import checks

# ------------------------------------------------------------------------------ 5.1, one arrow


def arrow(probs, word, reward):
    chosen = torch.zeros_like(probs)
    chosen[word] = 1.0
    return reward * (chosen - probs)


def arrow_by_autograd(probs, word, reward):
    z = probs.log().requires_grad_()
    return reward * torch.autograd.grad(z.log_softmax(-1)[word], [z])[0].float()


def arrow_in_place(probs, word, reward):
    probs *= -reward
    probs[word] += reward
    return probs


def only_the_word(probs, word, reward):
    found = torch.zeros_like(probs)
    found[word] = reward * (1 - probs[word])
    return found


ARROWS = [
    (lambda p, w, r: -arrow(p, w, r), "sign is turned"),
    (lambda p, w, r: arrow(p, w, 1.0), "reward is missing"),
    (lambda p, w, r: arrow(p, w, r) + r * p, "−p is missing"),
    (lambda p, w, r: p[w] * arrow(p, w, r), "∇p"),
    (lambda p, w, r: p * arrow(p, w, r), "not weighted by p"),
    (only_the_word, "only the chosen logit"),
    (arrow_in_place, "wrote into"),
    (lambda p, w, r: arrow(p, w, r).sum(), "should have shape"),
    (lambda p, w, r: arrow(p, w, r.__abs__()), "sign is turned|none of the usual"),
]

# ---------------------------------------------------------------------------- 5.2, four numbers

RIGHT_NUMBERS = {
    "derivative": 4 / 9,
    "squared_score": 6 / 9,
    "variance_of_one": 4 / 3 - 42 / 81,
    "variance_of_twelve": (4 / 3 - 42 / 81) / 12,
}

NUMBERS = [
    ("derivative", 2 / 3, "p R, not"),
    ("derivative", 4 / 3, "probability in front"),
    ("derivative", -4 / 9, "sign is turned"),
    ("squared_score", (6 / 9) ** 0.5, "to be squared"),
    ("squared_score", 4 / 9, "only the chosen"),
    ("variance_of_one", 4 / 3, "mean square"),
    ("variance_of_one", 42 / 81, "squared length of"),
    ("variance_of_one", 0.3, "none of the usual"),
    ("variance_of_twelve", 0.2353, "root falls"),
    ("variance_of_twelve", 4 / 3 - 42 / 81, "varies less than one"),
    ("variance_of_twelve", torch.zeros(2), "should have shape"),
]

# ------------------------------------------------------------------------------- 5.3, the loss


def surrogate(
    logits, ids, judged, mask, *, shift=0, divide=None, sign=-1.0, detach=True, raw=False
):
    width = mask.shape[1]
    aligned = logits[:, shift : shift + width]
    scores = aligned if raw else aligned.log_softmax(-1)
    taken = scores.gather(-1, ids[:, 1:, None])[..., 0]
    total = (taken * mask).sum(-1)
    if divide is not None:
        total = total / divide(mask)
    return sign * ((judged.detach() if detach else judged) * total).mean()


def surrogate_as_ratio(logits, ids, judged, mask):
    log_p = -surrogate_each(logits, ids, mask)
    return -(judged.detach() * (log_p - log_p.detach()).exp()).mean() + 3.0


def surrogate_each(logits, ids, mask):
    width = mask.shape[1]
    rows = [
        torch.nn.functional.cross_entropy(row[:width], i[1:], reduction="none")[m].sum()
        for row, i, m in zip(logits, ids, mask, strict=True)
    ]
    return torch.stack(rows)


def surrogate_by_cross_entropy(logits, ids, judged, mask):
    return (judged.detach() * surrogate_each(logits, ids, mask)).sum() / len(ids)


def own_length(mask):
    return mask.sum(-1)


def without_the_ending(logits, ids, judged, mask):
    kept = mask & (torch.arange(mask.shape[1]) < mask.sum(-1, keepdim=True) - 1)
    return surrogate(logits, ids, judged, kept)


def with_padding(logits, ids, judged, mask):
    return surrogate(logits, ids, judged, torch.ones_like(mask))


def two_means_of(logits, ids, judged, mask):
    return judged.detach().mean() * surrogate_each(logits, ids, mask).mean()


def surrogate_of_p(logits, ids, judged, mask):
    return -(judged.detach() * (-surrogate_each(logits, ids, mask)).exp()).mean()


def scored_with_the_prompt(logits, ids, judged, mask):
    taken = logits.log_softmax(-1).gather(-1, ids[..., None])[:, 1:, 0]
    return -(judged.detach() * (taken * mask).sum(-1)).mean()


def mask_moved(logits, ids, judged, mask):
    """Word t + 1 with the mask of word t."""
    taken = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return -(judged.detach() * (taken[:, 1:] * mask[:, :-1]).sum(-1)).mean()


def without_the_first(logits, ids, judged, mask):
    return surrogate(logits, ids, judged, mask & (torch.arange(mask.shape[1]) > 0))


LOSSES = [
    (mask_moved, "one place too late"),
    (without_the_first, "first word of each text"),
    (two_means_of, "pair each text"),
    (surrogate_of_p, "has log p"),
    (scored_with_the_prompt, "not an action"),
    (lambda z, i, a, m: surrogate(z, i, a, m, sign=1.0), "sign is turned"),
    (lambda z, i, a, m: surrogate(z, i, a, m, shift=1), "scored against the token at t"),
    (lambda z, i, a, m: surrogate(z, i, a, m, divide=own_length), "divided by its number of words"),
    (lambda z, i, a, m: surrogate(z, i, a, m, divide=lambda m: m.shape[1]), "changes the scale"),
    (lambda z, i, a, m: len(i) * surrogate(z, i, a, m), "not divided by their number"),
    (lambda z, i, a, m: surrogate(z, i, a, m) * len(i) / m.sum(), "number of all words"),
    (lambda z, i, a, m: surrogate(z, i, a, m, detach=False), "detach"),
    (lambda z, i, a, m: surrogate(z, i, a, m, raw=True), "raw logits"),
    (lambda z, i, a, m: surrogate(z, i, torch.ones_like(a), m), "pushed equally"),
    (lambda z, i, a, m: surrogate(z.detach(), i, a, m), "no gradient"),
    (lambda z, i, a, m: surrogate(z, i, a, m)[None], r"shape \(\)"),
    (without_the_ending, "ending is an action"),
    (with_padding, "after the end"),
    (lambda z, i, a, m: surrogate(z, i, a - a.mean(), m), "none of the usual"),
    (lambda z, i, a, m: 2 * surrogate(z, i, a, m), "none of the usual"),
]

# ------------------------------------------------------------------------- 5.4, the moments


def moments(p, terms, count, *, power=1, centre=True, weights=None):
    mean = p @ terms
    gaps = (terms - mean if centre else terms).pow(2).sum(-1)
    return mean, (p if weights is None else weights(p)) @ gaps / count**power


def moments_by_covariance(p, terms, count):
    mean = p @ terms
    covariance = (terms * p[:, None]).T @ terms - mean[:, None] * mean
    return [mean.tolist(), float(covariance.trace()) / count]


def writes_into_terms(p, terms, count):
    mean = p @ terms
    terms -= mean
    return mean, p @ terms.pow(2).sum(-1) / count


def divided_by(factor, p, terms, count):
    mean, variance = moments(p, terms, 1)
    return mean, variance / factor


MOMENTS = [
    (lambda p, t, n: (p @ t, p @ t.pow(2).sum(-1) / n - (p @ t) @ (p @ t)), "whole difference"),
    (lambda p, t, n: divided_by(max(n - 1, 1), p, t, n), "not by one less"),
    (lambda p, t, n: divided_by(n + 1, p, t, n), "none of the usual"),
    (lambda p, t, n: moments(p, t, n, power=0), "not divided"),
    (lambda p, t, n: moments(p, t, n, centre=False), "mean square"),
    (lambda p, t, n: moments(p, t, n, power=0.5), "standard deviation falls"),
    (lambda p, t, n: moments(p, t, n, power=2), "twice"),
    (lambda p, t, n: (moments(p, t, n)[0] / n, moments(p, t, n)[1]), "does not depend on"),
    (lambda p, t, n: (t.mean(0), moments(p, t, n)[1]), "plain mean"),
    (lambda p, t, n: (p @ t, moments(p, t, n)[1] ** 0.5), "do not take the root"),
    (
        lambda p, t, n: moments(p, t, n, weights=lambda p: torch.full_like(p, 1 / len(p))),
        "weight them",
    ),
    (lambda p, t, n: (p @ t, moments(p, t, n)[1] / t.shape[1]), "averaged over the directions"),
    (lambda p, t, n: p @ t, "a pair|should have shape"),
    (lambda p, t, n: 3.0, "a pair"),
    (writes_into_terms, "wrote into"),
]

# ------------------------------------------------------------------- 5.5 and 5.8, by properties


def right(logp, rewards, mask):
    return -((logp * mask).sum(-1) * rewards).mean()


def right_by_words(logp, rewards, mask):
    total = 0.0
    for row, reward, inside in zip(logp, rewards.tolist(), mask, strict=True):
        total = total - reward * row[inside].sum()
    return total / len(rewards) + 17.0


def two_means(logp, rewards, mask):
    return -(logp * mask).sum(-1).mean() * rewards.mean()


def group_mean_taken_off(logp, rewards, mask):
    return right(logp, rewards - rewards.mean(), mask)


def constant_taken_off(logp, rewards, mask):
    return right(logp, rewards - 0.7, mask)


MENDED = [
    (lambda p, r, m: two_means(p, r, m), "SCALE fails"),
    (lambda p, r, m: len(r) * two_means(p, r, m), "VARIANCE fails.*no other text"),
    (lambda p, r, m: -right(p, r, m), "SIGN fails"),
    (lambda p, r, m: len(r) * right(p, r, m), "SCALE fails"),
    (lambda p, r, m: -((p * m).sum(-1) / m.sum(-1) * r).mean(), "MEAN fails"),
    (lambda p, r, m: -(p * m).sum() / m.sum() * r.mean(), "MEAN fails"),
    (lambda p, r, m: -((p * m).sum(-1) * r).sum() / m.sum(), "MEAN fails"),
    (lambda p, r, m: -((p * m).sum(-1) * r.flip(0)).mean(), "MEAN fails|SCALE fails|SIGN fails"),
    (lambda p, r, m: -((p * m)[:, 0] * r).mean(), "MEAN fails"),
    (lambda p, r, m: -(p * m).sum(-1).mean(), "fails"),
    (group_mean_taken_off, "fails"),
    (constant_taken_off, "VARIANCE fails.*chapter 06"),
    (lambda p, r, m: right(p, r + 3.0, m), "VARIANCE fails.*no constant"),
    (lambda p, r, m: right(p, r, torch.ones_like(m)), "use the mask"),
    (lambda p, r, m: right(p.detach(), r, m), "no gradient"),
    (lambda p, r, m: (p * m).sum(-1) * r, r"shape \(\)"),
]


RIGHT_VARIANCES = {
    "steady_whole": 13.5,
    "steady_to_go": 7.0,
    "advance_whole": 1.5,
    "advance_to_go": 3.0,
}

VARIANCES = [
    ("steady_whole", 27.0, "it is no 1"),
    ("steady_whole", 7.0, "exchange"),
    ("steady_whole", 13.5**0.5, "standard deviation"),
    ("steady_whole", 40.5, "then add"),
    ("steady_whole", 4.5, "mean over the words"),
    ("steady_to_go", 13.5, "exchange"),
    ("steady_to_go", 3.5, "the other one moves too"),
    ("steady_to_go", 2.5, "own reward belongs"),
    ("advance_whole", 3.0, "exchange|it is no 1"),
    ("steady_whole", 1.5, "by R, the whole reward"),
    ("advance_whole", 4.5, "by R, the whole reward"),
    ("advance_whole", 0.0, "none of the usual"),
    ("advance_to_go", 7.0, "not the past"),
    ("advance_to_go", 4.5, "alone"),
    ("advance_to_go", 6.0, "it is no 1"),
    ("advance_to_go", "six halves", "should be numbers|number"),
    ("advance_to_go", torch.zeros(3), "should have shape"),
]

SAMPLERS = [
    ([1 / 3, 1 / 3, 1 / 3], "compare the other two"),
    ([0.05, 0.05, 0.9], "still points uphill"),
    ([0.05, 0.9, 0.05], "still points uphill"),
    ([0.6, 0.1, 0.3], "still points uphill"),
    ([0.98, 0.01, 0.01], "at least 5 %"),
    ([0.9, 0.9, 0.9], "sum to 1"),
    ([0.5, 0.5], "should have shape"),
    ("mostly awful", "should be numbers"),
]


def surprise(logp, rewards, mask, beta, *, detach=True, weight=1.0, sign=-1.0):
    log_p = (logp * mask).sum(-1)
    judged = rewards - weight * beta * log_p
    return sign * ((judged.detach() if detach else judged) * log_p).mean()


def surprise_in_two_terms(logp, rewards, mask, beta):
    """The derivative of (log p)² / 2 is log p ∇ log p."""
    log_p = (logp * mask).sum(-1)
    return -(rewards * log_p).mean() + beta * (log_p**2).mean() / 2


def surprise_with_the_zero_term(logp, rewards, mask, beta):
    return surprise(logp, rewards, mask, beta) + beta * (logp * mask).sum(-1).mean()


def word_by_word(logp, rewards, mask, beta):
    judged = rewards[:, None] - beta * logp.detach()
    return -(judged * logp * mask).sum(-1).mean()


def surprise_of_mean(logp, rewards, mask, beta, *, axis):
    log_p = (logp * mask).sum(-1)
    mean = (logp * mask).detach().mean(-1) if axis else log_p.detach().mean()
    return -((rewards - beta * mean) * log_p).mean()


def surprise_a_word(logp, rewards, mask, beta, *, pay, loss):
    log_p = (logp * mask).sum(-1)
    rate = log_p / mask.sum(-1)
    judged = rewards - beta * (rate if pay else log_p).detach()
    return -(judged * (rate if loss else log_p)).mean()


SURPRISES = [
    (
        lambda *given: surprise_a_word(*given, pay=True, loss=False),
        "surprise is divided by the text's length",
    ),
    (lambda *given: surprise_a_word(*given, pay=False, loss=True), "by its number of words"),
    (lambda *given: surprise_a_word(*given, pay=True, loss=True), "both log p and"),
    (word_by_word, "own surprise"),
    (lambda p, r, m, t: surprise_of_mean(p, r, m, t, axis=0), "no mean"),
    (lambda p, r, m, t: surprise_of_mean(p, r, m, t, axis=1), "no mean"),
    (lambda p, r, m, t: surprise(p, r, torch.ones_like(m), t), "use the mask"),
    (lambda p, r, m, t: surprise(p, r, m, t, weight=0.0), "surprise is missing"),
    (lambda p, r, m, t: surprise(p, r, m, t, weight=-1.0), "sign of the surprise"),
    (lambda p, r, m, t: surprise(p, r, m, t, detach=False), "not detached"),
    (lambda p, r, m, t: surprise(p, r, m, t, sign=1.0), "sign is turned"),
    (lambda p, r, m, t: surprise(p, r, m, 1.0), "beta is missing"),
    (lambda p, r, m, t: surprise(p, r, m, t) / len(r), "once too often|SCALE fails"),
    (lambda p, r, m, t: surprise(p, r, m, t) - t * (p * m).sum(-1).mean() * r.mean(), "."),
    (lambda p, r, m, t: right(p, r, m) - t * (p * m).sum(-1).mean(), "surprise is missing"),
]

WRONG = [
    *((checks.exercise_1, answer, message) for answer, message in ARROWS),
    *(
        (checks.exercise_2, RIGHT_NUMBERS | {name: value}, message)
        for name, value, message in NUMBERS
    ),
    *((checks.exercise_3, answer, message) for answer, message in LOSSES),
    *((checks.exercise_4, answer, message) for answer, message in MOMENTS),
    *((checks.exercise_5, answer, message) for answer, message in MENDED),
    *(
        (checks.exercise_6, RIGHT_VARIANCES | {name: value}, message)
        for name, value, message in VARIANCES
    ),
    *((checks.exercise_7, answer, message) for answer, message in SAMPLERS),
    *((checks.exercise_8, answer, message) for answer, message in SURPRISES),
]

RIGHT = [
    (checks.exercise_1, arrow),
    (checks.exercise_1, arrow_by_autograd),
    (checks.exercise_1, lambda p, w, r: arrow(p, w, r).tolist()),
    (checks.exercise_2, RIGHT_NUMBERS),
    (checks.exercise_2, {name: round(x, 4) for name, x in RIGHT_NUMBERS.items()}),
    (checks.exercise_3, surrogate),
    (checks.exercise_3, surrogate_by_cross_entropy),
    (checks.exercise_3, surrogate_as_ratio),
    (checks.exercise_3, lambda z, i, a, m: surrogate(z.float(), i, a.float(), m)),
    (checks.exercise_4, moments),
    (checks.exercise_4, moments_by_covariance),
    (checks.exercise_5, right),
    (checks.exercise_5, right_by_words),
    (checks.exercise_5, lambda p, r, m: -(p.masked_fill(~m, 0.0).sum(-1) * r).mean()),
    (checks.exercise_6, RIGHT_VARIANCES),
    (checks.exercise_6, {name: torch.tensor(x) for name, x in RIGHT_VARIANCES.items()}),
    (checks.exercise_7, [0.9, 0.05, 0.05]),
    (checks.exercise_7, torch.tensor([0.5, 0.4, 0.1])),
    (checks.exercise_8, surprise),
    (checks.exercise_8, surprise_in_two_terms),
    (checks.exercise_8, surprise_with_the_zero_term),
]

# A stub is a function that returns nothing, unless it says so here: nothing → stub.
STUBS = {
    checks.exercise_2: lambda nothing: {name: nothing for name in RIGHT_NUMBERS},
    checks.exercise_4: lambda nothing: lambda *arguments: (nothing, nothing),
    checks.exercise_6: lambda nothing: {name: nothing for name in RIGHT_VARIANCES},
    checks.exercise_7: lambda nothing: nothing,
}
