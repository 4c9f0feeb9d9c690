"""Checkers of chapter 03, generation as a Markov decision process."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from course.exact import oracle, tables, values
from course.exact.oracle import Policy
from course.exact.values import Levels
from course.kit import checker
from course.worlds import tiny_models, word_world
from course.worlds.word_world import TokenWorld
from helpers import models

WORLD = word_world.WORD_WORLD
SHORT = TokenWorld(WORLD.words, ("praise",), 3, word_world.adjective_reward)
State = tuple[str, ...]


def exercise_1(returns: Callable[[list[float], float], Any]) -> None:
    """`returns(rewards, gamma)`: G_t of every word.

    Args:
        returns: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    # By hand, γ = 1/2: G_2 = 3, G_1 = −2 + 3/2 = −1/2, G_0 = 1 − 1/4 = 3/4.
    rewards, by_hand = [1.0, -2.0, 3.0], [0.75, -0.5, 3.0]
    given = list(rewards)
    got = returns(given, 0.5)
    if checker.is_stub("3.1", got):
        return
    assert given == rewards, "the function wrote into its argument; make a new list."
    mistakes = {
        "nothing is discounted here: a reward one word later counts γ times.": [2.0, 1.0, 3.0],
        "the order is wrong: the first entry belongs to the first word.": by_hand[::-1],
        "these are single discounted rewards: add up what is still to come.": [1.0, -1.0, 0.75],
        "this adds up what has been paid; G_t counts what is still to come.": [1.0, -1.5, 2.25],
        "the discount starts too early: the word's own reward counts in full.": [0.375, -0.25, 1.5],
        "the own reward is missing: G_t starts with r_t.": [-0.25, 1.5, 0.0],
        "the discount counts from the first word, not from word t.": [0.75, -0.25, 0.75],
    }
    checker.diagnose(checker.as_numbers(got, shape=(3,), what="the returns"), by_hand, mistakes)
    for case, gamma, answer in (
        ([0.0, 0.0, 0.0, 2.0], 1.0, [2.0, 2.0, 2.0, 2.0]),
        ([0.0, 0.0, 2.0], 0.1, [0.02, 0.2, 2.0]),
        ([5.0, 7.0], 0.0, [5.0, 7.0]),
        ([-1.0], 0.9, [-1.0]),
    ):
        part = checker.as_numbers(
            returns(case, gamma), shape=(len(case),), what=f"{case}, {gamma=}"
        )
        checker.diagnose(part, answer, {})
    checker.passed("3.1", "five lists of rewards, four discounts.")


def _cases() -> list[tuple[Levels, Levels, float, Tensor]]:
    """(log-probabilities, rewards, γ, V of every state) of several policies and worlds."""
    peaked = tables.TablePolicy(WORLD, std=1.0, generator=torch.Generator().manual_seed(4))
    transformer = models.as_policy(tiny_models.word_transformer(WORLD, seed=7))
    found = []
    for policy, world, prompt, gamma in (
        (peaked, WORLD, "praise", 1.0),
        (peaked, WORLD, "pan", 0.7),
        (transformer, WORLD, "praise", 0.9),
        (tables.TablePolicy(SHORT), SHORT, "praise", 0.5),
    ):
        rewards = values.transition_rewards(world, prompt)
        rewards = [level + 0.1 * torch.arange(5) for level in rewards]  # each word is paid
        with torch.no_grad():
            logprobs = oracle.state_logprobs(policy, world, prompt)
            solved = values.policy_values(policy, world, prompt, gamma=gamma, rewards=rewards)
        found.append((logprobs, rewards, gamma, torch.cat(solved.value)))
    return found


def _wrong_sweep(logprobs: Levels, rewards: Levels, gamma: float, mistake: str) -> Tensor:
    """V of every state with one mistake put in."""
    found: Levels = []
    for logp, reward in zip(reversed(logprobs), reversed(rewards), strict=True):
        probs, q_value = logp.exp(), reward.clone()
        if found:
            onward = found[0].view(-1, 4) * (1.0 if mistake == "no γ" else gamma)
            q_value[:, :4] = onward if mistake == "no r" else q_value[:, :4] + onward
            if mistake == "past the end":
                q_value[:, 4] = q_value[:, 4] + gamma * found[0].view(-1, 4).mean(-1)
            if mistake == "five":
                q_value = reward + onward.mean(-1, keepdim=True)
            if mistake == "order":
                q_value[:, :4] = reward[:, :4] + onward.reshape(4, -1).T
            if mistake == "columns 1:":
                q_value = torch.cat([reward[:, :1], reward[:, 1:] + onward], dim=1)
            if mistake == "γ r going on":
                q_value[:, :4] = gamma * reward[:, :4] + onward
            if mistake == "γ r but last":
                q_value = q_value - (1 - gamma) * reward
        if mistake == "γ r":
            q_value = q_value - (1 - gamma) * reward
        best, mean = q_value.max(-1).values, q_value.mean(-1)
        usual = (logp * q_value).sum(-1) if mistake == "log" else (probs * q_value).sum(-1)
        found.insert(0, {"max": best, "mean": mean}.get(mistake, usual))
    return torch.cat(found)


def exercise_2(sweep: Callable[[Levels, Levels, float], Any]) -> None:
    """`sweep(logprobs, rewards, gamma)`: V by backward induction, level by level.

    Args:
        sweep: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    mistakes = {
        "no γ": "the discount is missing: what comes after counts γ times.",
        "no r": "the reward of the words that go on is missing: Q is r + γ V(s′) for them too.",
        "past the end": "“.” ends the text: there is no value to add behind the fifth word.",
        "γ r": "γ multiplies the reward of the move itself too; it belongs to what comes after.",
        "γ r going on": "γ multiplies the reward of the words that go on; it belongs to V(s′).",
        "γ r but last": "γ multiplies the reward on all levels but the last; it belongs to V(s′).",
        "columns 1:": "columns 1: is off by one: “.” is the last word; the first four go on.",
        "order": "the children are in the wrong order: row i leads to rows 4i … 4i+3, in a row.",
        "five": "each word leads to a state of its own, and “.” to none: four values, one a word.",
        "max": "that is V*, the best word's value: average over the policy's words instead.",
        "mean": "the words count equally here: weight them by π(a | s).",
        "log": "the weights are log-probabilities: take exp first.",
    }
    for logprobs, rewards, gamma, expected in _cases():
        given = tuple([level.clone() for level in levels] for levels in (logprobs, rewards))
        got = sweep(given[0], given[1], gamma)
        if checker.is_stub("3.2", got):
            return
        kept = zip([*given[0], *given[1]], [*logprobs, *rewards], strict=True)
        assert all(torch.equal(a, b) for a, b in kept), (
            "the function wrote into its arguments; work on a copy (`reward.clone()`)."
        )
        assert isinstance(got, Sequence) and len(got) == len(rewards), (
            f"return a list of {len(rewards)} tensors, one a level."
        )
        numbers = [
            checker.as_numbers(level, shape=(4**k,), what=f"level {k}")
            for k, level in enumerate(got)
        ]
        checker.diagnose(
            torch.cat(numbers),
            expected,
            {
                message: _wrong_sweep(logprobs, rewards, gamma, name)
                for name, message in mistakes.items()
            },
            tolerance=1e-5,
        )
    checker.passed("3.2", "three policies, two lengths, four discounts, rewards on every word.")


def exercise_3(numbers: Mapping[str, Any]) -> None:
    """Four numbers, by thinking.

    Args:
        numbers: `gamma_of_the_tie`, `best_value`, `uniform_value`, `advantage_of_stopping`.
    Raises:
        AssertionError: with a diagnosis.
    """
    texts = oracle.enumerate_completions(WORLD).texts
    rewards = dict(zip(texts, oracle.rewards(WORLD, "praise").tolist(), strict=True))
    with torch.no_grad():
        uniform = values.policy_values(tables.TablePolicy(WORLD), WORLD, "praise")
    row = oracle.rank(WORLD.encode("very very good"), 4)
    stop = float(uniform.advantage[3][row, 4])
    best = float(values.optimal_values(WORLD, "praise", gamma=0.8).start)
    expected = {
        "gamma_of_the_tie": (rewards["good ."] / rewards["not very bad ."]) ** 0.5,
        "best_value": best,
        "uniform_value": float(uniform.value[3][row]),
        "advantage_of_stopping": stop,
    }
    mistakes: dict[str, dict[str, Tensor | float]] = {
        "gamma_of_the_tie": {
            "at γ = 1 nothing is discounted: 2 beats 1.": 1.0,
            "compare γ · 1 with γ³ · 2: what is left when one γ cancels?": 0.5,
            "2 is no discount: γ lies between 0 and 1.": 2**0.5,
        },
        "best_value": {
            "2 is the reward; it comes two moves after the first and counts γ².": 2.0,
            "one γ is missing: three words are two moves after the first.": 1.6,
            "one γ too many: the reward of a text of n words counts γ^(n−1).": 2 * 0.8**3,
            "“good .” is worth 0.8; is there nothing better at γ = 0.8?": 0.8,
        },
        "uniform_value": {
            "the sum of doubled doubles is clipped at 2.": (4 - 4) / 5,
            "a sum is clipped at 2, and a text that is cut loses 1.": 4 / 5,
            "the four words that go on are cut at the limit, and earn −1 each.": 2 / 5,
            "that is the value of stopping for sure: the policy does so one time in five.": 2.0,
            "that is a sum: weight each word by 1/5.": -2.0,
        },
        "advantage_of_stopping": {
            "that is Q; subtract V.": 2.0,
            "the other way round: A is Q − V.": -stop,
            "V is negative: subtracting it adds.": 2 + (2 - 4) / 5,
        },
    }
    if checker.predicted_numbers("3.3", numbers, expected, mistakes):
        checker.passed("3.3", "all four agree with the sweep.")


def exercise_4(table_gradient: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """`table_gradient(reach, probs, q_value)`: derivatives of V(c) by the logits of one level.

    Args:
        table_gradient: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for prompt, std in (("praise", 0.5), ("pan", 1.5)):
        table = tables.TablePolicy(WORLD, std=std, generator=torch.Generator().manual_seed(2))
        truth = oracle.objective_gradient(table, [table.logits], WORLD, prompt)
        rows = truth.view(table.logits.shape)[WORLD.prompts.index(prompt)]  # (85, 5)
        with torch.no_grad():
            found = values.policy_values(table, WORLD, prompt)
            logprobs = oracle.state_logprobs(table, WORLD, prompt)
            reach = values.reach_probabilities(table, WORLD, prompt)
        for k in (3, 2, 1, 0):  # at the start d(s) is 1, which hides mistakes
            d, logp, q_value = reach[k], logprobs[k], found.q_value[k]
            given = (d.clone(), logp.exp(), q_value.clone())
            got = table_gradient(*given)
            if checker.is_stub("3.4", got):
                return
            before = (d, logp.exp(), q_value)
            assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True)), (
                "the function wrote into its arguments; make new tensors."
            )
            first = sum(4**j for j in range(k))
            probs, advantage = logp.exp(), found.advantage[k]
            checker.diagnose(
                checker.as_numbers(got, shape=(4**k, 5), what=f"level {k}"),
                rows[first : first + 4**k],
                {
                    "Q where A should be: the second term of the derivative is missing.": (
                        d[:, None] * probs * q_value
                    ),
                    "d(s) is missing: a state that is hardly reached hardly matters.": (
                        probs * advantage
                    ),
                    "π(a | s) is missing: the expectation over words weights each of them.": (
                        d[:, None] * advantage
                    ),
                    "only the advantage: weight it by how often s is reached and a is chosen.": (
                        advantage
                    ),
                    "the sign is turned: this points downhill.": -d[:, None] * probs * advantage,
                    "V is the plain mean of Q here; weight the words by π(a | s).": (
                        d[:, None] * probs * (q_value - q_value.mean(-1, keepdim=True))
                    ),
                },
            )
    checker.passed("3.4", "equal to autograd on the exact objective, 850 derivatives.")


def exercise_5(tempting_bonus: Callable[[State, str], Any]) -> None:
    """A bonus in [0, 0.75] a word under which every best text is worth 0 or less.

    Args:
        tempting_bonus: the reader's function of the words so far and the next word.
    Raises:
        AssertionError: the bonus is out of range, or a best text is still good.
    """
    probes = [tempting_bonus((), word) for word in WORLD.words]
    if all(probe is None or probe is ... for probe in probes):
        checker.is_stub("3.5", None)
        return
    every = oracle.enumerate_completions(WORLD)
    true_rewards, total = oracle.rewards(WORLD, "praise"), []
    for text in every.texts:
        words, paid = text.split(), 0.0
        for k, word in enumerate(words):
            bonus = checker.as_numbers(
                tempting_bonus(tuple(words[:k]), word), shape=(), what="the bonus"
            )
            assert 0 <= float(bonus) <= 0.75, (
                f"the bonus of {word!r} after {words[:k]} is {float(bonus):g}: it must lie in "
                "[0, 0.75]."
            )
            paid += float(bonus)
        total.append(paid)
    with_bonus = true_rewards + torch.tensor(total, dtype=torch.float64)
    best = with_bonus >= with_bonus.max() - 1e-9
    worst_of_best = int(true_rewards.masked_fill(~best, -9.0).argmax())
    assert true_rewards[worst_of_best] <= 0, (
        f"a best text is {every.texts[worst_of_best]!r}, with {with_bonus.max():.2f} in all, of "
        f"which the true reward is {true_rewards[worst_of_best]:+.0f}: it is still a good text. "
        "The bonus of a bad text must exceed that of each good one by the difference of their "
        "rewards."
    )
    text = every.texts[int(with_bonus.argmax())]
    note = f"a best text is {text!r}, true reward {true_rewards[best].max():+.0f} at most."
    checker.passed("3.5", note)


def exercise_6(summary: Callable[[State], Hashable]) -> None:
    """A Markov summary of the state, under `praise`, with as few values as possible.

    Args:
        summary: the reader's function of ('praise', word, …), unfinished.
    Raises:
        AssertionError: two states are merged that differ, or two are kept apart that do not.
    """
    states = _unfinished_states("praise")
    if all(summary(state) is None or summary(state) is ... for state in states[:6]):
        checker.is_stub("3.6", None)
        return
    value_of: dict[State, Hashable] = {}
    for state in states:
        value_of[state] = summary(state)
        assert not isinstance(value_of[state], Tensor), "return a number or a tuple, not a tensor."
        try:
            hash(value_of[state])
        except TypeError as error:
            raise AssertionError("return something hashable, such as a tuple.") from error
        assert value_of[state] == summary(state), (
            "asked twice about the same state, the function gave two different summaries."
        )
    future = _blocks(states)
    seen: dict[Hashable, State] = {}
    for state, value in value_of.items():
        other = seen.setdefault(value, state)
        assert future[state] == future[other], (
            f"a conflict: {' '.join(state)!r} and {' '.join(other)!r} have the same summary, but "
            "not the same future: some words earn, or lead to, something else."
        )
    block_of: dict[int, State] = {}
    for state in states:
        other = block_of.setdefault(future[state], state)
        assert value_of[state] == value_of[other], (
            f"no conflicts, with {len(seen)} values, but {len(set(future.values()))} are enough: "
            f"{' '.join(state)!r} and {' '.join(other)!r} have the same future, so merge them."
        )
    assert len(seen) == len(block_of), "equal summaries must have equal hashes: return a tuple."
    checker.passed("3.6", f"no conflict, and {len(seen)} values for {len(states)} states.")


def _unfinished_states(prompt: str) -> list[State]:
    every = oracle.enumerate_completions(WORLD).texts
    found = {(prompt, *t.split()[:k]) for t in every for k in range(len(t.split()))}
    return sorted(found, key=lambda state: (len(state), state))


def _blocks(states: Sequence[State]) -> dict[State, int]:
    """The coarsest partition without conflicts, by refining one block until nothing splits.

    Source: Givan, Dean and Greig (2003), "Equivalence Notions and Model Minimization in MDPs".
    """
    block = dict.fromkeys(states, 0)
    while True:
        signatures: dict[State, Hashable] = {}
        for state in states:
            moves = []
            for word in WORLD.words:
                longer = (*state, word)
                text = " ".join(longer[1:])
                after = block.get(longer) if word != "." else None  # None: over
                paid = WORLD.reward([state[0]], [text])[0] if after is None else 0.0
                moves.append((after, paid))
            signatures[state] = (block[state], tuple(moves))
        names = {signature: k for k, signature in enumerate(dict.fromkeys(signatures.values()))}
        refined = {state: names[signature] for state, signature in signatures.items()}
        if len(set(refined.values())) == len(set(block.values())):
            return refined
        block = refined


def _wrong_soft(rewards: Levels, outside: float | None, inside: float) -> Tensor:
    """The sweep with other numbers in place of β; without `outside`, a mean of Q by softmax."""
    value = torch.zeros(0)
    for reward in reversed(rewards):
        q_value = reward.clone()
        if len(value):
            q_value[:, :4] += value.view(-1, 4)
        tempered = q_value / inside
        mean = (tempered.softmax(-1) * q_value).sum(-1)
        value = mean if outside is None else outside * tempered.logsumexp(-1)
    return value[0]


def _wrong_soft_values(
    world: TokenWorld, prompt: str, rewards: Levels, texts: Tensor, beta: float
) -> dict[str, Tensor]:
    """What each usual mistake makes of the start's soft value; `texts`: each text's reward."""
    uniform: Policy = tables.TablePolicy(world)
    return {
        "that is the value without the entropy: max over words.": texts.max(),
        "β is missing in front of logsumexp.": _wrong_soft(rewards, 1.0, beta),
        "β is missing inside logsumexp: divide Q by it.": _wrong_soft(rewards, beta, 1.0),
        "β is missing, in front of logsumexp and inside.": _wrong_soft(rewards, 1.0, 1.0),
        "a mean of Q weighted by softmax(Q / β): the entropy of each choice is missing.": (
            _wrong_soft(rewards, None, beta)
        ),
        "that is only the reward part: the entropy is paid for too.": (
            (texts / beta).softmax(0) @ texts
        ),
        "beta is missing in front of the logarithm.": (texts / beta).logsumexp(0),
        "the division by beta inside is missing.": beta * texts.logsumexp(0),
        "this is the uniform policy's reward: its mean over words.": (
            oracle.objective(uniform, world, prompt).detach()
        ),
    }


def exercise_7(soft_value: Callable[[Levels, float], Any]) -> None:
    """`soft_value(rewards, beta)`: the best value when entropy is paid for too.

    Args:
        soft_value: the reader's function.
    Raises:
        AssertionError: with a diagnosis.
    """
    for world, prompt, beta, shaped in (
        (WORLD, "praise", 0.5, False),
        (WORLD, "pan", 2.0, True),
        (SHORT, "praise", 1.0, True),
        (WORLD, "pan", 0.002, False),
    ):
        rewards = values.transition_rewards(world, prompt)
        if shaped:  # the same sum along every text, since Φ is 0 at the start
            rewards = values.shape_rewards(rewards, values.stopping_rewards(rewards, world))
        given = [level.clone() for level in rewards]
        got = soft_value(given, beta)
        if checker.is_stub("3.7", got):
            return
        assert all(torch.equal(a, b) for a, b in zip(given, rewards, strict=True)), (
            "the function wrote into its argument; work on a copy."
        )
        texts = oracle.rewards(world, prompt)  # a second route: all texts at once
        number = checker.as_numbers(got, shape=(), what="the soft value of the start state")
        assert not bool(number.isnan()), (
            f"got nan at beta = {beta}: a probability underflows and 0 · log 0 is nan, or exp "
            "overflows and inf / inf is. Use torch.logsumexp."
        )
        assert bool(number.isfinite()), (
            f"got {float(number)} at beta = {beta}: exp overflows, or log has a 0. Use "
            "torch.logsumexp."
        )
        checker.diagnose(
            number,
            beta * (texts / beta).logsumexp(0),
            _wrong_soft_values(world, prompt, rewards, texts, beta),
            tolerance=1e-5,
        )
    checker.passed("3.7", "equal to the sum over all texts, for four weights.")
