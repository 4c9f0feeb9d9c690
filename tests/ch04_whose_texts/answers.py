"""Wrong and right answers to the exercises of chapter 04."""

import torch

from course.ch04_whose_texts import checks
from course.exact import importance, td

# ------------------------------------------------------------------------------ 4.1, SARSA


def stepper(onward, *, gamma_on=True, reward_on=True, change=False, write=False, blind=False):
    """SARSA steps of all kinds from one mould."""

    def step_(q, transition, next_word, step, gamma):
        state, word, reward, after = transition
        target = reward if reward_on else 0.0
        if blind or after is not None:
            target += (gamma if gamma_on else 1.0) * onward(q, state, after, next_word)
        moved = step * (target - q[state][word])
        if write:
            q[state][word] += moved
            return q[state][word]
        return moved if change else q[state][word] + moved

    return step_


def follow(q, state, after, word):
    return q[after][word]


STEPS = [
    (stepper(lambda q, s, after, w: max(q[after])), "that is Q-learning"),
    (stepper(lambda q, s, after, w: sum(q[after]) / len(q[after])), "mean over next words"),
    (stepper(follow, gamma_on=False), "γ is missing"),
    (stepper(follow, reward_on=False), "the reward is missing"),
    (stepper(follow, change=True), "this is the change"),
    (stepper(lambda q, s, after, w: q[s][w]), "row of this state"),
    (stepper(follow, write=True), "q was changed"),
    (stepper(follow, blind=True), "at the end of a text"),
    (lambda q, t, w, step, gamma: q[t[0]][t[1]], "none of the usual mistakes"),
    (lambda q, t, w, step, gamma: t[2], "the reward alone"),
    (lambda q, t, w, step, gamma: convex(q, t, w, 1.0, gamma), "this is the target"),
    (lambda q, t, w, *rest: convex(q, t, w, *rest) if t[3] else q[t[0]][t[1]], "nothing is learn"),
    (lambda q, t, w, step, gamma: q[t] + 1.0, "for the transition .0, 1, 0.5, 2.[.]$"),
]


def convex(q, transition, next_word, step, gamma):
    """The same as a weighted mean, on tensors."""
    state, word, reward, after = transition
    table = torch.tensor(q, dtype=torch.float64)
    onward = 0.0 if after is None else table[after, next_word]
    return (1 - step) * table[state, word] + step * (reward + gamma * onward)


# --------------------------------------------------------------------------- 4.2, Q-learning


def learner(rule, **changed):
    def learn(record, shape, gamma):
        settings = {"gamma": gamma} | changed
        return td.learn_from_texts(record, rule, shape, **settings)[-1]

    return learn


def past_the_end(record, shape, gamma):
    q = torch.zeros(shape, dtype=torch.float64)
    for s, a, r, after in (step for text in record for step in text):
        q[s, a] = r + gamma * q[-1 if after is None else after].max()
    return q


def lists_that_crash(record, shape, gamma):
    q = [[0.0] * shape[1] for _ in range(shape[0])]
    for s, a, r, after in (step for text in record for step in text):
        q[s][a] += r + gamma * max(q[after])
    return q


def with_a_slip(record, shape, gamma, *, turn=False, key=lambda s, a: (s, a), begin=0):
    q, visits = torch.zeros(shape, dtype=torch.float64), {}
    for text in record:
        for s, a, r, after in reversed(text) if turn else text:
            visits[key(s, a)] = visits.get(key(s, a), begin) + 1
            onward = 0.0 if after is None else float(q[after].max())
            q[s, a] += (r + gamma * onward - q[s, a]) / visits[key(s, a)]
    return q


def eats_the_record(record, shape, gamma):
    answer = learner(td.best_value)(record, shape, gamma)
    record.clear()
    return answer


def in_float32(record, shape, gamma):
    """A tensor of the default type, and numpy-like indexing."""
    q, visits = torch.zeros(shape), torch.zeros(shape)
    for text in record:
        for s, a, r, after in text:
            onward = 0.0 if after is None else float(q[after].max())
            visits[s, a] += 1
            q[s, a] = q[s, a] + (r + gamma * onward - q[s, a]) / visits[s, a]
    return q


LEARNERS = [
    (learner(td.next_word_value), "that is SARSA"),
    (learner(td.greedy_mean(1.0)), "mean over words"),
    (learner(td.best_value, gamma=0.0), "bootstraps from nothing"),
    (learner(td.best_value, gamma=1.0), "γ is missing"),
    (learner(td.best_value, power=0.0), "step size is 1 instead"),
    (learner(td.best_value, power=0.5), "square root"),
    (
        lambda record, shape, gamma: learner(td.best_value)(record[::-1], shape, gamma),
        "backwards",
    ),
    (lambda *given: with_a_slip(*given, turn=True), "walked backwards"),
    (lambda *given: with_a_slip(*given, key=lambda s, a: s), "each state and word"),
    (lambda *given: with_a_slip(*given, begin=1), "count begins at 1"),
    (past_the_end, "step size is 1 instead"),
    (lists_that_crash, "next state None"),
    (lambda record, shape, gamma: torch.full(shape, 0.5), "none of the usual mistakes"),
    (eats_the_record, "record was changed"),
    (lambda record, shape, gamma: torch.zeros(shape).T, "should have shape"),
]


# ------------------------------------------------------------------- 4.3, per-decision weights


def weigher(weights, *, reduce=torch.mean, gamma=None, invert=False, late=False):
    def estimate(target, behavior, rewards, mask, discount):
        log_ratio = (target - behavior).masked_fill(~mask, 0.0)
        if invert:
            log_ratio = -log_ratio
        steps = torch.arange(mask.shape[1]) + late
        discounts = (discount if gamma is None else gamma) ** steps.double()
        paid = discounts * rewards.masked_fill(~mask, 0.0)
        return reduce((weights(log_ratio) * paid).sum(-1))

    return estimate


def prefix(log_ratio):
    return log_ratio.cumsum(-1).exp()


def clipped(most):
    return lambda log_ratio: prefix(log_ratio).clamp(max=most)


def before(log_ratio):
    return torch.cat([torch.ones_like(log_ratio[:, :1]), prefix(log_ratio)[:, :-1]], dim=1)


def by_multiplying(target, behavior, rewards, mask, gamma):
    return (prefix((target - behavior) * mask) * rewards * mask).sum(-1).mean()


def writes_into_its_arguments(target, behavior, rewards, mask, gamma):
    for x in (target, behavior, rewards):
        x[~mask] = 0.0
    return weigher(prefix)(target, behavior, rewards, mask, gamma)


def with_a_loop(target, behavior, rewards, mask, gamma):
    total = 0.0
    for i in range(len(mask)):
        rho = 1.0
        for t in range(int(mask[i].sum())):
            rho = rho * float((target[i, t] - behavior[i, t]).exp())
            total += gamma**t * rho * float(rewards[i, t])
    return total / len(mask)


WEIGHERS = [
    (weigher(lambda x: x.sum(-1, keepdim=True).exp()), "ordinary estimate"),
    (weigher(torch.exp), "own ratio only"),
    (weigher(before), "stops before word t"),
    (weigher(torch.ones_like), "no ratio"),
    (weigher(lambda x: x.cumsum(-1)), "take exp"),
    (weigher(lambda x: prefix(x.flip(-1)).flip(-1)), "ratios of the later words"),
    (weigher(lambda x: (x.cumsum(-1) - x).exp() * x.exp()), "cannot write has ratio 0"),
    (weigher(prefix, invert=True), "inverted"),
    (weigher(prefix, gamma=1.0), "γ is missing"),
    (weigher(prefix, late=True), "discounted already"),
    (weigher(prefix, reduce=torch.sum), "sum over the texts"),
    (by_multiplying, "nan"),
    (writes_into_its_arguments, "argument was changed"),
    (weigher(prefix, reduce=lambda x: x), "should have shape"),
    *((weigher(clipped(most)), "are clipped") for most in (1.2, 2.0, 20.0, 1e4)),
    (weigher(lambda x: x.exp().clamp(max=10.0).cumprod(-1)), "are clipped"),
    (weigher(lambda x: x.exp().clamp(0.8, 1.28).cumprod(-1)), "are clipped"),
    (weigher(lambda x: x.clamp(-20, 20).cumsum(-1).exp()), "are clipped"),
    (weigher(lambda x: prefix(x).clamp(min=1e-8)), "are clipped"),
]


# ------------------------------------------------------------------- 4.4, effective sample size


def by_weights(weights):
    return weights.sum() ** 2 / (weights**2).sum()


SIZES = [
    (lambda x: (2 * x).exp().sum() / x.exp().sum() ** 2, "upside down"),
    (lambda x: x.exp().sum() / (2 * x).exp().sum(), "sum is not squared"),
    (lambda x: 1 / (2 * x).exp().sum(), "divided by their sum first"),
    (lambda x: float(len(x)), "number of texts"),
    (lambda x: x.exp().sum() / x.exp().max(), "another measure"),
    (lambda x: x.sum() ** 2 / (x**2).sum(), "take exp"),
    (lambda x: by_weights((x - x.mean()).exp()), "nan: −∞ is among"),
    (lambda x: by_weights((x - x.logsumexp(0)).exp()) + 1, "none of the usual"),
    (lambda x: x.exp().sum() ** 2 / (2 * x).exp().sum(), "subtract the largest"),
    (lambda x: x.exp_().sum() ** 2 / (x**2).sum(), "argument was changed"),
]


def by_logarithms(x):
    return float((2 * torch.logsumexp(x, 0) - torch.logsumexp(2 * x, 0)).exp())


# --------------------------------------------------------------------------------- 4.5, predict

ONE = 1.5625
TRUE = {
    "mean_10": 1.0,
    "second_moment_1": ONE,
    "variance_10": ONE**10 - 1,
    "texts_for_100": 100 * ONE**10,
    "mean_without_coverage": 0.5,
    "claim_of_the_largest": 0.291,  # 1.163 / 4
}
PREDICTIONS = [
    (TRUE | {"mean_10": 10.0}, "multiplies, it does not add"),
    (TRUE | {"mean_10": ONE**10}, "second moment"),
    (TRUE | {"second_moment_1": 0.5625}, "this is the variance"),
    (TRUE | {"second_moment_1": 3.125}, "square the ratio"),
    (TRUE | {"second_moment_1": 1.36}, "exchanged"),
    (TRUE | {"variance_10": ONE**10}, "subtract the square"),
    (TRUE | {"variance_10": 5.625}, "variances of ten words were added"),
    (TRUE | {"variance_10": 0.5625**10}, "only second moments multiply"),
    (TRUE | {"texts_for_100": 1562.5}, "multiply"),
    (TRUE | {"texts_for_100": 100 * ONE**10 - 100}, "uses the variance"),
    (TRUE | {"mean_10": 1.36**10}, "inverted"),
    (TRUE | {"mean_without_coverage": 1.0}, "needs coverage"),
    (TRUE | {"mean_without_coverage": 2.5}, "1/2 over 1"),
    (TRUE | {"claim_of_the_largest": 1.163}, "in standard errors"),
    (TRUE | {"claim_of_the_largest": 1.16}, "in standard errors"),
    (TRUE | {"claim_of_the_largest": 0.0725}, "divide the variance"),
    (TRUE | {"claim_of_the_largest": 0.28}, "none of the usual"),
    (TRUE | {"claim_of_the_largest": 1.163 / 16}, "divide the variance"),
    (TRUE | {"claim_of_the_largest": 0.0}, "the largest of them is not"),
    (TRUE | {"texts_for_100": 8000}, "none of the usual"),
    ({}, "names must stay"),
]


# -------------------------------------------------------------------------------- 4.6, break it


def avoid(*words, share=1e-9):
    def behavior(target):
        probs = target.clone()
        for word in words:
            probs[0, word] = share
        probs[0] /= probs[0].sum()
        return probs

    return behavior


def zeros(target):
    probs = target.clone()
    probs[0, 1:3] = 0.0
    return probs / probs.sum(-1, keepdim=True)


def in_place(target):
    target[0] = 0.2
    return target


def hidden_but_the_rest_is_flat(target):
    probs = torch.full_like(target, 0.2)
    probs[0] = torch.tensor([0.4, 1e-9, 1e-9, 0.4, 0.2 - 2e-9])
    return probs


def hidden_just_enough(target):
    probs = target.clone()
    probs[0, 1:3] = 4.5e-6  # 1,000 texts show neither word with probability 0.991
    probs[0, [0, 3, 4]] *= (1 - 9e-6) / target[0, [0, 3, 4]].sum()
    return probs


def rare_but_huge(target):
    probs = avoid(1, 2)(target)
    probs[0] *= 1 - 1e-3
    probs[0, 2] += 1e-3
    return probs


BEHAVIORS = [
    (lambda target: target.clone(), "still written now and then"),
    (avoid(1, 2, share=1e-3), "still written now and then"),
    (avoid(2), "Hide more"),
    (avoid(0), "Hide more"),
    (avoid(1, 2, share=3e-5), "huge ratios still occur"),
    (rare_but_huge, "huge ratios still occur"),
    (zeros, "some probability is 0"),
    (lambda target: target * 0.5, "sum to 1"),
    (in_place, "argument was changed"),
    (hidden_but_the_rest_is_flat, "the reader is warned|not far enough"),
    (lambda target: target[0], "should have shape"),
]


# ---------------------------------------------------------------------- 4.7, Q of a third party


def evaluator(rule, **changed):
    def learn(record, probs, gamma):
        settings = {"gamma": gamma, "power": 0.6} | changed
        made = rule(probs) if rule is td.policy_mean else rule
        return td.learn_from_texts(record, made, tuple(probs.shape), **settings)[-1]

    return learn


def changes_the_target(record, probs, gamma):
    answer = evaluator(td.policy_mean)(record, probs, gamma)
    probs.zero_()
    return answer


EVALUATORS = [
    (evaluator(td.next_word_value), "Q of the record's writer"),
    (evaluator(td.best_value, power=0.0), "near Q*"),
    (evaluator(td.policy_mean, gamma=1.0), "γ is missing"),
    (evaluator(td.policy_mean, gamma=0.0), "rewards alone"),
    (evaluator(lambda row, word, state: 9.0), "mean under target_probs"),
    (changes_the_target, "probabilities were changed"),
    (lambda record, probs, gamma: torch.zeros(3), "should have shape"),
]


def by_a_model(record, probs, gamma):
    """Note down what was seen of the world, and sweep backwards."""
    reward, leads = torch.zeros_like(probs), {}
    for state, word, r, after in (step for text in record for step in text):
        reward[state, word], leads[state, word] = r, after
    q = reward.clone()
    for (state, word), after in sorted(leads.items(), reverse=True):
        if after is not None:
            q[state, word] += gamma * probs[after] @ q[after]
    return q


# -------------------------------------------------------------------- 4.8, the best behaviour


def maker(*, weigh=True, first_only=False, row=True, fill=True, added=0.0):
    def make(texts, weights, shape):
        mass = torch.full(shape, added, dtype=torch.float64)
        for text, weight in zip(texts, weights, strict=True):
            for state, word, *_ in text[:1] if first_only else text:
                mass[state, word] += weight if weigh else 1.0
        total = mass.sum(-1, keepdim=True) if row else mass.sum()
        if not fill:
            return mass / total
        uniform = torch.full(shape, 1 / shape[1], dtype=torch.float64)
        return torch.where(total > 0, mass / total.clamp(min=1e-300), uniform)

    return make


def with_rows_of_zeros(texts, weights, shape):
    return maker(fill=False)(texts, weights, shape).nan_to_num(0.0)


def normalises_its_argument(texts, weights, shape):
    weights /= weights.sum()
    return maker()(texts, weights, shape)


MAKERS = [
    (maker(weigh=False), "not in proportion"),
    (maker(first_only=True), "later ones are not"),
    *((maker(added=added), "Add nothing") for added in (1e-2, 1e-4, 1e-6)),
    (maker(added=1.0), "not in proportion"),
    (maker(row=False), "each row must sum to 1"),
    (maker(fill=False), "nan"),
    (with_rows_of_zeros, "row of zeros"),
    (normalises_its_argument, "weights were changed"),
    (lambda texts, weights, shape: weights, "should have shape"),
]


def from_the_leaves(texts, weights, shape):
    """Backwards: the weight of a state is the sum of what lies beyond it."""
    beyond = {}
    for text, weight in zip(texts, weights.tolist(), strict=True):
        state, word, _, after = text[-1]
        assert after is None
        beyond[state, word] = weight
    leads = {(s, a): after for text in texts for s, a, _, after in text}
    for (state, word), after in sorted(leads.items(), reverse=True):
        if after is not None:
            beyond[state, word] = sum(beyond[after, a] for a in range(shape[1]))
    rows = [[beyond[s, a] for a in range(shape[1])] for s in range(shape[0])]
    return torch.tensor(
        [
            [x / sum(row) for x in row] if sum(row) > 0 else [1.0, *[0.0] * (shape[1] - 1)]
            for row in rows
        ]
    )


WRONG = [
    *((checks.exercise_1, answer, message) for answer, message in STEPS),
    *((checks.exercise_2, answer, message) for answer, message in LEARNERS),
    *((checks.exercise_3, answer, message) for answer, message in WEIGHERS),
    *((checks.exercise_4, answer, message) for answer, message in SIZES),
    *((checks.exercise_5, answer, message) for answer, message in PREDICTIONS),
    *((checks.exercise_6, answer, message) for answer, message in BEHAVIORS),
    *((checks.exercise_7, answer, message) for answer, message in EVALUATORS),
    *((checks.exercise_8, answer, message) for answer, message in MAKERS),
]

RIGHT = [
    (checks.exercise_1, stepper(follow)),
    (checks.exercise_1, convex),
    (checks.exercise_1, lambda *given: convex(*given).float()),
    (checks.exercise_2, learner(td.best_value)),
    (checks.exercise_2, in_float32),
    (checks.exercise_2, lambda *given: list(in_float32(*given))),
    (checks.exercise_3, weigher(prefix)),
    (checks.exercise_3, with_a_loop),
    (checks.exercise_4, lambda x: importance.effective_sample_size((x - x.max()).exp())),
    (checks.exercise_4, by_logarithms),
    (checks.exercise_4, lambda x: torch.tensor(by_logarithms(x))),
    (checks.exercise_5, TRUE),
    (checks.exercise_5, TRUE | {"claim_of_the_largest": 0.29}),
    (checks.exercise_5, {k: float(f"{v:.3g}") for k, v in TRUE.items()}),
    (checks.exercise_6, avoid(1, 2)),
    (checks.exercise_6, avoid(1, 2, share=1e-12)),
    (checks.exercise_6, hidden_just_enough),
    (checks.exercise_7, evaluator(td.policy_mean)),
    (checks.exercise_7, evaluator(td.policy_mean, power=0.0)),
    (checks.exercise_7, lambda *given: list(evaluator(td.policy_mean)(*given))),
    (checks.exercise_7, by_a_model),
    (checks.exercise_8, maker()),
    (checks.exercise_8, lambda *given: maker()(*given).float()),
    (checks.exercise_8, from_the_leaves),
]

STUBS = {checks.exercise_5: lambda nothing: dict.fromkeys(TRUE, nothing)}
