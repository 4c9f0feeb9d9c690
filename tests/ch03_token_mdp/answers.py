"""Wrong and right answers to the exercises of chapter 03."""

import functools

import torch

from course.ch03_token_mdp import checks
from course.worlds import word_world

WORLD = word_world.WORD_WORLD

# ------------------------------------------------------------------------------- 3.1, returns


def backwards(rewards, gamma, *, own=1.0, first=1.0):
    total, found = 0.0, []
    for reward in rewards[::-1]:
        total = own * reward + gamma * total
        found.insert(0, first * total)
    return found


def by_definition(rewards, gamma):
    spans = [rewards[t:] for t in range(len(rewards))]
    return torch.tensor([sum(gamma**k * r for k, r in enumerate(span)) for span in spans])


def without_its_own(rewards, gamma):
    return [gamma * g for g in by_definition(rewards, gamma).tolist()[1:]] + [0.0]


def from_the_first_word(rewards, gamma):
    discounted = [gamma**t * r for t, r in enumerate(rewards)]
    return [sum(discounted[t:]) for t in range(len(rewards))]


def in_place(rewards, gamma):
    for t in reversed(range(len(rewards) - 1)):
        rewards[t] += gamma * rewards[t + 1]
    return rewards


def paid_so_far(rewards, gamma):
    return [sum(gamma**k * r for k, r in enumerate(rewards[: t + 1])) for t in range(len(rewards))]


RETURNS = [
    (lambda r, g: backwards(r, 1.0), "nothing is discounted"),
    (lambda r, g: backwards(r, g)[::-1], "order is wrong"),
    (lambda r, g: [g**t * x for t, x in enumerate(r)], "single discounted rewards"),
    (lambda r, g: [sum(r[: t + 1]) for t in range(len(r))], "none of the usual"),
    (lambda r, g: backwards(r, g, first=g), "starts too early"),
    (without_its_own, "own reward is missing"),
    (from_the_first_word, "from the first word"),
    (in_place, "wrote into its argument"),
    (lambda r, g: backwards(r, g)[0], "should have shape"),
    (lambda r, g: backwards(r, 0.5), "none of the usual"),
    (paid_so_far, "none of the usual"),
]

# --------------------------------------------------------------------------------- 3.2, a sweep


def sweep(
    logprobs, rewards, gamma, *, weigh=torch.exp, discount=None, own=1.0, end=0.0, best=False
):
    found, following = [], None
    for logp, reward in zip(logprobs[::-1], rewards[::-1], strict=True):
        onward = torch.zeros_like(reward)
        if following is not None:
            onward[:, :4] = (gamma if discount is None else discount) * following.view(-1, 4)
            onward[:, 4] = end * following.view(-1, 4).mean(-1)
            reward = own * reward
        q_value = reward + onward
        following = q_value.max(-1).values if best else (weigh(logp) * q_value).sum(-1)
        found.append(following)
    return found[::-1]


def by_recursion(logprobs, rewards, gamma):
    def value(k, row):
        total = 0.0
        for word in range(5):
            onward = (
                gamma * value(k + 1, 4 * row + word) if word < 4 and k + 1 < len(rewards) else 0
            )
            total += float(logprobs[k][row, word].exp()) * (float(rewards[k][row, word]) + onward)
        return total

    return [[value(k, row) for row in range(4**k)] for k in range(len(rewards))]


def writes_into_rewards(logprobs, rewards, gamma):
    found = []
    for logp, q_value in zip(logprobs[::-1], rewards[::-1], strict=True):
        if found:
            q_value[:, :4] += gamma * found[0].view(-1, 4)
        found.insert(0, (logp.exp() * q_value).sum(-1))
    return found


def only_the_end_is_paid(logprobs, rewards, gamma):
    last = len(rewards) - 1
    paid = [r if k == last else r * torch.tensor([0.0, 0, 0, 0, 1]) for k, r in enumerate(rewards)]
    return sweep(logprobs, paid, gamma)


def children_in_the_wrong_order(logprobs, rewards, gamma):
    found = []
    for logp, reward in zip(logprobs[::-1], rewards[::-1], strict=True):
        q_value = reward.clone()
        if found:
            q_value[:, :4] += gamma * found[0].view(4, -1).T
        found.insert(0, (logp.exp() * q_value).sum(-1))
    return found


def one_value_for_all_words(logprobs, rewards, gamma):
    found = []
    for logp, reward in zip(logprobs[::-1], rewards[::-1], strict=True):
        onward = gamma * found[0].view(-1, 4).mean(-1, keepdim=True) if found else 0.0
        found.insert(0, (logp.exp() * (reward + onward)).sum(-1))
    return found


def everything_discounted(logprobs, rewards, gamma):
    return sweep(logprobs, [gamma * reward for reward in rewards], gamma)


def sweep_by(onward_of):
    """A sweep with another Q: `onward_of(reward, values of the children (S, 4) or None, γ)`."""

    def swept(logprobs, rewards, gamma):
        found = []
        for logp, reward in zip(logprobs[::-1], rewards[::-1], strict=True):
            q_value = onward_of(reward.clone(), found[0].view(-1, 4) if found else None, gamma)
            found.insert(0, (logp.exp() * q_value).sum(-1))
        return found

    return swept


def discounts_what_goes_on(reward, following, gamma):
    if following is not None:
        reward[:, :4] = gamma * (reward[:, :4] + following)
    return reward


def discounts_all_but_the_last(reward, following, gamma):
    if following is None:
        return reward
    return gamma * (reward + torch.cat([following, 0 * reward[:, :1]], dim=1))


def behind_the_last_four(reward, following, gamma):
    if following is not None:
        reward[:, 1:] += gamma * following
    return reward


SWEEPS = [
    (sweep_by(discounts_what_goes_on), "words that go on; it belongs"),
    (sweep_by(discounts_all_but_the_last), "all levels but the last"),
    (sweep_by(behind_the_last_four), "off by one"),
    (children_in_the_wrong_order, "wrong order"),
    (one_value_for_all_words, "a state of its own"),
    (everything_discounted, "multiplies the reward of the move"),
    (lambda p, r, g: sweep(p, r, g, discount=1.0), "discount is missing"),
    (lambda p, r, g: sweep(p, r, g, own=g), "multiplies the reward|none of the usual"),
    (lambda p, r, g: sweep(p, r, g, end=g), "“.” ends the text"),
    (lambda p, r, g: sweep(p, r, g, best=True), r"that is V\*"),
    (lambda p, r, g: sweep(p, r, g, weigh=lambda z: torch.full_like(z, 0.2)), "count equally"),
    (lambda p, r, g: sweep(p, r, g, weigh=lambda z: z), "log-probabilities"),
    (only_the_end_is_paid, "words that go on is missing"),
    (lambda p, r, g: sweep(p, r, g)[::-1], "should have shape"),
    (lambda p, r, g: torch.cat(sweep(p, r, g)), "return a list"),
    (lambda p, r, g: sweep(p, r, g)[:1], "return a list of 4"),
    (writes_into_rewards, "wrote into its arguments"),
    (lambda p, r, g: sweep(p, r, 1.0), "discount is missing"),
]

# ------------------------------------------------------------------------- 3.3, four numbers

RIGHT_NUMBERS = {
    "gamma_of_the_tie": 0.5**0.5,
    "best_value": 1.28,
    "uniform_value": -0.4,
    "advantage_of_stopping": 2.4,
}
NUMBERS = [
    ("gamma_of_the_tie", 1.0, "nothing is discounted"),
    ("gamma_of_the_tie", 0.5, "one γ cancels"),
    ("gamma_of_the_tie", 2**0.5, "no discount"),
    ("best_value", 2.0, "counts γ²"),
    ("best_value", 1.6, "one γ is missing"),
    ("best_value", 1.024, "one γ too many"),
    ("best_value", 0.8, "nothing better"),
    ("uniform_value", 0.0, "clipped"),
    ("uniform_value", 0.4, "cut at the limit"),
    ("uniform_value", -2.0, "1/5"),
    ("uniform_value", 0.8, "clipped at 2, and"),
    ("uniform_value", 17.0, "none of the usual mistakes"),
    ("advantage_of_stopping", 2.0, "subtract V"),
    ("advantage_of_stopping", -2.4, "other way round"),
    ("advantage_of_stopping", 1.6, "subtracting it adds"),
    ("gamma_of_the_tie", 0.71, "close: more digits"),
    ("uniform_value", "low", "should be numbers"),
]

# ------------------------------------------------------------------- 3.4, a table's gradient


def gradient(reach, probs, q_value, *, baseline=None, use_reach=True, use_probs=True, sign=1.0):
    value = (probs * q_value).sum(-1, keepdim=True) if baseline is None else baseline(q_value)
    result = sign * (q_value - value)
    result = result * probs if use_probs else result
    return result * reach[:, None] if use_reach else result


def in_two_terms(reach, probs, q_value):
    """Σ_b d π(b) Q(b) (1[a = b] − π(a)), as it stands."""
    kernel = torch.eye(5, dtype=probs.dtype) - probs[:, None, :]  # (S, b, a)
    return reach[:, None] * ((probs * q_value)[:, :, None] * kernel).sum(1)


def writes_into_q(reach, probs, q_value):
    q_value -= (probs * q_value).sum(-1, keepdim=True)
    return reach[:, None] * probs * q_value


def writes_into_probs(reach, probs, q_value):
    value = (probs * q_value).sum(-1, keepdim=True)
    return probs.mul_(q_value - value) * reach[:, None]


GRADIENTS = [
    (lambda d, p, q: gradient(d, p, q, baseline=torch.zeros_like), "Q where A should be"),
    (lambda d, p, q: gradient(d, p, q, use_reach=False), r"d\(s\) is missing"),
    (lambda d, p, q: gradient(d, p, q, use_probs=False), r"π\(a \| s\) is missing"),
    (
        lambda d, p, q: gradient(d, p, q, use_probs=False, use_reach=False),
        "only the advantage",
    ),
    (lambda d, p, q: gradient(d, p, q, sign=-1.0), "sign is turned"),
    (lambda d, p, q: gradient(d, p, q, baseline=lambda x: x.mean(-1, keepdim=True)), "plain mean"),
    (writes_into_q, "wrote into its arguments"),
    (writes_into_probs, "wrote into its arguments"),
    (lambda d, p, q: gradient(d, p, q).sum(-1), "should have shape"),
    (lambda d, p, q: gradient(d, p, q) * d[:, None], "none of the usual"),
]

# ----------------------------------------------- 3.5 a bonus, 3.6 a summary, 3.7 soft values


def never_judges(prefix, word):
    rash = {"good", "bad"} & set(prefix)
    return 0.75 if word == "not" or (word == "." and not rash) else 0.0


def one_text(prefix, word):
    aim = ("not", "not", "not", ".")
    return 0.75 if (*prefix, word) == aim[: len(prefix) + 1] else 0.0


BONUSES = [
    (lambda prefix, word: 0.75 if word == "not" else None, "should be numbers"),
    (lambda prefix, word: 0.75, "still a good text"),
    (lambda prefix, word: 0.0, "still a good text"),
    (lambda prefix, word: 0.75 * (word in ("not", "very", ".")), "still a good text"),
    (lambda prefix, word: 2.0 * (word == "very"), r"must lie in \[0, 0.75\]"),
    (lambda prefix, word: -0.1, r"must lie in"),
    (lambda prefix, word: float("nan"), r"must lie in"),
    (lambda prefix, word: 0.5 * (word == "not"), "still a good text"),
    (lambda prefix, word: 0.75 * ("not" in prefix), "still a good text"),
    (lambda prefix, word: (0.5, 0.5), "should have shape"),
]


def carried(state):
    """What the reward function carries along: no conflict, but more than is needed."""
    total, factor = 0.0, 1.0
    for word in state[1:]:
        factor *= {"not": -1.0, "very": 2.0}.get(word, 1.0)
        if word in ("good", "bad"):
            total, factor = total + factor * (1 if word == "good" else -1), 1.0
    return len(state), total, factor


@functools.cache
def future(state):
    after = []
    for word in WORLD.words:
        text = " ".join((*state[1:], word))
        over = word == "." or len(state) == 4
        after.append(WORLD.reward(["praise"], [text])[0] if over else future((*state, word)))
    return tuple(after)


counter = iter(range(10_000))

SUMMARIES = [
    (lambda state: state, "are enough"),
    (carried, "are enough"),
    (lambda state: state[-1], "a conflict"),
    (lambda state: len(state), "a conflict"),
    (lambda state: tuple(sorted(state[1:])), "a conflict"),
    (lambda state: 0, "a conflict"),
    (lambda state: carried(state)[1:], "a conflict"),
    (lambda state: list(state), "hashable"),
    (lambda state: next(counter), "different summaries"),
    (lambda state: torch.tensor(0), "not a tensor"),
    (lambda state: torch.tensor([0.0, 1.0]), "not a tensor"),
    (lambda state: None if len(state) < 3 else future(state), "a conflict"),
]


def soft(rewards, beta, *, outside=None, inside=None, last=4):
    value = None
    for reward in rewards[::-1]:
        q_value = reward.clone()
        if value is not None:
            q_value[:, :last] += value.view(-1, 4)[:, :last]
        value = (outside or beta) * (q_value / (inside or beta)).logsumexp(-1)
    return value[0]


def soft_mean(rewards, beta, *, entropy=lambda probs: 0.0):
    value = None
    for reward in rewards[::-1]:
        q_value = reward.clone()
        if value is not None:
            q_value[:, :4] += value.view(-1, 4)
        probs = (q_value / beta).softmax(-1)
        value = (probs * q_value).sum(-1) + beta * entropy(probs)
    return value[0]


def with_p_log_p(rewards, beta):
    """Right, until a probability underflows."""
    return soft_mean(rewards, beta, entropy=lambda p: -(p * p.log()).sum(-1))


def with_entr(rewards, beta):
    return soft_mean(rewards, beta, entropy=lambda p: torch.special.entr(p).sum(-1))


def hard(rewards, beta):
    value = None
    for reward in rewards[::-1]:
        q_value = reward.clone()
        if value is not None:
            q_value[:, :4] += value.view(-1, 4)
        value = q_value.max(-1).values
    return value[0]


def overflows(rewards, beta):
    value = None
    for reward in rewards[::-1]:
        q_value = reward.clone()
        if value is not None:
            q_value[:, :4] += value.view(-1, 4)
        value = beta * (q_value / beta).exp().sum(-1).log()
    return value[0]


def averages(rewards, beta):
    value = None
    for reward in rewards[::-1]:
        q_value = reward.clone()
        if value is not None:
            q_value[:, :4] += value.view(-1, 4)
        value = q_value.mean(-1)
    return value[0]


def discards_the_reward_on_the_way(rewards, beta):
    value = None
    for reward in rewards[::-1]:
        q_value = reward.clone()
        if value is not None:
            q_value[:, :4] = value.view(-1, 4)
        value = beta * (q_value / beta).logsumexp(-1)
    return value[0]


def only_the_reward_part(rewards, beta):
    soft_value, value = None, None
    for reward in rewards[::-1]:
        q_soft, q_value = reward.clone(), reward.clone()
        if value is not None:
            q_soft[:, :4] += soft_value.view(-1, 4)
            q_value[:, :4] += value.view(-1, 4)
        value = ((q_soft / beta).softmax(-1) * q_value).sum(-1)
        soft_value = beta * (q_soft / beta).logsumexp(-1)
    return value[0]


def writes_into_its_argument(rewards, beta):
    value = None
    for reward in rewards[::-1]:
        if value is not None:
            reward[:, :4] += value.view(-1, 4)
        value = beta * (reward / beta).logsumexp(-1)
    return value[0]


SOFT = [
    (discards_the_reward_on_the_way, "none of the usual"),
    (only_the_reward_part, "only the reward part"),
    (hard, "without the entropy"),
    (overflows, "overflows"),
    (averages, "uniform policy"),
    (lambda r, t: soft(r, t) / t, "beta is missing in front"),
    (lambda r, t: soft(r, t, last=3), "none of the usual"),
    (lambda r, t: soft(r, t, outside=1.0), "β is missing in front"),
    (lambda r, t: soft(r, t, inside=1.0), "β is missing inside"),
    (lambda r, t: soft(r, 1.0), "in front of logsumexp and inside"),
    (soft_mean, "entropy of each choice is missing"),
    (with_p_log_p, "0 · log 0"),
    (writes_into_its_argument, "wrote into its argument"),
    (lambda r, t: soft(r, t).expand(5), "should have shape"),
]

WRONG = [
    *((checks.exercise_1, answer, message) for answer, message in RETURNS),
    *((checks.exercise_2, answer, message) for answer, message in SWEEPS),
    *(
        (checks.exercise_3, RIGHT_NUMBERS | {name: value}, message)
        for name, value, message in NUMBERS
    ),
    *((checks.exercise_4, answer, message) for answer, message in GRADIENTS),
    *((checks.exercise_5, answer, message) for answer, message in BONUSES),
    *((checks.exercise_6, answer, message) for answer, message in SUMMARIES),
    *((checks.exercise_7, answer, message) for answer, message in SOFT),
]

RIGHT = [
    (checks.exercise_1, backwards),
    (checks.exercise_1, by_definition),
    (checks.exercise_2, sweep),
    (checks.exercise_2, by_recursion),
    (checks.exercise_2, lambda p, r, g: [v.float() for v in sweep(p, r, g)]),
    (checks.exercise_3, RIGHT_NUMBERS),
    (checks.exercise_3, RIGHT_NUMBERS | {"gamma_of_the_tie": 0.707}),
    (checks.exercise_4, gradient),
    (checks.exercise_4, in_two_terms),
    (checks.exercise_5, never_judges),
    (checks.exercise_5, one_text),
    (checks.exercise_6, future),
    (checks.exercise_6, lambda state: str(future(state))),
    (checks.exercise_7, soft),
    (checks.exercise_7, with_entr),
    (checks.exercise_7, lambda rewards, beta: soft([r.float() for r in rewards], beta)),
    (checks.exercise_7, lambda rewards, beta: float(soft(rewards, beta))),
]

# A stub is a function that returns nothing, unless it says so here: nothing → stub.
STUBS = {checks.exercise_3: lambda nothing: {name: nothing for name in RIGHT_NUMBERS}}
