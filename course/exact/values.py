"""Values of states and actions on a token world, exact, by backward induction.

Writing under one prompt is a Markov decision process: the state is the prefix, the action a
word, the transition appends it. Prefixes form a tree, so one sweep from the last words to the
first solves the Bellman equations; nothing is iterated.

Everything is a list with one tensor a level: level k is about the n^k prefixes of k words, in
digit order, as in `oracle.state_logprobs`. A is the number of words, n of them continue, T is
the limit. Time: the k-th word is written at t = k−1, so a reward on it counts γ^(k−1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from course.exact import oracle
from course.exact.oracle import Policy
from course.worlds.word_world import RewardFunction, TokenWorld
from helpers import contract

Levels = list[Tensor]


@dataclass(frozen=True)
class Values:
    """V and Q of every state that is not terminal. The value of a terminal state is 0."""

    value: Levels  # T tensors (n^k,), reward units: expected discounted reward from here on
    q_value: Levels  # T tensors (n^k, A): the same, after this word

    @property
    def advantage(self) -> Levels:
        """A = Q − V: T tensors (n^k, A), reward units."""
        pairs = zip(self.q_value, self.value, strict=True)
        return [q - v.unsqueeze(1) for q, v in pairs]

    @property
    def start(self) -> Tensor:
        """V of the empty prefix: () reward units. Under a policy, this is its objective."""
        return self.value[0][0]


def transition_rewards(
    world: TokenWorld, prompt: str, *, reward: RewardFunction | None = None
) -> Levels:
    """r(s, a) with the whole reward at the end: R(c, x) on the word that completes x, else 0.

    Args:
        world: what to enumerate.
        prompt: one of the world's prompts.
        reward: None takes the world's own.
    Returns:
        T tensors (n^k, A) float64.
    Raises:
        ValueError: the reward function does not return one finite number for each completion.
    Source: chapter 03, eq. (3.2).
    """
    n, depth = world.num_continuing, world.max_length
    remaining = oracle.rewards(world, prompt, reward=reward)  # ended at 1, 2, … words; then cut
    levels = []
    for k in range(depth):
        level = torch.zeros(n**k, world.num_actions, dtype=torch.float64)
        ended = n**k * len(world.eos_ids)
        level[:, n:] = remaining[:ended].view(n**k, -1)
        remaining = remaining[ended:]
        levels.append(level)
    levels[-1][:, :n] = remaining.view(-1, n)
    return levels


def stopping_rewards(rewards: Levels, world: TokenWorld) -> Levels:
    """What stopping at once would pay at each state: the natural potential Φ(s) of a text.

    Args:
        rewards: T tensors (n^k, A), reward at the end.
        world: must have an ending word.
    Returns:
        T tensors (n^k,) float64.
    Raises:
        ValueError: the world has no word that ends a completion.
    """
    if not world.ends:
        raise ValueError("this world has no ending word, so that no text can be stopped.")
    return [level[:, world.num_continuing] for level in rewards]


def shape_rewards(rewards: Levels, potential: Levels, *, gamma: float = 1.0) -> Levels:
    """Add γ Φ(s′) − Φ(s) to every reward, with Φ = 0 at the terminal states.

    Args:
        rewards: T tensors (n^k, A): r(s, a).
        potential: T tensors (n^k,): Φ(s).
        gamma: the discount in [0, 1] of the process that is shaped; another one breaks the theorem.
    Returns:
        T tensors (n^k, A): new rewards, under which optimal policies stay optimal and every
        policy's advantages stay what they were.
    Raises:
        ValueError: gamma is outside [0, 1], or the levels do not fit.
    Source: Ng, Harada and Russell (1999); chapter 03, eq. (3.8).
    """
    after: list[Tensor | None] = [*potential[1:], None]  # Φ of the next states
    levels = zip(rewards, potential, after, strict=True)
    return [_q_values(r, following, gamma) - phi.unsqueeze(1) for r, phi, following in levels]


def policy_values(
    policy: Policy,
    world: TokenWorld,
    prompt: str,
    *,
    gamma: float = 1.0,
    rewards: Levels | None = None,
) -> Values:
    """V^π and Q^π: what a policy expects from each prefix, and from each next word.

    Args:
        policy: token ids → logits, causal.
        world: what to enumerate.
        prompt: one of the world's prompts.
        gamma: discount in [0, 1]. The reward of the k-th word counts γ^(k−1) at the start.
        rewards: T tensors (n^k, A) of r(s, a); None takes the world's, at the end.
    Returns:
        The values, differentiable in the policy's parameters.
    Raises:
        ValueError: gamma is outside [0, 1], or the rewards are not of this world.
    Source: Sutton and Barto (2018), eq. (4.4); chapter 03, eqs. (3.4) and (3.5).
    """
    rewards = transition_rewards(world, prompt) if rewards is None else rewards
    logprobs = oracle.state_logprobs(policy, world, prompt)
    rewards = [reward.to(logprobs[0].dtype) for reward in rewards]
    return _sweep(rewards, gamma, lambda k, q_value: (logprobs[k].exp() * q_value).sum(-1))


def optimal_values(
    world: TokenWorld, prompt: str, *, gamma: float = 1.0, rewards: Levels | None = None
) -> Values:
    """V* and Q*: what the best writer expects from each prefix, and from each next word.

    Args:
        world: what to enumerate.
        prompt: one of the world's prompts.
        gamma: discount in [0, 1].
        rewards: T tensors (n^k, A) of r(s, a); None takes the world's, at the end.
    Returns:
        The values, float64.
    Raises:
        ValueError: gamma is outside [0, 1].
    Source: Sutton and Barto (2018), eq. (3.20); chapter 03, eq. (3.7).
    """
    rewards = transition_rewards(world, prompt) if rewards is None else rewards
    return _sweep(rewards, gamma, lambda k, q_value: q_value.max(dim=-1).values)


def _sweep(rewards: Levels, gamma: float, choose: Callable[[int, Tensor], Tensor]) -> Values:
    """Backward induction; `choose(k, Q)` says what a state of level k is worth: (n^k,)."""
    values: Levels = []
    q_values: Levels = []
    following = None
    for k in reversed(range(len(rewards))):
        q_values.insert(0, _q_values(rewards[k], following, gamma))
        following = choose(k, q_values[0])  # (n^k,)
        values.insert(0, following)
    return Values(values, q_values)


def _q_values(reward: Tensor, following: Tensor | None, gamma: float) -> Tensor:
    """r(s, a) + γ f(s′) for f = V or Φ, which is 0 after an ending word and at the limit."""
    if following is None:
        return reward
    n = len(following) // len(reward)
    onward = torch.zeros_like(reward)
    onward[:, :n] = following.view(-1, n)
    return reward + gamma * onward


def reach_probabilities(policy: Policy, world: TokenWorld, prompt: str) -> Levels:
    """How probable it is that a policy gets to each prefix.

    Args:
        policy: token ids → logits.
        world: what to enumerate.
        prompt: one of the world's prompts.
    Returns:
        T tensors (n^k,), differentiable; level k sums to the probability of writing word k+1.
    Source: chapter 03, eq. (3.9).
    """
    n = world.num_continuing
    levels = oracle.state_logprobs(policy, world, prompt)
    reach = [torch.ones(1, dtype=levels[0].dtype)]
    for level in levels[:-1]:
        reach.append((reach[-1].unsqueeze(1) * level[:, :n].exp()).reshape(-1))
    return reach


def epsilon_greedy_values(
    world: TokenWorld,
    prompt: str,
    *,
    epsilon: float,
    gamma: float = 1.0,
    rewards: Levels | None = None,
) -> Values:
    """V and Q of the writer that is ε-greedy with respect to its own Q: where SARSA ends.

    Args:
        world: what to enumerate.
        prompt: one of the world's prompts.
        epsilon: share in [0, 1] of words drawn uniformly; 0 gives V* and Q*.
        gamma: discount in [0, 1].
        rewards: T tensors (n^k, A) of r(s, a); None takes the world's, at the end.
    Returns:
        The values, float64, with V(s) = (1 − ε) max Q(s, ·) + ε mean Q(s, ·).
    Raises:
        ValueError: epsilon or gamma is outside [0, 1].
    Source: Sutton and Barto (2018), section 5.4; chapter 04, eq. (4.5).
    """
    rewards = transition_rewards(world, prompt) if rewards is None else rewards

    def choose(_: int, q_value: Tensor) -> Tensor:
        return (1 - epsilon) * q_value.max(dim=-1).values + epsilon * q_value.mean(-1)

    return _sweep(rewards, gamma, choose)


contract.hold(globals())
