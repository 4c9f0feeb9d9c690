"""Wrong and right answers to the exercises of chapter 02."""

import math
import re

import torch

from course.ch02_loss_to_reward import checks
from course.worlds import reviews

# ------------------------------------------------------------------ 2.1, one loss of many parts


def total(parts):
    return sum(-s[m].sum() for s, m in parts)


def tokens(parts):
    return sum(m.sum() for _, m in parts)


def padding_scored(parts):
    return sum(-s.sum() for s, _ in parts) / sum(m.numel() for _, m in parts)


def zeroes_by_multiplying(parts):
    return sum(-(s * m).sum() for s, m in parts) / tokens(parts)


def writes_into_the_scores(parts):
    for s, m in parts:
        s[~m] = 0.0
    return sum(-s.sum() for s, _ in parts) / tokens(parts)


def drops_the_last_token(parts):
    lasts = sum(-s[i, int(m[i].sum()) - 1] for s, m in parts for i in range(len(s)))
    return (total(parts) - lasts) / (tokens(parts) - sum(len(s) for s, _ in parts))


def first_targets(parts):
    rows = [(row, m) for s, mask in parts for row, m in zip(s, mask, strict=True)]
    return sum(-row[: int(m.sum())].sum() for row, m in rows) / tokens(parts)


def detached(parts, count):
    parts = [(s.detach() if k < count else s, m) for k, (s, m) in enumerate(parts)]
    return total(parts) / tokens(parts)


def nan_gradient(s, m):
    """torch.where repairs the value, not the gradient."""
    return -torch.where(m, s.exp().log() * m, 0.0).sum()


LOG_2 = math.log(2)
LOSSES = [
    (lambda parts: -total(parts) / tokens(parts), "sign is turned"),
    (lambda parts: sum(-s[m].mean() for s, m in parts) / len(parts), "parts' own means"),
    (
        lambda parts: torch.stack(
            [-row[keep].mean() for s, m in parts for row, keep in zip(s, m, strict=True)]
        ).mean(),
        "each text's own mean",
    ),
    (lambda parts: total(parts) / sum(len(s) for s, _ in parts), "nats per text"),
    (total, "that is the sum"),
    (lambda parts: total(parts) / sum(m.numel() for _, m in parts), "counts the padding"),
    (padding_scored, "padding is scored"),
    (lambda parts: sum(-s.sum() for s, _ in parts) / tokens(parts), "padding is in the sum"),
    (lambda parts: total(parts) / len(parts), "number of parts"),
    (zeroes_by_multiplying, "nan"),
    (writes_into_the_scores, "wrote into"),
    (drops_the_last_token, "none of the usual"),
    (first_targets, "by its sum"),
    (lambda parts: total(parts) / tokens(parts) / LOG_2, "natural logarithm"),
    (lambda parts: "3", "should be numbers"),
    (lambda parts: (total(parts) / tokens(parts)).item(), "return a tensor"),
    (lambda parts: (total(parts) / tokens(parts)).detach(), "carries no gradient"),
    (lambda parts: detached(parts, 1), "was a part detached"),
    (lambda parts: sum(-s[m].mean() * m.sum() for s, m in parts) / tokens(parts), "empty mask"),
    (lambda parts: sum(nan_gradient(s, m) for s, m in parts) / tokens(parts), "gradient is not"),
]


def selected_and_joined(parts):
    return -torch.cat([s[m] for s, m in parts]).mean()


def filled(parts):
    return sum(-s.masked_fill(~m, 0).sum() for s, m in parts) / int(tokens(parts))


# ------------------------------------------------------------------- 2.2, a critic who laughs

LAUGHS = {
    "entropy": 2 * LOG_2,
    "floor_per_token": 2 * LOG_2 / 3,
    "perplexity": 4 ** (1 / 3),
    "cross_entropy": math.log(16 / 3),
    "divergence": math.log(4 / 3),
}
NUMBERS = [
    ("entropy", LOG_2, "one choice"),
    ("entropy", 3 * LOG_2, "surprises nobody"),
    ("entropy", 2.0, "natural logarithm"),
    ("divergence", 0.28, "round only at the end"),
    ("perplexity", 1.58, "round only at the end"),
    ("floor_per_token", LOG_2, "3 tokens"),
    ("floor_per_token", 2 * LOG_2, "divide by the number"),
    ("floor_per_token", 2 / 3, "natural logarithm"),
    ("perplexity", 2.0, "below that of a coin"),
    ("perplexity", 4.0, "nats per text"),
    ("perplexity", 2 * LOG_2 / 3, "exponential of nats"),
    ("cross_entropy", math.log(4), "both are paid"),
    ("cross_entropy", math.log(4 / 3), "stopping is paid"),
    ("cross_entropy", math.log(4) + 3 * math.log(4 / 3), "model itself"),
    ("cross_entropy", math.log(16 / 3) / 2, "per choice"),
    ("cross_entropy", math.log2(16 / 3), "natural logarithm"),
    ("divergence", math.log2(4 / 3), "natural logarithm"),
    ("divergence", math.log(16 / 3), "that is the cross-entropy"),
    ("divergence", -math.log(4 / 3), "sign is turned"),
    ("divergence", math.log(0.5) + 3 * math.log(1.5), "model ‖ data"),
    ("divergence", 0.0, "none of the usual"),
    ("perplexity", "two", "should be numbers"),
]


# ------------------------------------------------------------- 2.3 and 2.6, step by step


def walk(data, model, local, *, weights="data", depth=None, reduce=None):
    """Both exercises from one mould: local values of every state, weighted on the way down."""
    reach, parts = torch.ones(1, dtype=torch.float64), []
    leading = data if weights == "data" else model
    for k, (a, b) in enumerate(list(zip(data, model, strict=True))[:depth]):
        value = local(a, b)
        parts.append(reduce(value) if reduce else (reach.view(-1, *[1] * (value.ndim - 1)) * value))
        if k + 1 < len(data):
            n = len(data[k + 1]) // len(a)
            reach = (reach[:, None] * leading[k][:, :n].exp()).reshape(-1)
    return parts


def divergence(a, b):
    return (a.exp() * (a - b)).sum(-1)


def kl_with(local=divergence, **settings):
    return lambda data, model: sum(p.sum() for p in walk(data, model, local, **settings))


def kl_that_writes(data, model):
    answer = kl_with()(data, model)
    data[0] -= 1.0
    return answer


def word_world_only(data, model):
    """Four words that go on, whatever the world."""
    reach, answer = torch.ones(1, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for a, b in zip(data, model, strict=True):
        if len(reach) != len(a):
            return answer  # lost
        answer = answer + reach @ divergence(a, b)
        reach = (reach[:, None] * a[:, :4].exp()).reshape(-1)
    return answer


def float32_start(data, model):
    return torch.ones(1) @ divergence(data[0], model[0])


def n_is_one_less(data, model):
    reach, answer = torch.ones(1, dtype=torch.float64), 0.0
    for a, b in zip(data, model, strict=True):
        answer = answer + reach @ divergence(a, b)
        reach = (reach[:, None] * a[:, :-1].exp()).reshape(-1)
    return answer


def last_word_alone(data, model):
    """Weighs a prefix by the probability of its last word."""
    answer, reach = 0.0, torch.ones(1, dtype=torch.float64)
    for k, (a, b) in enumerate(zip(data, model, strict=True)):
        answer = answer + reach @ divergence(a, b)
        n = len(data[k + 1]) // len(a) if k + 1 < len(data) else 0
        reach = a[:, :n].exp().reshape(-1)
    return answer


DIVERGENCES = [
    (lambda data, model: kl_with()(model, data), "model ‖ data"),
    (kl_with(weights="model"), "how often the model gets there"),
    (kl_with(reduce=torch.sum), "reached for sure"),
    (last_word_alone, "d\\(s\\) is a product"),
    (kl_with(reduce=torch.mean), "mean over the prefixes"),
    (kl_with(depth=1), "first word alone"),
    (kl_with(depth=-1), "last level is missing"),
    (kl_with(lambda a, b: -divergence(a, b)), "sign is turned"),
    (kl_with(lambda a, b: divergence(a, b) / LOG_2), "none of the usual"),
    (kl_that_writes, "wrote into"),
    (word_world_only, "none of the usual"),
    (float32_start, "float64"),
    (n_is_one_less, "not A − 1"),
]


def kl_top_down(data, model):
    """By recursion from the leaves: KL of a state = its own + Σ d(a) KL of the next."""
    below = torch.zeros(len(data[-1]), dtype=torch.float64)
    for k in range(len(data) - 1, -1, -1):
        here = divergence(data[k], model[k])
        if k < len(data) - 1:
            n = len(data[k + 1]) // len(data[k])
            here = here + (data[k][:, :n].exp() * below.view(-1, n)).sum(-1)
        below = here
    return below[0]


def push(a, b):
    return b.exp() - a.exp()


def gradient_with(local=push, **settings):
    return lambda data, model: walk(data, model, local, **settings)


GRADIENTS = [
    (gradient_with(lambda a, b: a.exp() - b.exp()), "sign is turned"),
    (gradient_with(weights="model"), "how often the model gets there"),
    (gradient_with(reduce=lambda x: x), "reached for sure"),
    (gradient_with(lambda a, b: -a.exp()), "missing its normaliser"),
    (gradient_with(lambda a, b: b.exp()), "critic is missing"),
    (gradient_with(depth=1), "a list of"),
    (gradient_with(lambda a, b: b - a), "none of the usual"),
    (lambda data, model: [p.sum(0) for p in walk(data, model, push)], "should have shape"),
]


def by_autograd(data, model):
    """The loss written with conditionals, and PyTorch's gradient."""
    logits = [m.clone().requires_grad_() for m in model]
    loss = kl_with()(data, [z.log_softmax(-1) for z in logits])
    return list(torch.autograd.grad(loss, logits))


# ----------------------------------------------------------------------- 2.4, a strict verifier


def verifier(accepts):
    """A verifier that is right up to `accepts(text, wanted)`."""

    def reward(prompts, completions):
        values = []
        for prompt, text in zip(prompts, completions, strict=True):
            a, b = prompt[:-1].split("+")
            wanted = str(int(a) + int(b)).zfill(max(len(a), len(b)) + 1)
            values.append(float(accepts(text, wanted)))
        return values

    return reward


def as_int(text):
    try:
        return int(text)
    except ValueError:
        return None


def evaluated(text):
    try:
        return eval(text, {"__builtins__": {}})
    except Exception:
        return None


VERIFIERS = [
    (verifier(lambda x, w: as_int(x) == int(w)), "zero in front"),
    (verifier(lambda x, w: as_int(x) == int(w) and len(x) == len(w)), "a space|a sign|int\\(\\)"),
    (verifier(lambda x, w: x.strip() == w), "a space"),
    (verifier(lambda x, w: x.rstrip("\n") == w), "line break"),
    (verifier(lambda x, w: x.lstrip() == w), "a space"),
    (verifier(lambda x, w: x.strip("\t\r") == w), "tab"),
    (verifier(lambda x, w: x.replace("_", "") == w), "underscores"),
    (verifier(lambda x, w: x.strip('"') == w), "no quotes"),
    (verifier(lambda x, w: x.strip("*") == w), "stars"),
    (verifier(lambda x, w: x == w and int(w) < 2000), "in the right form"),
    (verifier(lambda x, w: x.removesuffix(".") == w), "not in the wanted form"),
    (verifier(lambda x, w: w in x.split(",")), "stands somewhere"),
    (verifier(lambda x, w: x.split("=")[-1] == w), "stands somewhere"),
    (lambda prompts, completions: [float(int(p)) for p in prompts], "take that off"),
    (verifier(lambda x, w: bool(re.match(w + "$", x))), "line break"),
    (verifier(lambda x, w: bool(re.match(w, x))), "082 "),
    (verifier(lambda x, w: w in x), "0082"),
    (verifier(lambda x, w: w in x.split()), "a space|somewhere"),
    (
        verifier(lambda x, w: bool(re.fullmatch(r"\d{3}", x)) and int(x) == 82 or x == w),
        "another script",
    ),
    (
        verifier(lambda x, w: x.isdigit() and len(x) == len(w) and as_int(x) == int(w)),
        "another script",
    ),
    (verifier(lambda x, w: x == w or evaluated(x) == int(w)), "zero in front"),
    (verifier(lambda x, w: x == w or ("+" in x and evaluated(x) == int(w))), "evaluated|a sign"),
    (verifier(lambda x, w: int(x) == int(w) and len(x) == len(w)), "raised ValueError|a space"),
    (verifier(lambda x, w: sorted(x) == sorted(w)), "order is not"),
    (verifier(lambda x, w: x == w.lstrip("0")), "in the right form"),
    (verifier(lambda x, w: x == "082"), "in the right form"),
    (verifier(lambda x, w: x == w or x == "999"), "another three-digit"),
    (
        lambda prompts, completions: [
            float(p != "37+45=" or x == "082") for p, x in zip(prompts, completions, strict=True)
        ],
        "another prompt",
    ),
    (lambda prompts, completions: 1.0, "should have shape"),
    (lambda prompts, completions: [1.0] * len(prompts), "earns 1"),
    (lambda prompts, completions: [float(x == "082") for x in completions], "in the right form"),
]


def by_regex(prompts, completions):
    values = []
    for prompt, text in zip(prompts, completions, strict=True):
        a, b = re.fullmatch(r"([0-9]+)\+([0-9]+)=", prompt).groups()
        fits = re.fullmatch(f"[0-9]{{{max(len(a), len(b)) + 1}}}", text)
        values.append(1 if fits and int(text) == int(a) + int(b) else 0)
    return values


# -------------------------------------------------------- 2.5 disguise, 2.7 floor given a prompt

DISGUISES = [
    ("was wonderful .", "exact sentiment is"),
    ("was dull and the film was awful .", "not in disguise"),
    ("was not not good and the film was bad .", "no review"),
    ("not good not good not lovely .", "no review"),
    ("was not great .", "no word great"),
    ("was not good .", "exact sentiment is -1"),
    (3, "one string"),
]


def prompt_entropy(grammar, k, *, weigh=True, end=True):
    entropy, prefixes = 0.0, {"": 1.0}
    for _ in range(k):
        longer = {}
        for prefix, reach in prefixes.items():
            for word, prob in grammar.next_word(prefix).items():
                if word or end:
                    entropy -= (reach if weigh else 1.0) * prob * math.log(prob)
                if word:
                    longer[f"{prefix} {word}".strip()] = reach * prob
        prefixes = longer
    return entropy


FLOORS = [
    (lambda g, k: g.entropy(), "read, not scored"),
    (prompt_entropy, "entropy of the prompt"),
    (lambda g, k: g.entropy() - prompt_entropy(g, max(0, k - 1)), "too few"),
    (lambda g, k: g.entropy() - prompt_entropy(g, k - 1), "too few"),
    (lambda g, k: g.entropy() - prompt_entropy(g, k + 1), "too many"),
    (lambda g, k: g.entropy() - prompt_entropy(g, k) / LOG_2, "not with log2"),
    (lambda g, k: (g.entropy() - prompt_entropy(g, k)) / LOG_2, "natural logarithm"),
    (lambda g, k: 1.0, r"got 1\.000000"),
    (lambda g, k: g.entropy() + prompt_entropy(g, k), "sign of the prompt"),
    (lambda g, k: g.entropy() - prompt_entropy(g, k, weigh=False), "none of the usual"),
    (lambda g, k: g.entropy() - prompt_entropy(g, k, end=False), "end counts as a word"),
    (
        lambda g, k: reviews.REVIEWS.entropy() - prompt_entropy(reviews.REVIEWS, k % 3),
        "none of the",
    ),
]


def by_lookahead(grammar, k):
    """Sum of what is left, instead of what is taken away: walk to the end of every text."""

    def left(prefix, depth, reach):
        total = 0.0
        for word, prob in grammar.next_word(prefix).items():
            if depth >= k:
                total -= reach * prob * math.log(prob)
            if word:
                total += left(f"{prefix} {word}".strip(), depth + 1, reach * prob)
        return total

    return left("", 0, 1.0)


WRONG = [
    *((checks.exercise_1, answer, message) for answer, message in LOSSES),
    *((checks.exercise_2, LAUGHS | {name: value}, message) for name, value, message in NUMBERS),
    *((checks.exercise_3, answer, message) for answer, message in DIVERGENCES),
    *((checks.exercise_4, answer, message) for answer, message in VERIFIERS),
    *((checks.exercise_5, answer, message) for answer, message in DISGUISES),
    *((checks.exercise_6, answer, message) for answer, message in GRADIENTS),
    *((checks.exercise_7, answer, message) for answer, message in FLOORS),
]

RIGHT = [
    (checks.exercise_1, lambda parts: total(parts) / tokens(parts)),
    (checks.exercise_1, selected_and_joined),
    (checks.exercise_1, filled),
    (checks.exercise_1, lambda p: sum(-(s * m).nan_to_num(0.0).sum() for s, m in p) / tokens(p)),
    (checks.exercise_1, lambda parts: (total(parts) / tokens(parts)).float()),
    (checks.exercise_2, LAUGHS),
    (checks.exercise_2, {name: round(value, 2) for name, value in LAUGHS.items()}),
    (checks.exercise_3, kl_with()),
    (checks.exercise_3, kl_top_down),
    (checks.exercise_3, lambda data, model: kl_with()(data, model).float()),
    (checks.exercise_4, verifier(lambda text, wanted: text == wanted)),
    (checks.exercise_4, by_regex),
    (checks.exercise_5, "was not good and the film was not good ."),
    (
        checks.exercise_5,
        "the cast was not good and the film was not lovely and the plot was "
        "not fresh but i loved the music .",
    ),
    (checks.exercise_6, gradient_with()),
    (checks.exercise_6, by_autograd),
    (checks.exercise_6, lambda d, m: [level.tolist() for level in gradient_with()(d, m)]),
    (checks.exercise_6, lambda d, m: [level.float() for level in gradient_with()(d, m)]),
    (checks.exercise_7, lambda g, k: g.entropy() - prompt_entropy(g, k)),
    (checks.exercise_7, by_lookahead),
]

# A stub is a function that returns nothing, unless it says so here: nothing → stub.
STUBS = {
    checks.exercise_2: lambda nothing: {name: nothing for name in LAUGHS},
    checks.exercise_5: lambda nothing: nothing,
}
