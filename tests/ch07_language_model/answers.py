"""Wrong and right answers to the exercises of chapter 07."""

import copy
import itertools
import math
import statistics
import tempfile
from pathlib import Path

import torch
from scipy import stats

from course.ch07_language_model import checks
from course.worlds import imitation, reviews
from helpers import checkpoints, losses, rollout, scoring

# ---------------------------------------------------------------- 7.1, one batch in numbers

# Silent: the whole of “the plot”, and the two of “the cast” that earned 1 = (2 + 0 + 1)/3.
# Scored: 5 + 9 + 4 + 6 and 8 + 5. Read: one token less each, and 4 prompt tokens, 6 or 2 times.
ONE_BATCH = {"silent": 6, "tokens_scored": 37, "read_alone": 55, "read_shared": 39}
NUMBERS = [
    ("silent", 4, "look within the others"),
    ("silent", 8, "mean of the others is what counts"),
    ("silent", 2, "but not each text"),
    ("silent", 12, "none of the usual"),
    ("tokens_scored", 82, "these are all tokens"),
    ("tokens_scored", 31, "EOS is missing"),
    ("tokens_scored", 61, "not written by the policy"),
    ("tokens_scored", 53, "silent texts in other groups"),
    ("read_alone", 61, "predicts nothing"),
    ("read_alone", 31, "have to be read"),
    ("read_alone", 118, "silent texts need not"),
    ("read_shared", 43, "three prompts"),
    ("read_shared", 31, "once each"),
    ("read_shared", 45, "predicts nothing"),
    ("read_shared", 55, "own prompt"),
    ("read_shared", 82, "silent texts need not"),
]

# ------------------------------------------------------------- 7.2, one gradient, many pieces


def credit(lm, batch, advantages, pieces, *, divide=None, clear="before", sign=1.0):
    """Right as it stands; `divide(loss, rows)` is what is descended, for the wrong ones."""
    if clear == "before":
        lm.model.zero_grad()
    for rows in pieces:
        if clear == "each":
            lm.model.zero_grad()
        part = scoring.select(batch, rows)
        token_logprobs = rollout.completion_logprobs(lm.model, part)
        loss = losses.reinforce_loss(token_logprobs, advantages[rows], part.completion_mask)
        share = len(rows) / len(advantages)
        (sign * loss * (divide(rows, batch, pieces) if divide else share)).backward()
    return torch.cat([p.grad.flatten() for p in lm.model.parameters()])


def as_one_sum(lm, batch, advantages, pieces):
    lm.model.zero_grad()
    for rows in pieces:
        part = scoring.select(batch, rows)
        log_p = rollout.completion_logprobs(lm.model, part).sum(1)
        (-(advantages[rows] @ log_p) / len(batch.lengths)).backward()
    return [float(g) for p in lm.model.parameters() for g in p.grad.flatten()]


def by_autograd(lm, batch, advantages, pieces, *, filled=True):
    weights, total = list(lm.model.parameters()), 0.0
    lm.model.zero_grad()
    for rows in pieces:
        log_p = rollout.completion_logprobs(lm.model, scoring.select(batch, rows)).sum(1)
        grads = torch.autograd.grad(-(advantages[rows] * log_p).sum() / len(advantages), weights)
        total = total + torch.cat([g.flatten() for g in grads])
        for p, g in zip(weights, grads, strict=True):
            if filled:
                p.grad = g if p.grad is None else p.grad + g
    return total


def all_at_once(lm, batch, advantages, pieces):
    return credit(lm, batch, advantages, [torch.cat(list(pieces))])


def whole_batch(lm, batch, advantages, pieces):
    return as_one_sum(lm, batch, advantages, [torch.arange(len(advantages))])


def doubled_afterwards(lm, batch, advantages, pieces):
    found = credit(lm, batch, advantages, pieces)
    for p in lm.model.parameters():
        p.grad *= 2
    return found


def row_by_row(lm, batch, advantages, pieces):
    return as_one_sum(lm, batch, advantages, torch.cat(list(pieces)).split(3))


def with_weights_moved(lm, batch, advantages, pieces):
    found = credit(lm, batch, advantages, pieces)
    with torch.no_grad():
        for p in lm.model.parameters():
            p -= 0.01 * p.grad
    return found


def writes_advantages(lm, batch, advantages, pieces):
    advantages /= len(advantages)
    return as_one_sum(lm, batch, advantages, pieces)


def wrong_credit(**settings):
    return lambda *given: credit(*given, **settings)


def kept(pieces):
    return sum(map(len, pieces))


CREDITS = [
    (wrong_credit(divide=lambda rows, batch, pieces: 1 / len(pieces)), "every micro-batch counts"),
    (wrong_credit(divide=lambda rows, batch, pieces: 1.0), "are added up"),
    (
        wrong_credit(divide=lambda rows, batch, pieces: len(rows) / kept(pieces)),
        "count in the mean",
    ),
    (wrong_credit(divide=lambda rows, batch, pieces: len(rows)), "nothing is divided"),
    (
        wrong_credit(
            divide=lambda rows, batch, pieces: (
                len(rows) / sum(int(batch.lengths[r].sum()) for r in pieces)
            )
        ),
        "divides by tokens",
    ),
    (wrong_credit(clear="each"), "only the last micro-batch"),
    (wrong_credit(clear="each", divide=lambda *_: 1.0), "mean is over its own rows"),
    (wrong_credit(clear="never"), "second call"),
    (
        wrong_credit(clear="never", divide=lambda rows, batch, pieces: 1 / len(pieces)),
        "not cleared, and every",
    ),
    (wrong_credit(sign=-1.0), "sign is turned"),
    (wrong_credit(sign=0.7), "none of the usual"),
    (with_weights_moved, "moved the weights"),
    (all_at_once, "reads .* rows at once"),
    (whole_batch, "reads .* rows at once"),
    (lambda *given: by_autograd(*given, filled=False), "`.grad` is empty"),
    (doubled_afterwards, "holds something else"),
    (writes_advantages, "wrote into its arguments"),
    (lambda *given: credit(*given)[:5], "should have shape"),
]

# ------------------------------------------------------------- 7.3, what the optimizer makes

# m = 0.1 g, then 0.09 g over 1 − 0.81; v = 0.001 g², then 0.000999 g² over 1 − 0.998001.
OPTIMIZED = {
    "self_mean_gradient": 7 / 8,
    "self_mean_move": 1.0,
    "hundredfold_sgd": 2.0,
    "idle_move": (0.09 / 0.19) / (0.000999 / 0.001999) ** 0.5,
}
MOVES = [
    ("self_mean_gradient", 8 / 7, "other way round"),
    ("self_mean_gradient", 1 / 8, "K − 1 over K"),
    ("self_mean_gradient", 1.0, "not equally long"),
    ("self_mean_move", 7 / 8, "gradient's factor"),
    ("hundredfold_sgd", 100, "without clipping"),
    ("hundredfold_sgd", 1, "could still grow"),
    ("hundredfold_sgd", 0.5, "measure it against"),
    ("idle_move", 0, "still remembers"),
    ("idle_move", 0.9, "what is left of m"),
    ("idle_move", 0.474, "v is corrected too"),
    ("idle_move", 1.0, "only if the gradient does"),
    ("idle_move", 0.2, "none of the usual"),
    ("idle_move", -0.67, "no sign"),
    ("self_mean_gradient", -0.875, "no sign"),
    ("self_mean_gradient", 0.87, "more digits"),
    ("self_mean_move", -1.0, "no sign"),
    ("hundredfold_sgd", -2, "no sign"),
]

# ---------------------------------------------------------------------- 7.4, five runs

CAUSES = dict(checks.broken_runs.ORDER)
COLUMNS = {
    "old writer": "mismatch",
    "other weights": "kl",
    "prompts in turn": "reward",
    "all alike": "silent",
}
SHOWN = [
    ("old writer", "kl", "in a right run as well"),
    ("old writer", "entropy", "compares those two"),
    ("other weights", "grad_norm", "there is a gradient"),
    ("other weights", "mismatch", "stand still"),
    ("other weights", "reward", "stands still exactly"),
    ("other weights", "silent", "exactly 0"),
    ("prompts in turn", "finished", "under both prompts"),
    ("prompts in turn", "mismatch", "does not rise"),
    ("prompts in turn", "silent", "still differ"),
    ("all alike", "reward", "they are equal"),
    ("all alike", "kl", "other weights are moved"),
    ("all alike", "mismatch", "counts those"),
    ("all alike", "length", "none of the columns"),
]
SWAPS = [
    ("D", "old writer", "run D is not .old writer.: .*stays at rounding"),
    ("C", "nothing", "run C is not .nothing.: .mismatch. is far above"),
    ("C", "other weights", "run C.*who is scored"),
    ("E", "nothing", "run E.*never moved"),
    ("E", "prompts in turn", "run E.*never moved"),
    ("B", "other weights", "run B.*exactly 0"),
    ("A", "nothing", "run A.*earns nothing"),
    ("D", "prompts in turn", "run D.*ends high"),
    ("A", "all alike", "run A.*every advantage"),
    ("D", "other weights", "run D.*do move"),
    ("A", "bad luck", "none of the five causes"),
]

# ------------------------------------------------------------------- 7.5, luck or baseline


def compare_steps(a, b):
    first, second = ([float("inf") if x is None else x for x in steps] for steps in (a, b))

    def share(one, other):
        return statistics.fmean((x < y) + (x == y) / 2 for x in one for y in other)

    every, actual = first + second, share(first, second)
    shares = []
    for rows in itertools.combinations(range(len(every)), len(first)):
        rest = [every[k] for k in range(len(every)) if k not in rows]
        shares.append(share([every[k] for k in rows], rest))
    return actual, statistics.fmean(x >= actual for x in shares)


def by_ranks(a, b):
    """Every order of the seeds, and the sum of ranks instead of pairs."""
    late = torch.tensor([10**9 if x is None else x for x in (*a, *b)])
    above = (late[:, None] < late).double() + (late[:, None] == late) / 2  # (n, n)
    n, rows = len(a), torch.combinations(torch.arange(len(late)), len(a))
    inside = torch.zeros(len(rows), len(late), dtype=torch.float64).scatter_(1, rows, 1.0)
    shares = ((inside @ above) * (1 - inside)).sum(1) / (n * len(b))
    return torch.stack([shares[0], (shares >= shares[0] - 1e-9).double().mean()])


def wrong_comparison(mistake):
    return lambda a, b: checks._compared(a, b, mistake)


def sorts(a, b):
    b.sort(key=lambda x: x or 0, reverse=True)
    return compare_steps(a, b)


LEAST = {"five": 1 / 252, "three": 1 / 20}  # 10 · 9 · 8 · 7 · 6 / 5!, and 6 · 5 · 4 / 3!
LEAST_WRONG = [
    ("five", 0, "never 0"),
    ("five", 1 / 32, "turned or not"),
    ("three", 1 / 8, "turned or not"),
    ("five", 2 / 252, "opposite labelling"),
    ("three", 0.1, "opposite labelling"),
    ("three", 1 / 6, "one side"),
    ("five", 1 / 25, "not pairs"),
    ("five", 0.1, "one in all"),
    ("five", 0.05, "none of the usual"),
]


def capped(at):
    def answer(a, b):
        return compare_steps(*([at if x is None else x for x in steps] for steps in (a, b)))

    return answer


def mann_whitney(method):
    def answer(a, b):
        first, second = ([math.inf if x is None else x for x in steps] for steps in (a, b))
        test = stats.mannwhitneyu(first, second, alternative="less", method=method)
        return 1 - test.statistic / (len(a) * len(b)), test.pvalue

    return answer


COMPARED = [
    *(
        (wrong_comparison(name), message)
        for name, message in (
            ("left out", "left out"),
            ("capped", "million"),
            ("never is 0", "fastest"),
            ("never is last", "no tie with"),
            ("ties are 0", "half a pair for each"),
            ("ties are 1", "not a whole one"),
            ("turned", "share is turned"),
            ("strict", "never be 0"),
            ("wrong tail", "worse"),
            ("equal only", "better ones count"),
            ("two-sided", "for b, too"),
            ("complement", "is no p"),
        )
    ),
    (lambda a, b: compare_steps(a, b)[0], "should have shape"),
    (lambda a, b: (compare_steps(a, b)[0], 0.033), "none of the usual"),
    (sorts, "wrote into its arguments"),
    (capped(45), "million"),
    (capped(10**5), "million"),
    (mann_whitney("exact"), "table of Mann and Whitney"),
    (mann_whitney("asymptotic"), "normal approximation"),
    (mann_whitney("auto"), "Mann and Whitney"),
]

# ---------------------------------------------------------------- 7.6, a penalty too small


def surprise_of(text):
    with torch.no_grad():
        full = [f"the cast {text}"]
        return -float(imitation.score(checks._reviews(), full, prompt_words=2))


def level_beta(text, honest="was good . what a treat ."):
    paid = [reviews.sentiment_reward([""], [each])[0] for each in (text, honest)]
    return (paid[0] - paid[1]) / (surprise_of(text) - surprise_of(honest))


SPAM, SLEEK = " ".join(["wonderful"] * 31), " ".join(["loved"] * 31)
GAMED = {"text": SPAM, "beta": level_beta(SPAM)}
BROKEN = [
    (GAMED | {"text": "was good . what a treat ."}, "that is a review"),
    (GAMED | {"text": "wonderful " * 32}, "more than 32"),
    (GAMED | {"text": "splendid " * 12}, "cannot write"),
    (GAMED | {"text": "wonderful wonderful"}, "some review has"),
    (GAMED | {"text": "awful " * 31}, "some review has"),
    (GAMED | {"text": 7}, "string of words"),
    (GAMED | {"text": "  "}, "string of words"),
    (GAMED | {"beta": 31 / surprise_of(SPAM)}, "to 0"),
    (GAMED | {"beta": 29 / surprise_of(SPAM)}, "the review costs too"),
    (GAMED | {"beta": 1 / GAMED["beta"]}, "nats a reward unit"),
    (
        GAMED | {"beta": 31 / (surprise_of(SPAM) - surprise_of("was good . what a treat ."))},
        "subtract both",
    ),
    (GAMED | {"beta": 0.05}, "none of the usual"),
    (GAMED | {"beta": 0.09}, "three decimals"),
    ({"text": SPAM}, "names must stay"),
]

# ------------------------------------------------------------- 7.7, paid word by word


def word_advantages(rewards, logprobs, ref_logprobs, mask, beta):
    ratio = torch.where(mask, logprobs - ref_logprobs, 0.0).detach()
    following = ratio.flip(1).cumsum(1).flip(1)
    return (rewards[:, None] - beta * following) * mask


def with_masked_fill(rewards, logprobs, ref_logprobs, mask, beta):
    ratio = (logprobs.detach() - ref_logprobs).masked_fill(~mask, 0)
    before = ratio.cumsum(1) - ratio
    return (rewards[:, None] - beta * (ratio.sum(1, keepdim=True) - before)) * mask


def by_words(rewards, logprobs, ref_logprobs, mask, beta):
    rows, logprobs = [], logprobs.detach()
    for i in range(len(rewards)):
        row = [0.0] * mask.shape[1]
        left = float(rewards[i])
        for t in reversed(range(int(mask[i].sum()))):
            left -= beta * (float(logprobs[i, t]) - float(ref_logprobs[i, t]))
            row[t] = left
        rows.append(row)
    return rows


def pieces_of(rewards, logprobs, ref_logprobs, mask):
    ratio = torch.where(mask, logprobs - ref_logprobs, 0.0).detach()
    last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return rewards[:, None] * mask, ratio, ratio.flip(1).cumsum(1).flip(1), last


def wrong_words(formula):
    def answer(rewards, logprobs, ref_logprobs, mask, beta):
        parts = pieces_of(rewards, logprobs, ref_logprobs, mask)
        return formula(*parts, beta) * mask

    return answer


def with_gradient(rewards, logprobs, ref_logprobs, mask, beta):
    ratio = torch.where(mask, logprobs - ref_logprobs, 0.0)
    following = ratio.flip(1).cumsum(1).flip(1)
    return (rewards[:, None] - beta * following) * mask


def writes_ref(rewards, logprobs, ref_logprobs, mask, beta):
    ref_logprobs[~mask] = 0.0
    return word_advantages(rewards, logprobs, ref_logprobs, mask, beta)


def times_mask(rewards, logprobs, ref_logprobs, mask, beta):
    ratio = (logprobs.detach() - ref_logprobs) * mask
    return (rewards[:, None] - beta * ratio.flip(1).cumsum(1).flip(1)) * mask


def masks_ref_alone(rewards, logprobs, ref_logprobs, mask, beta):
    ratio = logprobs.detach() - ref_logprobs.masked_fill(~mask, 0.0)
    return (rewards[:, None] - beta * ratio.flip(1).cumsum(1).flip(1)).masked_fill(~mask, 0.0)


def less_the_mean(rewards, logprobs, ref_logprobs, mask, beta):
    """Every word pays for the whole text, less the exact mean: little noise, wrong structure."""
    ratio = torch.where(mask, logprobs - ref_logprobs, 0.0).detach()
    goal = rewards - beta * ratio.sum(1)
    chance = torch.where(mask, logprobs, 0.0).detach().sum(1).exp()
    return (goal - chance @ goal)[:, None] * mask


def leaks(rewards, logprobs, ref_logprobs, mask, beta):
    ratio = (logprobs - ref_logprobs).detach()
    return (rewards[:, None] - beta * ratio.flip(1).cumsum(1).flip(1)) * mask


WORDS = [
    (wrong_words(lambda paid, ratio, rest, last, b: paid), "KL term is missing"),
    (wrong_words(lambda paid, ratio, rest, last, b: paid + b * rest), "sign of the KL"),
    (wrong_words(lambda paid, ratio, rest, last, b: paid - b * ratio), "itself alone"),
    (wrong_words(lambda paid, ratio, rest, last, b: paid * last - b * rest), "last word only"),
    (wrong_words(lambda paid, ratio, rest, last, b: paid * last - b * ratio), "sum what follows"),
    (
        wrong_words(lambda paid, ratio, rest, last, b: paid - b * ratio.cumsum(1)),
        "from the front",
    ),
    (wrong_words(lambda paid, ratio, rest, last, b: paid - b * (rest - ratio)), "own word"),
    (wrong_words(lambda paid, ratio, rest, last, b: paid - rest), "β is missing"),
    (wrong_words(lambda paid, ratio, rest, last, b: -b * rest), "R is missing"),
    (
        wrong_words(
            lambda paid, ratio, rest, last, b: (
                paid - b * ratio.sum(1, keepdim=True) / (ratio != 0).sum(1, keepdim=True)
            )
        ),
        "divides by the length",
    ),
    (
        wrong_words(lambda paid, ratio, rest, last, b: paid - b * ratio.sum(1, keepdim=True)),
        "pays for an earlier",
    ),
    (
        wrong_words(
            lambda paid, ratio, rest, last, b: (
                paid - b * rest - 0.001 * b * (ratio.sum(1, keepdim=True) - rest)
            )
        ),
        "pays for an earlier",
    ),
    (less_the_mean, "pays for an earlier"),
    (wrong_words(lambda paid, ratio, rest, last, b: paid - b * (rest + 1)), "is a baseline"),
    (wrong_words(lambda paid, ratio, rest, last, b: paid - b * rest - 0.2), "is a baseline"),
    (times_mask, "got into it"),
    (masks_ref_alone, "got into it"),
    (wrong_words(lambda paid, ratio, rest, last, b: 2 * (paid - b * rest)), "none of the usual"),
    (leaks, "got into it"),
    (with_gradient, "detach"),
    (writes_ref, "wrote into its arguments"),
    (lambda *given: word_advantages(*given) + (~given[3]), "after the end"),
    (lambda *given: word_advantages(*given).sum(1), "should have shape"),
]

# ------------------------------------------------------------- 7.8, go on as if nothing happened


def keep(loop):
    state = loop.state
    return copy.deepcopy(
        {
            "weights": loop.lm.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "chance": state.chance,
            "memory": state.memory,
            "step": state.step,
        }
    )


def go_on(loop, kept_parts, without=()):
    kept_parts = copy.deepcopy(kept_parts)
    if "weights" not in without:
        loop.lm.model.load_state_dict(kept_parts["weights"])
    if "optimizer" not in without:
        loop.state.optimizer.load_state_dict(kept_parts["optimizer"])
    for name in ("chance", "memory", "step"):
        if name not in without:
            setattr(loop.state, name, kept_parts[name])


def keep_on_disk(loop):
    folder = Path(tempfile.mkdtemp(prefix="exercise-"))
    checkpoints.save(loop.state, loop.lm, folder, loop.config)
    return folder


def go_on_from_disk(loop, folder):
    checkpoints.resume(loop.state, loop.lm.model, folder, loop.config)


def keep_references(loop):
    state = loop.state
    return {
        "weights": loop.lm.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "chance": state.chance,
        "memory": state.memory,
        "step": state.step,
    }


def go_on_sharing(loop, kept_parts):
    loop.lm.model.load_state_dict(kept_parts["weights"])
    loop.state.optimizer.load_state_dict(kept_parts["optimizer"])
    for name in ("chance", "memory", "step"):
        setattr(loop.state, name, kept_parts[name])


def whole_state(loop, kept_parts):
    loop.lm.model.load_state_dict(kept_parts["weights"])
    loop.state = copy.deepcopy(kept_parts["state"])


def model_exchanged(loop, kept_parts):
    go_on(loop, kept_parts)
    object.__setattr__(loop.lm, "model", copy.deepcopy(loop.lm.model))


def from_the_seed(loop, kept_parts):
    go_on(loop, kept_parts)
    loop.state.chance = torch.Generator().manual_seed(loop.config.seed).get_state()


def without(name):
    return keep, lambda loop, kept_parts: go_on(loop, kept_parts, without=(name,))


RESUMED = [
    (without("weights"), "weights are not those"),
    (without("optimizer"), "averages m and v"),
    (without("chance"), "generator starts anew"),
    ((keep, from_the_seed), "generator starts anew"),
    (without("memory"), "running mean of the rewards"),
    (without("step"), "number of steps done"),
    ((keep_references, go_on), "went on with the old run"),
    ((keep, go_on_sharing), "second run from the same copy"),
    (
        (
            lambda loop: copy.deepcopy(
                {"weights": loop.lm.model.state_dict(), "state": loop.state}
            ),
            whole_state,
        ),
        "optimizer holds the weights of the old",
    ),
    ((keep, model_exchanged), "was exchanged"),
]


WRONG = [
    *((checks.exercise_1, ONE_BATCH | {n: value}, message) for n, value, message in NUMBERS),
    *((checks.exercise_2, answer, message) for answer, message in CREDITS),
    *((checks.exercise_3, OPTIMIZED | {n: value}, message) for n, value, message in MOVES),
    *(
        (checks.exercise_4, (COLUMNS, CAUSES | {run: cause}), message)
        for run, cause, message in SWAPS
    ),
    *(
        (checks.exercise_4, (COLUMNS | {cause: column}, CAUSES), message)
        for cause, column, message in SHOWN
    ),
    *((checks.exercise_5, (answer, LEAST), message) for answer, message in COMPARED),
    *(
        (checks.exercise_5, (compare_steps, LEAST | {n: p}), message)
        for n, p, message in LEAST_WRONG
    ),
    *((checks.exercise_6, answer, message) for answer, message in BROKEN),
    *((checks.exercise_7, answer, message) for answer, message in WORDS),
    *((checks.exercise_8, answer, message) for answer, message in RESUMED),
]

RIGHT = [
    (checks.exercise_1, ONE_BATCH),
    (checks.exercise_1, {name: torch.tensor(value) for name, value in ONE_BATCH.items()}),
    (checks.exercise_2, credit),
    (checks.exercise_2, as_one_sum),
    (checks.exercise_2, by_autograd),
    (checks.exercise_2, row_by_row),
    (checks.exercise_3, OPTIMIZED),
    (checks.exercise_3, OPTIMIZED | {"idle_move": 0.67, "self_mean_gradient": 0.875}),
    (checks.exercise_4, (COLUMNS, CAUSES)),
    (checks.exercise_4, (COLUMNS | {"all alike": "grad_norm"}, dict(reversed(CAUSES.items())))),
    (checks.exercise_5, (compare_steps, LEAST)),
    (checks.exercise_5, (by_ranks, {"five": 0.004, "three": torch.tensor(0.05)})),
    (checks.exercise_6, GAMED),
    (checks.exercise_6, GAMED | {"beta": round(GAMED["beta"], 3)}),
    (checks.exercise_6, {"text": SLEEK, "beta": torch.tensor(level_beta(SLEEK))}),
    (checks.exercise_7, word_advantages),
    (checks.exercise_7, by_words),
    (checks.exercise_7, with_masked_fill),
    (checks.exercise_7, lambda r, p, q, m, b: word_advantages(r.float(), p, q.float(), m, b)),
    (checks.exercise_8, (keep, go_on)),
    (checks.exercise_8, (keep_on_disk, go_on_from_disk)),
]

# A stub is a function that returns nothing, unless it says so here: nothing → stub.
STUBS = {
    checks.exercise_1: lambda nothing: {name: nothing for name in ONE_BATCH},
    checks.exercise_3: lambda nothing: {name: nothing for name in OPTIMIZED},
    checks.exercise_4: lambda nothing: (
        dict.fromkeys(COLUMNS, nothing),
        dict.fromkeys(CAUSES, nothing),
    ),
    checks.exercise_5: lambda nothing: (lambda a, b: nothing, dict.fromkeys(LEAST, nothing)),
    checks.exercise_6: lambda nothing: {"text": nothing, "beta": nothing},
    checks.exercise_8: lambda nothing: (lambda loop: nothing, lambda loop, kept: nothing),
}
