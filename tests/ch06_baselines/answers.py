"""Wrong and right answers to the exercises of chapter 06."""

import itertools

import torch

from course.ch06_baselines import checks

# ----------------------------------------------------------------- 6.1 leave one out


def sums(rewards, ids):
    same = (ids[:, None] == ids).to(rewards.dtype)
    return same @ rewards, same.sum(-1)


def leave_one_out(rewards, ids):
    total, size = sums(rewards, ids)
    return rewards - (total - rewards) / (size - 1)


def by_prompt(rewards, ids):
    judged = torch.zeros_like(rewards)
    for prompt in ids.unique():
        own = rewards[ids == prompt]
        judged[ids == prompt] = (own - own.mean()) * len(own) / (len(own) - 1)
    return judged


def by_index_add(rewards, ids):
    _, place, size = ids.unique(return_inverse=True, return_counts=True)
    total = torch.zeros(len(size), dtype=rewards.dtype).index_add_(0, place, rewards)
    return rewards - (total[place] - rewards) / (size[place] - 1)


def by_reshape(rewards, ids):
    rows = rewards.view(len(ids.unique()), -1)
    return (rows - (rows.sum(-1, keepdim=True) - rows) / (rows.shape[1] - 1)).view(-1)


def writes_into_rewards(rewards, ids):
    rewards.copy_(by_prompt(rewards, ids))
    return rewards


def by_std(rewards, ids):
    judged = torch.zeros_like(rewards)
    for prompt in ids.unique():
        own = rewards[ids == prompt]
        judged[ids == prompt] = (own - own.mean()) / own.std()
    return judged


def equal_sizes(rewards, ids):
    return rewards - (sums(rewards, ids)[0] - rewards) / (len(ids) / len(ids.unique()) - 1)


def grouped(rewards, ids, *, in_order=sorted):
    judged = by_prompt(rewards, ids)
    return torch.cat([judged[ids == prompt] for prompt in in_order(set(ids.tolist()))])


def as_met(rewards, ids):
    return grouped(rewards, ids, in_order=lambda _: dict.fromkeys(ids.tolist()))


LEAVE = [
    (grouped, "another order than the texts: sorted"),
    (as_met, "another order than the texts: prompt after"),
    (lambda r, i: r.view(4, -1), "same number of texts"),
    (lambda r, i: r - sums(r, i)[0] / sums(r, i)[1], "own reward is in what you subtract"),
    (lambda r, i: r - (sums(r, i)[0] - r) / sums(r, i)[1], "others are K − 1"),
    (lambda r, i: r - (r.sum() - r) / (r.numel() - 1), "mean over all prompts: compare"),
    (lambda r, i: r - r.mean(), "mean over all prompts, own reward"),
    (lambda r, i: r - leave_one_out(r, i), "baseline alone"),
    (lambda r, i: -leave_one_out(r, i), "sign is turned"),
    (by_std, "standard deviation"),
    (by_reshape, "need not stand together"),
    (equal_sizes, "different sizes"),
    (writes_into_rewards, "wrote into its arguments"),
    (lambda r, i: leave_one_out(r, i)[:2], "should have shape"),
    (lambda r, i: 2 * leave_one_out(r, i), "none of the usual"),
]

# --------------------------------------------------------------------- 6.2 numbers

RIGHT_NUMBERS = {
    "advantage_of_the_first": 2.67,
    "best_constant": 0.4,
    "factor_of_the_z_score": 0.35,
    "least_group": 50,
}
NUMBERS = [
    ("advantage_of_the_first", 2.0, "all four"),
    ("advantage_of_the_first", 1 / 3, "mean of the others"),
    ("advantage_of_the_first", 2.75, "three"),
    ("advantage_of_the_first", 4 / 3, "earned −2"),
    ("best_constant", -0.4, r"E\[R\]"),
    ("best_constant", 0.0, "squared"),
    ("best_constant", 0.7, "1 and 0"),
    ("best_constant", 9.0, "none of the usual"),
    ("factor_of_the_z_score", 0.71, "twice as far apart"),
    ("factor_of_the_z_score", 1.41, "∇L did"),
    ("factor_of_the_z_score", 0.5, "K − 1"),
    ("least_group", 51, "what is missing"),
]

# -------------------------------------------------------------- 6.3 a z-score per prompt


def z_scores(rewards, epsilon=1e-4):
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.std(-1, keepdim=True) + epsilon)


def row_by_row(rewards, epsilon=1e-4):
    rows = []
    for row in rewards.tolist():
        mean = sum(row) / len(row)
        std = (sum((r - mean) ** 2 for r in row) / (len(row) - 1)) ** 0.5
        rows.append([(r - mean) / (std + epsilon) for r in row])
    return rows


def as_found(rewards, epsilon=1e-4):
    return (rewards - rewards.mean()) / (rewards.std() + epsilon)


def row_centred(rewards):
    return rewards - rewards.mean(-1, keepdim=True)


def z_writes(rewards, epsilon=1e-4):
    rewards -= rewards.mean(-1, keepdim=True)
    return rewards / (rewards.std(-1, keepdim=True) + epsilon)


Z_SCORES = [
    (as_found, "the mean fails, and the scale"),
    (
        lambda r, epsilon=1e-4: (r - r.mean()) / (r.std(-1, keepdim=True) + epsilon),
        "mean fails: mean",
    ),
    (lambda r, epsilon=1e-4: row_centred(r) / (r.std() + epsilon), "std.. still goes over"),
    (
        lambda r, epsilon=1e-4: row_centred(r) / (r.std(-1, keepdim=True, correction=0) + epsilon),
        "divides by K here",
    ),
    (
        lambda r, epsilon=1e-4: row_centred(r) / (r.var(-1, keepdim=True) + epsilon).sqrt(),
        "outside the root",
    ),
    (lambda r, epsilon=1e-4: row_centred(r) / (r.var(-1, keepdim=True) + epsilon), "variance"),
    (lambda r, epsilon=1e-4: row_centred(r), "nothing is divided"),
    (lambda r, epsilon=1e-4: row_centred(r) / r.std(-1, keepdim=True), "ε is missing"),
    (
        lambda r, epsilon=1e-4: row_centred(r) / r.std(-1, keepdim=True).clamp(min=epsilon),
        "not a floor",
    ),
    (lambda r, epsilon=1e-4: row_centred(r) / (r.std(-1, keepdim=True) + 1e-4), "a fixed one"),
    (lambda r, epsilon=1e-4: (r - r.mean(-1)) / (r.std(-1) + epsilon), "keepdim"),
    (lambda r, epsilon=1e-4: row_centred(r) / (r.std(-1) + epsilon), "keepdim"),
    (lambda r, epsilon=1e-4: -z_scores(r, epsilon), "sign is turned"),
    (lambda r, epsilon=1e-4: r / (r.std(-1, keepdim=True) + epsilon), "nothing is subtracted"),
    (z_writes, "wrote into its arguments"),
    (lambda r, epsilon=1e-4: z_scores(r, epsilon).sum(-1), "should have shape"),
]

# ------------------------------------------------------------- 6.4 V of the state before


def excess(rewards, values, mask):
    return (rewards[:, None] - values).masked_fill(~mask, 0.0)


def excess_by_rows(rewards, values, mask):
    judged = torch.zeros_like(values)
    for i, t in itertools.product(*map(range, values.shape)):
        if mask[i, t]:
            judged[i, t] = rewards[i] - values[i, t]
    return judged


def sees_the_word(rewards, values, mask):
    after = torch.cat([values[:, 1:], rewards[:, None]], dim=1)
    return (rewards[:, None] - after) * mask


def bootstraps(rewards, values, mask):
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    return (after - values) * mask


def one_step(rewards, values, mask):
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    last = torch.arange(mask.shape[1]) == mask.sum(-1, keepdim=True) - 1
    return (rewards[:, None] * last + after - values) * mask


def excess_writes(rewards, values, mask):
    values *= -1
    values += rewards[:, None]
    return values * mask


EXCESS = [
    (sees_the_word, "the mean fails"),
    (bootstraps, "this bootstraps"),
    (one_step, "this bootstraps"),
    (lambda r, v, m: (v - r[:, None]) * m, "the sign fails"),
    (lambda r, v, m: r[:, None] * m, "nothing is subtracted"),
    (lambda r, v, m: (r[:, None] - v[:, :1]) * m, "variance is not"),
    (lambda r, v, m: r[:, None] - v, "after the end"),
    (lambda r, v, m: (r[:, None] - v) * m / 2, "the scale fails"),
    (lambda r, v, m: (r[:, None] - v) * m / m.sum(-1, keepdim=True), "the mean fails"),
    (lambda r, v, m: torch.zeros_like(v), "nothing is left"),
    (excess_writes, "wrote into its arguments"),
    (lambda r, v, m: r - v[:, 0], "should have shape"),
]

# ------------------------------------------------------- 6.5 comparing hurts


def case(probabilities, rewards):
    return {"probabilities": probabilities, "rewards": rewards}


CASES = [
    (case([0.98, 0.01, 0.01], [0.0, 1.0, 1.0]), "times the variance of no baseline"),
    (case([0.5, 0.25, 0.25], [-1.0, 0.5, 0.0]), "times the variance of no baseline"),
    (case([0.98, 0.01, 0.01], [1.0, 0.0, 0.0]), "an expert"),
    (case([0.98, 0.01, 0.02], [1.0, 0.0, 0.0]), "sum to 1"),
    (case([0.998, 0.001, 0.001], [1.0, 0.0, 0.0]), "at least 0.01"),
    (case([0.98, 0.01, 0.01], [3.0, 0.0, 0.0]), r"lie in \[-2, 2\]"),
    (case([0.98, 0.01, 0.01], [1.0, 1.0, 1.0]), "vanishes"),
    (case([0.98, 0.02], [1.0, 0.0]), "should have shape"),
    (case([0.98, 0.01, 0.01], [float("nan"), 0.0, 0.0]), "finite"),
    ({"probabilities": [0.98, 0.01, 0.01]}, "names must stay"),
]

# --------------------------------------------------------------------- 6.6 padded GAE


def batch_gae(rewards, values, mask, gamma, lam):
    return leaky(rewards, values, mask, gamma, lam, also_rewards=True)


def leaky(rewards, values, mask, gamma, lam, *, also_rewards=False):
    """The most common half mend: the values are masked, the rewards are not."""
    values = values.masked_fill(~mask, 0.0)
    if also_rewards:
        rewards = rewards.masked_fill(~mask, 0.0)
    found, following = [], torch.zeros_like(values[:, 0])
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * after[:, t] - values[:, t]
        following = delta + gamma * lam * following
        found.insert(0, following)
    return torch.stack(found, dim=1).masked_fill(~mask, 0.0)


def gae_with_where(rewards, values, mask, gamma, lam):
    """Two places: no value after the end, and nothing flows back from there."""
    found, following = [], torch.zeros_like(values[:, 0])
    worth = torch.where(mask, values, 0.0)
    after = torch.cat([worth[:, 1:], torch.zeros_like(worth[:, :1])], dim=1)
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * after[:, t] - values[:, t]
        following = torch.where(mask[:, t], delta + gamma * lam * following, 0.0)
        found.insert(0, following)
    return torch.stack(found, dim=1)


def gae_by_products(rewards, values, mask, gamma, lam):
    """Right for any finite padding; nan times 0 is nan."""
    every = ("paid", "before", "after", "trace")
    return checks._wrong_gae(rewards * mask, values * mask, mask, gamma, lam, leaks=every)


def gae_by_text(rewards, values, mask, gamma, lam):
    """Σ_k (γλ)^k δ_{t+k}, text by text, without the padding."""
    judged = torch.zeros_like(values)
    for row, n in enumerate(mask.sum(-1).tolist()):
        v = [*values[row, :n].tolist(), 0.0]
        delta = [float(rewards[row, t]) + gamma * v[t + 1] - v[t] for t in range(n)]
        for t in range(n):
            judged[row, t] = sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, n))
    return judged


def gae_writes(rewards, values, mask, gamma, lam):
    values[~mask] = 0.0
    return batch_gae(rewards, values, mask, gamma, lam)


def wrong_gae(mistake):
    return lambda *given: checks._wrong_gae(*given, mistake)


def leaking(*leaks):
    return lambda *given: checks._wrong_gae(*given, leaks=leaks)


GAES = [
    *(
        (wrong_gae(name), message)
        for name, message in (
            ("swapped", "exchanged"),
            ("no γ in the trace", "decays by λ alone"),
            ("no λ", "λ is missing"),
            ("no γ", "γ is missing"),
            ("no V", "not subtracted"),
            ("δ only", "trace is gone"),
        )
    ),
    (leaking("paid", "before", "after", "trace"), "both leaks"),
    (leaking("before", "after", "trace"), "both leaks.*values"),
    (leaking("paid", "after", "trace"), "both leaks.*rewards"),
    (leaking("after"), "still bootstraps"),
    (leaking("paid", "before", "after"), "still bootstraps"),
    (leaking("paid", "before", "trace"), "what stands after the end still flows"),
    (leaking("before", "trace"), "values after the end still flow"),
    (leaky, "rewards after the end still flow"),
    (gae_by_products, "nan . 0 is nan"),
    (gae_writes, "wrote into its arguments"),
    (lambda r, v, m, g, lam: batch_gae(r, v, m, g, lam) + (~m), "after the end, return 0"),
    (lambda r, v, m, g, lam: batch_gae(r, v, m, g, lam)[:, :2], "should have shape"),
    (lambda r, v, m, g, lam: -batch_gae(r, v, m, g, lam), "none of the usual"),
]

# ------------------------------------------------------- 6.7 the best baseline of a state


def best_baseline(probs, q_value):
    size = 1 - 2 * probs + probs.pow(2).sum(-1, keepdim=True)
    weight = probs * size
    return (weight * q_value).sum(-1) / weight.sum(-1)


def by_scores(probs, q_value):
    scores = torch.eye(probs.shape[-1], dtype=probs.dtype) - probs[:, None, :]
    weight = probs * scores.pow(2).sum(-1)
    return [float(w @ q / w.sum()) for w, q in zip(weight, q_value, strict=True)]


def weighted(weight, q_value):
    return (weight * q_value).sum(-1) / weight.sum(-1)


def square(p):
    return 1 - 2 * p + p.pow(2).sum(-1, keepdim=True)


def best_writes(probs, q_value):
    q_value *= probs * square(probs)
    return q_value.sum(-1) / (probs * square(probs)).sum(-1)


BEST = [
    (lambda p, q: (p * q).sum(-1), r"V\(s\)"),
    (lambda p, q: weighted(square(p), q), "probabilities are missing"),
    (lambda p, q: weighted(p * square(p).sqrt(), q), "has to be squared"),
    (lambda p, q: weighted(p * (1 - p) ** 2, q), "own entry only"),
    (lambda p, q: (p * square(p) * q).sum(-1), "not divided"),
    (lambda p, q: q.mean(-1), "plain mean"),
    (lambda p, q: weighted(p * (1 - p), q), r"not by π \(1 − π\)"),
    (best_writes, "wrote into its arguments"),
    (lambda p, q: weighted(p * square(p), q)[:, None].expand(-1, 5), "should have shape"),
    (lambda p, q: -best_baseline(p, q), "none of the usual"),
]

WRONG = [
    *((checks.exercise_1, answer, message) for answer, message in LEAVE),
    *(
        (checks.exercise_2, RIGHT_NUMBERS | {name: value}, message)
        for name, value, message in NUMBERS
    ),
    *((checks.exercise_3, answer, message) for answer, message in Z_SCORES),
    *((checks.exercise_4, answer, message) for answer, message in EXCESS),
    *((checks.exercise_5, answer, message) for answer, message in CASES),
    *((checks.exercise_6, answer, message) for answer, message in GAES),
    *((checks.exercise_7, answer, message) for answer, message in BEST),
]

RIGHT = [
    (checks.exercise_1, leave_one_out),
    (checks.exercise_1, by_prompt),
    (checks.exercise_1, by_index_add),
    (checks.exercise_1, lambda r, i: leave_one_out(r.float(), i).tolist()),
    (checks.exercise_2, RIGHT_NUMBERS),
    (checks.exercise_3, z_scores),
    (checks.exercise_3, row_by_row),
    (checks.exercise_3, lambda r, epsilon=1e-4: z_scores(r.float(), epsilon).numpy()),
    (checks.exercise_4, excess),
    (checks.exercise_4, excess_by_rows),
    (checks.exercise_4, lambda r, v, m: excess(r.float(), v.float(), m)),
    (checks.exercise_5, case([0.98, 0.01, 0.01], [-1.0, 0.0, 0.0])),
    (checks.exercise_5, case(torch.tensor([0.01, 0.98, 0.01]), torch.tensor([-0.1, -2.0, 0.0]))),
    (checks.exercise_6, batch_gae),
    (checks.exercise_6, gae_with_where),
    (checks.exercise_6, gae_by_text),
    (checks.exercise_6, lambda r, v, m, g, lam: batch_gae(r.float(), v.float(), m, g, lam)),
    (checks.exercise_7, best_baseline),
    (checks.exercise_7, by_scores),
    (checks.exercise_7, lambda p, q: best_baseline(p.float(), q.float())),
]

# A stub is a function that returns nothing, unless it says so here: nothing → stub.
STUBS = {
    checks.exercise_2: lambda nothing: {name: nothing for name in RIGHT_NUMBERS},
    checks.exercise_5: lambda nothing: case([nothing] * 3, [nothing] * 3),
}
