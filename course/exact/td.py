"""Learning values from texts on the token MDP: Monte Carlo, TD(0), SARSA, Q-learning.

Plain Python on lists, because each method is one line of arithmetic and should look like it.
States are numbered as in `tables.TablePolicy`: the empty prefix is 0, then the one-word
prefixes, and so on. A **record** is a list of texts, a completion a sequence of transitions
(state, word, reward, next state), and the next state is None where the text is over: not −1,
which Python would read as the last row of a table.

S states, A words, K snapshots. Every method runs through texts in order; a step size is
1 / visits^power, where visits counts what happened to the entry, this time included.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from course.exact import values
from course.exact.values import Levels
from course.worlds.word_world import TokenWorld
from helpers import contract

Transition = tuple[int, int, float, int | None]
Record = Sequence[Sequence[Transition]]
Table = list[list[float]]
Bootstrap = Callable[[Sequence[float], int, int], float]  # row of Q at s′, next word, s′


@dataclass(frozen=True)
class TokenTree:
    """Where each word leads and what it pays, under one prompt."""

    transitions: tuple[tuple[Transition, ...], ...]  # S rows of A, S ≥ 1, rows of one length

    @property
    def sizes(self) -> dict[str, int]:
        """S and A, for what is said of other arguments (`helpers.contract`)."""
        return dict(zip("SA", self.shape, strict=True))

    @property
    def shape(self) -> tuple[int, int]:
        """(S, A): (85, 5) in the word world."""
        return len(self.transitions), len(self.transitions[0])


def token_tree(world: TokenWorld, prompt: str, *, rewards: Levels | None = None) -> TokenTree:
    """The token MDP of one prompt as a table of transitions.

    Args:
        world: what to enumerate.
        prompt: one of the world's prompts.
        rewards: T tensors (n^k, A) of r(s, a); None takes the world's, at the end.
    Returns:
        The tree.
    """
    rewards = values.transition_rewards(world, prompt) if rewards is None else rewards
    n, rows, first = world.num_continuing, [], 0
    for k, level in enumerate(rewards):
        after, last = first + len(level), k + 1 == len(rewards)
        for rank, pays in enumerate(level.tolist()):
            leads = [None if last or w >= n else after + n * rank + w for w in range(len(pays))]
            both = zip(pays, leads, strict=True)
            rows.append(tuple((first + rank, w, r, s) for w, (r, s) in enumerate(both)))
        first = after
    return TokenTree(tuple(rows))


def read_texts(tree: TokenTree, texts: Iterable[Sequence[int]]) -> Record:
    """Texts that somebody wrote, as transitions.

    Args:
        tree: where words lead.
        texts: word ids ≥ 0 of each completion, complete, from its first word on.
    Returns:
        One sequence of transitions a text.
    Raises:
        ValueError: a text goes on after its end, or stops before.
    """
    record = []
    for text in texts:
        state: int | None = 0
        transitions: list[Transition] = []
        for word in text:
            if state is None:
                raise ValueError(f"the text {list(text)} goes on after its end.")
            transitions.append(tree.transitions[state][word])
            state = transitions[-1][3]
        if state is not None:
            raise ValueError(f"the text {list(text)} is not complete.")
        record.append(tuple(transitions))
    return record


def write_texts(
    tree: TokenTree,
    probabilities: Tensor,
    count: int,
    *,
    generator: torch.Generator,
    anywhere: bool = False,
) -> Record:
    """Let a policy write.

    Args:
        tree: where words lead.
        probabilities: (S, A) float in [0, 1], rows that sum to 1: the policy's conditionals.
        count: ≥ 1, number of completions.
        generator: the source of chance.
        anywhere: begin each text at a state drawn uniformly from all S, not at the empty prefix.
    Returns:
        `count` texts, each a sequence of transitions.
    Raises:
        ValueError: the table is not (S, A).
    """
    edges = [list(accumulate(row)) for row in probabilities.tolist()]
    for row, edge in zip(probabilities.tolist(), edges, strict=True):
        last = max(word for word, p in enumerate(row) if p > 0)
        edge[last:] = [2.0] * (len(row) - last)  # sums that round to 0.999… leave no gap
    return list(
        _texts(tree, lambda state, u: bisect_right(edges[state], u), count, generator, anywhere)
    )


def _texts(
    tree: TokenTree,
    choose: Callable[[int, float], int],
    count: int,
    generator: torch.Generator,
    anywhere: bool,
) -> Iterator[Sequence[Transition]]:
    """One text after the other; `choose` sees the state and a number in [0, 1)."""
    depth = _depth(tree)
    for begin in range(0, count, 1000):
        size = (min(1000, count - begin), depth + 1)
        draws = torch.rand(size, generator=generator, dtype=torch.float64)
        for u in draws.tolist():
            state: int | None = int(u[0] * tree.shape[0]) if anywhere else 0
            text: list[Transition] = []
            while state is not None:
                text.append(tree.transitions[state][choose(state, u[len(text) + 1])])
                state = text[-1][3]
            yield tuple(text)  # a tuple of plain tuples costs the garbage collector nothing


def _depth(tree: TokenTree) -> int:
    state, depth = tree.transitions[0][0][3], 1
    while state is not None:
        state, depth = tree.transitions[state][0][3], depth + 1
    return depth


# ------------------------------------------------------------------------------ what to learn


def monte_carlo(
    record: Record,
    num_states: int,
    *,
    gamma: float = 1.0,
    power: float = 1.0,
    at: Sequence[int] | None = None,
) -> Tensor:
    """Move V(s) towards the return that followed s.

    Args:
        record: completions, not empty, with states below S, of the policy whose values are wanted.
        num_states: S ≥ 1.
        gamma: discount in [0, 1].
        power: ≥ 0, of the step size 1 / visits^power; 1 takes the mean of the returns.
        at: numbers ≥ 1 of completions after which to look, not empty and rising; None looks at the
            end.
    Returns:
        (K, S) float64, reward units; a state that was never visited keeps 0.
    Source: Sutton and Barto (2018), eq. (6.1); chapter 04, eq. (4.2).
    """
    value, visits = [0.0] * num_states, [0] * num_states

    def update(text: Sequence[Transition]) -> None:
        following = 0.0
        for state, _, reward, _ in reversed(text):
            following = reward + gamma * following  # G_t, from the last word backwards
            visits[state] += 1
            value[state] += visits[state] ** -power * (following - value[state])

    return _look(record, update, value, at)


def temporal_difference(
    record: Record,
    num_states: int,
    *,
    gamma: float = 1.0,
    power: float = 1.0,
    at: Sequence[int] | None = None,
) -> Tensor:
    """TD(0): move V(s) towards the reward plus what the next state is thought to be worth.

    Args:
        record: completions, not empty, with states below S, of the policy whose values are wanted.
        num_states: S ≥ 1.
        gamma: discount in [0, 1].
        power: ≥ 0, of the step size 1 / visits^power.
        at: numbers ≥ 1 of completions after which to look, not empty and rising; None looks at the
            end.
    Returns:
        (K, S) float64, reward units; a state that was never visited keeps 0.
    Source: Sutton (1988); Sutton and Barto (2018), eq. (6.2); chapter 04, eq. (4.3).
    """
    value, visits = [0.0] * num_states, [0] * num_states

    def update(text: Sequence[Transition]) -> None:
        for state, _, reward, following in text:
            target = reward if following is None else reward + gamma * value[following]
            visits[state] += 1
            value[state] += visits[state] ** -power * (target - value[state])

    return _look(record, update, value, at)


def next_word_value(row: Sequence[float], word: int, state: int) -> float:
    """SARSA: the next state is worth the Q of the word that was written next.

    Args:
        row: A floats, A ≥ 1, Q(s′, ·).
        word: the next word of the text, a′ in [0, A).
        state: s′, not used.
    Source: Rummery and Niranjan (1994); chapter 04, eq. (4.4).
    """
    return row[word]


def best_value(row: Sequence[float], word: int, state: int) -> float:
    """Q-learning: the next state is worth its best Q, whatever was written next.

    Args:
        row: A floats, A ≥ 1, Q(s′, ·).
        word: the next word of the text, in [0, A), not used.
        state: s′, not used.
    Source: Watkins (1989); chapter 04, eq. (4.7).
    """
    return max(row)


def greedy_mean(epsilon: float) -> Bootstrap:
    """Expected SARSA for an ε-greedy writer: the mean of Q over what it would write next.

    Args:
        epsilon: of the writer, in [0, 1].
    Returns:
        A rule like `best_value`.
    Source: van Seijen et al. (2009); chapter 04, eq. (4.6).
    """
    return lambda row, word, state: (1 - epsilon) * max(row) + epsilon * sum(row) / len(row)


def policy_mean(probabilities: Tensor) -> Bootstrap:
    """Expected SARSA for a fixed policy, which need not be the one that wrote the record.

    Args:
        probabilities: (S, A) float in [0, 1], rows that sum to 1: the policy whose Q is wanted.
    Returns:
        A rule like `best_value`.
    Source: van Seijen et al. (2009); chapter 04, eq. (4.6).
    """
    rows = probabilities.tolist()
    return lambda row, word, state: sum(p * q for p, q in zip(rows[state], row, strict=True))


def update_q(
    q_table: Table,
    visits: list[list[int]],
    text: Sequence[Transition],
    bootstrap: Bootstrap,
    *,
    gamma: float,
    power: float,
) -> None:
    """One text's worth of learning, written into the two tables.

    No state occurs twice in a text, so that learning after the last word is the same as
    learning while writing.

    Args:
        q_table: S rows of A floats, rows of one length; changed.
        visits: S rows of A counts ≥ 0, rows of one length; changed.
        text: its transitions, with states below S.
        bootstrap: what the next state is worth.
        gamma: discount in [0, 1].
        power: ≥ 0, of the step size 1 / visits^power.
    Source: chapter 04, eqs. (4.4), (4.6) and (4.7).
    """
    for t, (state, word, target, following) in enumerate(text, start=1):
        if following is not None:  # target is the reward, and this is what comes on top
            target += gamma * bootstrap(q_table[following], text[t][1], following)
        row, seen = q_table[state], visits[state]
        seen[word] += 1
        row[word] += seen[word] ** -power * (target - row[word])


def learn_from_texts(
    record: Record,
    bootstrap: Bootstrap,
    shape: tuple[int, int],
    *,
    gamma: float = 1.0,
    power: float = 1.0,
    initial: float = 0.0,
    at: Sequence[int] | None = None,
) -> Tensor:
    """Learn Q from texts that are already there.

    Args:
        record: completions, not empty, with states below S, by whomever.
        bootstrap: `next_word_value` learns the Q of the record's writer, `best_value` Q*, and
            `policy_mean` the Q of a third party.
        shape: (S, A), S ≥ 1, A ≥ 1.
        gamma: discount in [0, 1].
        power: ≥ 0, of the step size 1 / visits^power.
        initial: what an entry is before it is visited.
        at: numbers ≥ 1 of completions after which to look, not empty and rising; None looks at the
            end.
    Returns:
        (K, S, A) float64, reward units.
    """
    q_table, visits = _fresh(shape, initial)
    learn = lambda text: update_q(q_table, visits, text, bootstrap, gamma=gamma, power=power)  # noqa: E731
    return _look(record, learn, q_table, at)


def learn_by_writing(
    tree: TokenTree,
    bootstrap: Bootstrap,
    *,
    epsilon: float,
    at: Sequence[int],
    generator: torch.Generator,
    gamma: float = 1.0,
    power: float = 1.0,
    initial: float = 0.0,
    anywhere: bool = False,
) -> Tensor:
    """Learn Q while writing ε-greedily by the Q learned so far.

    Args:
        tree: where words lead.
        bootstrap: `next_word_value`, `greedy_mean(epsilon)` or `best_value`.
        epsilon: share of words in [0, 1] that are drawn uniformly.
        at: numbers ≥ 1 of completions after which to look, not empty and rising; the last one ends
            the run.
        generator: the source of chance.
        gamma: discount in [0, 1].
        power: ≥ 0, of the step size 1 / visits^power.
        initial: what an entry is before it is visited.
        anywhere: begin each text at a state drawn uniformly from all.
    Returns:
        (K, S, A) float64, reward units.
    Raises:
        ValueError: epsilon is outside [0, 1].
    """
    q_table, visits = _fresh(tree.shape, initial)
    learn = lambda text: update_q(q_table, visits, text, bootstrap, gamma=gamma, power=power)  # noqa: E731
    choose = lambda state, u: greedy_word(q_table[state], epsilon, u)  # noqa: E731
    texts = _texts(tree, choose, at[-1], generator, anywhere)  # reads q_table as it changes
    return _look(texts, learn, q_table, at)


def greedy_word(row: list[float], epsilon: float, u: float) -> int:
    """The ε-greedy choice; of equally good words the first.

    Args:
        row: A floats, A ≥ 1, Q(s, ·).
        epsilon: probability in [0, 1] of a word drawn uniformly from all A, the best one included.
        u: uniform in [0, 1): below ε it also says which word.
    """
    if u < epsilon:
        return int(u / epsilon * len(row))
    return row.index(max(row))


def _fresh(shape: tuple[int, int], initial: float) -> tuple[Table, list[list[int]]]:
    states, words = shape
    return [[initial] * words for _ in range(states)], [[0] * words for _ in range(states)]


def _look(
    record: Iterable[Sequence[Transition]],
    update: Callable[[Sequence[Transition]], None],
    table: Table | list[float],
    at: Sequence[int] | None,
) -> Tensor:
    """Run through the record, and copy the table after each count in `at`."""
    looks, wanted = [], set(at) if at is not None else None
    for count, text in enumerate(record, start=1):
        update(text)
        if wanted is not None and count in wanted:
            looks.append(torch.tensor(table, dtype=torch.float64))
    if wanted is None:
        looks.append(torch.tensor(table, dtype=torch.float64))
    return torch.stack(looks)


contract.hold(globals())
