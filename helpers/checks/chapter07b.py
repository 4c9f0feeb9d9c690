"""Checkers of chapter 07, REINFORCE on a language model: whole runs.

Those of one step are in `chapter07`.
"""

import copy
import math
from collections.abc import Callable, Mapping
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from helpers import (
    advantages,
    baselines,
    checks,
    estimators,
    exact,
    models,
    pretraining,
    reference,
    rewards,
    tabular,
    train,
    worlds,
)

WORLD = worlds.WORD_WORLD
SHORT = worlds.TokenWorld(WORLD.words, ("praise",), 3, worlds.adjective_reward)
HONEST = "was good . what a treat ."  # the review of exercise 7.6


@cache
def _reviews() -> models.LanguageModel:
    return models.load(models.REVIEWS_MODEL)


def _arrivals(curves: list[list[float]], threshold: float, window: int, mistake: str) -> Any:
    """Median number of steps, with one mistake put in; no mistake, no mistake."""
    steps = []
    for curve in curves:
        sums = [0.0, *accumulate(curve)]
        first = 1 if mistake == "short windows" else window
        means = {
            t: (sums[t] - sums[max(0, t - window)]) / min(t, window)
            for t in range(first, len(curve) + 1)
        }
        if mistake == "no mean":
            means = dict(enumerate(curve, 1))
        above = [t for t, mean in means.items()
                 if (mean > threshold if mistake == "strict" else mean >= threshold)]  # fmt: skip
        late = float(len(curve)) if mistake == "never is last" else math.inf
        if mistake == "stays above":
            below = [t for t in means if t not in above]
            above = [t for t in above if t > max(below, default=0)]
        steps.append(min(above) - (mistake == "index") - (mistake == "window start") * (window - 1)
                     if above else late)  # fmt: skip
    if mistake == "never left out":
        steps = [s for s in steps if s < math.inf] or [math.inf]
    if mistake == "mean":
        middle = sum(steps) / len(steps)
    elif mistake == "best seed":
        middle = min(steps)
    else:
        middle = sorted(steps)[len(steps) // 2]
    return middle if middle < math.inf else None


def exercise_5(median_steps: Callable[[list[list[float]], float, int], Any]) -> None:
    """`median_steps(curves, threshold, window)`, with seeds that never arrive.

    Args:
        median_steps: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    mistakes = {
        "no mean": "that is when a single reward first crossed: luck. Average over the window.",
        "short windows": "before `window` steps are done there is no mean over a window.",
        "never left out": "the seeds that never arrive are left out: the worse a method, the "
        "fewer of its runs count.",
        "never is last": "a run that never arrives is counted as if it had arrived at its end.",
        "mean": "that is the mean over the seeds; one slow seed moves it. Take the median.",
        "best seed": "that is the best seed, not the median.",
        "index": "one too few: a run that crosses in its first step has taken 1 step.",
        "window start": "steps are counted to the end of the window, not to its beginning.",
        "strict": "a mean that equals the threshold has reached it.",
        "stays above": "the first time counts, whether or not it falls back.",
    }
    # By hand, window 2, threshold 3: the means from step 2 on are (1, 2.5, 4), (3, 1, −0.5) and
    # (0, 0, 4.5), which arrive in steps 4, 2 and 4.
    hand = [[0.0, 2.0, 3.0, 5.0], [3.0, 3.0, -1.0, 0.0], [0.0, 0.0, 0.0, 9.0]]
    lost = [[0.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [4.0, 4.0, 4.0, 4.0]]  # one arrives
    probes: list[tuple[list[list[float]], float, int, int | None]] = [
        (hand, 3.0, 2, 4), (lost, 3.0, 2, None), (lost[1:2], 1.0, 3, 3)
    ]  # fmt: skip
    for window, starts in ((4, (3, 10, 0, 17, 2)), (2, (0, 5, 0, 1, 0)), (1, (8, 1, 0, 6, 4))):
        # From its start a curve is at the threshold, `window` steps long: there it arrives.
        curves = []
        for start in starts:
            peaks = window > 1  # single ones are luck
            curve = [4.0 if peaks and t % 5 == 2 else -9.0 for t in range(24)]
            if start:
                curve[start - 1 : start + window] = [*[4.0] * window, -9.0]
            curves.append(curve)
        ends = sorted(start + window - 1 if start else 99 for start in starts)
        probes.append((curves, 4.0, window, ends[2] if ends[2] < 99 else None))
    answers = []
    for curves, threshold, window, _ in probes:
        given = copy.deepcopy(curves)
        answers.append(median_steps(given, threshold, window))
        assert given == curves, "the function wrote into its arguments; make new lists."
    if all(answer is None or answer is ... for answer in answers):
        checks.is_stub("7.5", None)
        return
    found = [None if a is None else float(checks.as_numbers(a, shape=(), what="steps"))
             for a in answers]  # fmt: skip
    for name, message in mistakes.items():
        assert found != [_arrivals(*probe[:3], name) for probe in probes], message
    assert math.inf not in found, "if the seed in the middle never arrives, return None."
    for got, (curves, threshold, window, expected) in zip(found, probes, strict=True):
        assert (got is None) <= (expected is None), (
            "None where most seeds arrive: the median exists if more than half of them do."
        )
        assert got == expected, (
            f"{got} for {len(curves)} runs of {len(curves[0])} steps with threshold {threshold} "
            f"and window {window}, and none of the usual mistakes gives that."
        )
    checks.passed("7.5", "by hand and on made curves, with seeds that never arrive.")


def exercise_6(gamed: Mapping[str, Any]) -> None:
    """A text that a small KL penalty does not stop, and the β that does.

    Args:
        gamed: `text`, a completion of “the cast”, and `beta`.
    Raises:
        AssertionError: with a diagnosis.
    """
    assert set(gamed) == {"text", "beta"}, "the names must stay 'text' and 'beta'."
    text, beta = gamed["text"], gamed["beta"]
    if all(value is None or value is ... for value in (text, beta)):
        checks.is_stub("7.6", None)
        return
    assert isinstance(text, str) and text.split(), "`text` should be a string of words."
    text = " ".join(text.split())
    words, prompt = text.split(), "the cast"
    assert len(words) <= 31, f"{len(words)} words and EOS are more than 32 tokens."
    unknown = sorted(set(words) - set(worlds.REVIEWS.words))
    assert not unknown, f"the model cannot write {unknown[:3]}: words of the grammar, please."
    assert not rewards.grammar_reward([prompt], [text])[0], (
        "that is a review: the grammar can derive it. The exercise wants what is none."
    )
    drawn = worlds.REVIEWS.sample(200, torch.Generator().manual_seed(6), prefix=prompt)
    reviews = [each.strip() for each in drawn if len(each.split()) <= 31]
    reviews += [" ".join(["was good", *["and the film was good"] * n, "."]) for n in range(6)]
    texts = [text, HONEST, *reviews]
    with torch.no_grad():
        full = [f"{prompt} {each}" for each in texts]
        surprise = -pretraining.score(_reviews(), full, prompt_words=2).double()
    paid = torch.tensor(worlds.sentiment_reward([prompt] * len(texts), texts)).double()
    goal = paid - 0.05 * surprise  # log π = 0: the policy writes nothing else
    best = goal[1:].max()
    assert goal[0] > best, (
        f"at β = 0.05 your text has J = {goal[0]:.2f} ({paid[0]:.0f} reward, {surprise[0]:.0f} "
        f"nats), and some review has {best:.2f}. What does one more word cost, and what does it "
        "earn?"
    )
    if beta is None or beta is ...:
        print("Exercise 7.6: the text is right; `beta` is still open.")
        return
    extra = (surprise - surprise[1])[0]
    wrong = {
        "that brings J of your text to 0; it has to fall to that of the honest review.": paid[0]
        / surprise[0],
        "that compares rewards alone with your text's whole surprise; the review costs too.":
        (paid[0] - paid[1]) / surprise[0],
        "that is nats a reward unit; β is reward units a nat.": extra / (paid[0] - paid[1]),
        "this takes the review's reward and forgets its own; subtract both.": paid[0] / extra,
    }  # fmt: skip
    number = checks.as_numbers(beta, shape=(), what="beta")
    expected = float((paid[0] - paid[1]) / extra)
    checks.diagnose(number, expected, wrong, tolerance=5e-4, reveal=False)
    checks.passed("7.6", f"above all reviews tried at β = 0.05, level at β = {expected:.3f}.")


def exercise_7(word_advantages: Callable[..., Any]) -> None:
    """`word_advantages(rewards, logprobs, ref_logprobs, mask, beta)`: ∇(J − β KL), word by word.

    Args:
        word_advantages: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for world, prompt, beta in (
        (WORLD, "pan", 0.3),
        (SHORT, "praise", 1.5),
        (WORLD, "praise", 0.0),
    ):
        generator = torch.Generator().manual_seed(8)
        table, other = (
            tabular.TablePolicy(world, std=std, generator=generator) for std in (0.8, 0.5)
        )
        problem = baselines.table_problem(table, prompt)
        mask = problem.moves >= 0
        scores, ref_scores = (
            exact.read_moves(exact.state_logprobs(policy, world, prompt), problem.moves)
            for policy in (table, other)
        )
        ref_scores = ref_scores.detach().masked_fill(~mask, 7.0)  # anything, after the end
        given = (problem.rewards.clone(), scores.clone(), ref_scores.clone(), mask.clone())
        got = word_advantages(*given, beta)
        if checks.is_stub("7.7", got):
            return
        checks.unchanged(given, (problem.rewards, scores, ref_scores, mask))
        judged = checks.as_numbers(got, shape=tuple(mask.shape), what="the advantages")
        assert not (isinstance(got, Tensor) and got.requires_grad), (
            "an advantage is a number: detach it, or the loss gets a second gradient through it."
        )
        assert bool((judged[~mask].abs() < 1e-6).all()), "after the end, return 0."
        goal = exact.objective(table, world, prompt) - beta * exact.kl(table, other, world, prompt)
        [slope] = torch.autograd.grad(goal, [table.logits])
        truth = slope[world.prompts.index(prompt)].reshape(-1)
        _by_its_gradient(judged, problem, truth, (scores - ref_scores).detach() * mask, mask, beta)
    checks.passed("7.7", "three worlds: the exact ∇(J − β KL), with the noise of reward-to-go.")


def _by_its_gradient(
    judged: Tensor, problem: estimators.GradientProblem, truth: Tensor, ratio: Tensor,
    mask: Tensor, beta: float,
) -> None:  # fmt: skip
    """Mean first, then the noise; each mistake by its numbers."""
    paid = problem.rewards.unsqueeze(1) * mask
    whole = ratio.sum(1, keepdim=True) * mask
    rest = ratio.flip(1).cumsum(1).flip(1) * mask
    last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    usual = {
        "the KL term is missing: that is R alone.": paid,
        "the sign of the KL term is turned: this pays for distance.": paid + beta * rest,
        "each word pays for itself alone: what it leads to is missing.": paid - beta * ratio,
        "R is paid to the last word only; all words before it led to it.": paid * last
        - beta * rest,
        "that is the reward of each word, r_t; sum what follows.": paid * last - beta * ratio,
        "that sums from the front: a word pays for those before it, not after.": paid
        - beta * ratio.cumsum(1) * mask,
        "the own word is left out; its log-ratio is known only once it is written.": paid
        - beta * (rest - ratio),
        "β is missing: a nat does not cost one reward unit.": paid - rest,
        "R is missing: that is the penalty alone.": -beta * rest,
        "that divides by the length: long texts would stray cheaply.": paid
        - beta * whole / mask.sum(1, keepdim=True),
    }
    mean = problem.probability @ problem.combine(judged)
    size = truth.norm()
    if float((mean - truth).norm()) > 1e-4 * size:
        for message, wrong in usual.items():
            assert not torch.allclose(judged, wrong, atol=1e-5), message
        raise AssertionError(
            f"the mean gradient is off ∇(J − β KL) by {(mean - truth).norm() / size:.0%} of its "
            "length, and none of the usual mistakes gives that."
        )
    wanted = advantages.rewards_to_go(
        reference.token_rewards(problem.rewards, beta * ratio, mask), mask
    )
    best, found = (
        estimators.of_terms(problem, problem.combine(each)).variance for each in (wanted, judged)
    )
    assert found < best * (1 + 1e-4), (
        f"right on average, with {found / best:.2f} times the variance: a word pays for the "
        "log-ratios of the words before it, which it cannot change."
    )


def _run_of(seed: int) -> train.Loop:
    """A loop whose baseline has a memory, on a word world's transformer."""
    lm = models.word_language_model(WORLD, models.word_transformer(WORLD, seed=seed))
    config = train.Config(
        prompts_per_step=2, group_size=8, max_new_tokens=4, lr=1e-2, seed=5,
        baseline="running mean",
    )  # fmt: skip
    return train.Loop(lm, list(WORLD.prompts), WORLD.reward, config)


def _parts(loop: train.Loop) -> dict[str, Tensor]:
    """Copies of all that the next step depends on, each flattened."""
    weights, state = list(loop.lm.model.parameters()), loop.state
    mine = [state.optimizer.state[w] for w in weights if w in state.optimizer.state]
    moments = [torch.as_tensor(entry[k]).double().flatten() for entry in mine
               for k in ("step", "exp_avg", "exp_avg_sq")]  # fmt: skip
    memory = [
        torch.as_tensor(value).double().flatten() for _, value in sorted(state.memory.items())
    ]
    return {
        "the weights": torch.cat([w.detach().flatten() for w in weights]),
        "the optimizer's memory": torch.cat(moments) if moments else torch.zeros(0),
        "the state of the generator": state.chance.double(),
        "the baseline's memory": torch.cat(memory) if memory else torch.zeros(0),
        "the number of steps": torch.tensor([float(state.step)]),
    }


def exercise_8(
    resumable: tuple[Callable[[train.Loop], Any], Callable[[train.Loop, Any], Any]],
) -> None:
    """`(keep, go_on)`: a run that goes on with the same numbers.

    Args:
        resumable: the reader's `keep(loop)`, which returns everything that the next steps depend
            on, and `go_on(loop, kept)`, which puts it into a fresh loop.
    Raises:
        AssertionError: naming what was lost.
    """
    keep, go_on = resumable
    loop = _run_of(seed=3)
    for _ in range(3):
        loop.step()
    kept, wanted = keep(loop), _parts(loop)
    if checks.is_stub("7.8", kept):
        return
    records = [loop.step() for _ in range(3)]
    end = _parts(loop)
    for attempt in ("first", "second"):
        other = _run_of(seed=4)  # other weights, so that they must come from what was kept
        own = {id(p) for p in other.lm.model.parameters()}
        go_on(other, kept)
        assert {id(p) for p in other.lm.model.parameters()} == own, (
            "the fresh loop's model was exchanged; fill its weights instead (load_state_dict)."
        )
        held = {id(p) for group in other.state.optimizer.param_groups for p in group["params"]}
        assert held == own, (
            "the optimizer holds the weights of the old loop and will move those: load its "
            "state_dict into the fresh one."
        )
        for name, found in _parts(other).items():
            _is_kept(name, found, wanted[name], end[name], attempt)
        for record in records:
            again = other.step()
            for column in ("reward", "entropy", "length", "grad_norm"):
                a, b = (each.numbers()[column] for each in (record, again))
                assert abs(a - b) < 1e-9, (
                    f"step {record.step}: `{column}` is {b:.6f} and was {a:.6f} in the run that "
                    "nobody interrupted, although all parts agreed before."
                )
    assert all(
        torch.equal(a, b) for a, b in zip(_parts(loop).values(), end.values(), strict=True)
    ), "the run that was kept has moved: something of it is still shared with the new one."
    checks.passed("7.8", "resumed twice from one copy: three more steps, the same numbers.")


def _is_kept(name: str, found: Tensor, wanted: Tensor, end: Tensor, attempt: str) -> None:
    if found.shape == wanted.shape and torch.equal(found, wanted):
        return
    assert attempt == "first", (
        f"the second run from the same copy starts wrong: {name} went on with the first one. Copy "
        "when you put it back, too."
    )
    assert not (found.shape == end.shape and torch.equal(found, end)), (
        f"{name} went on with the old run: what was kept is no copy of it, but the thing itself."
    )
    raise AssertionError(
        {
            "the weights": "the weights are not those of the run that was kept.",
            "the optimizer's memory": "Adam's averages m and v are lost, and how often it has "
            "stepped: the first move after that has another length and direction.",
            "the state of the generator": "the generator starts anew: the run would draw the "
            "prompts and tokens of its first steps again. Keep its state, not its seed.",
            "the baseline's memory": "the running mean of the rewards is lost: the next batch "
            "would be judged without a baseline.",
            "the number of steps": "the number of steps done is lost: the run would go on too "
            "long, and its records and checkpoints would have the wrong number.",
        }[name]
    )
