"""Policies that are plain tables: one row of logits for every state of a token world."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from course.exact import oracle
from course.exact.oracle import Policy
from course.worlds.word_world import TokenWorld
from helpers import contract


class TablePolicy(nn.Module):
    """One free row of logits for every prompt and every unfinished prefix.

    States are numbered breadth first: the empty prefix, the one-word prefixes, and so on; the
    prefixes of one length are in the order of their word ids read as digits. This is the order
    of `course.exact.oracle`.
    """

    def __init__(
        self, world: TokenWorld, *, std: float = 0.0, generator: torch.Generator | None = None
    ) -> None:
        """Draw the table.

        Args:
            world: gives the number of prompts, states and actions.
            std: ≥ 0, standard deviation of the logits; 0 gives the uniform policy.
            generator: the source of chance; needed if std is not 0.
        Raises:
            ValueError: std is not 0 and there is no generator.
        """
        super().__init__()
        if std and generator is None:
            raise ValueError("a random table needs a generator: pass torch.Generator().")
        n, depth = world.num_continuing, world.max_length
        self.world = world
        first = torch.tensor([sum(n**j for j in range(k)) for k in range(depth)])
        self.first_state: Tensor
        self.register_buffer("first_state", first, persistent=False)  # of each level
        num_states = int(self.first_state[-1]) + n ** (depth - 1)
        shape = (len(world.prompts), num_states, world.num_actions)
        noise = torch.randn(shape, generator=generator, dtype=torch.float64) if std else 0.0
        self.logits = nn.Parameter(torch.zeros(shape, dtype=torch.float64) + std * noise)

    @property
    def sizes(self) -> dict[str, Any]:
        """Those of its world."""
        return self.world.sizes

    def forward(self, token_ids: Tensor) -> Tensor:
        """Logits of the word that comes next, at every position.

        Args:
            token_ids: (B, L) integer in [0, V), L ≥ 1, L ≤ T: a prompt's id, then word ids. What
                follows an end-of-sequence word is padding, and its logits mean nothing.
        Returns:
            (B, L, A) float64.
        Raises:
            ValueError: L leaves the table, or the first column is not a prompt.
        """
        world, length = self.world, token_ids.shape[1]
        prompts = token_ids[:, 0] - world.num_actions  # (B,)
        known = (prompts >= 0) & (prompts < len(world.prompts))
        if not 1 <= length <= world.max_length or not bool(known.all()):
            raise ValueError(
                f"token_ids {tuple(token_ids.shape)} must be a prompt id and at most "
                f"{world.max_length - 1} words; a longer prefix has no next word."
            )
        states, rank = [self.first_state[0].expand(len(token_ids))], torch.zeros_like(prompts)
        for k in range(1, length):
            word = token_ids[:, k].clamp(max=world.num_continuing - 1)
            rank = rank * world.num_continuing + word
            states.append(self.first_state[k] + rank)
        return self.logits[prompts.unsqueeze(1), torch.stack(states, dim=1)]  # (B, L, A)


@torch.no_grad()
def tabulate(policy: Policy, world: TokenWorld) -> TablePolicy:
    """The same conditionals as a table: for a widget, which asks a policy again and again.

    Args:
        policy: token ids → logits.
        world: what to enumerate.
    Returns:
        A table whose logits are the policy's log-probabilities at every state.
    """
    table = TablePolicy(world)
    for row, prompt in enumerate(world.prompts):
        table.logits[row] = torch.cat(oracle.state_logprobs(policy, world, prompt))
    return table


@torch.no_grad()
def table_policy(probabilities: Tensor, world: TokenWorld) -> TablePolicy:
    """A policy with the given conditionals.

    Args:
        probabilities: (S, A) or (P, S, A) float in [0, 1]: one row a state, used under every
            prompt, or for each; rows sum to 1, zeros may be among them.
        world: gives the numbering of states, which is that of `TablePolicy`.
    Returns:
        A table whose logits are the logarithms, −inf where the probability is 0.
    Raises:
        ValueError: the shape is not this world's, or a row is no distribution.
    """
    table = TablePolicy(world)
    table.logits.copy_(probabilities.log().expand_as(table.logits))
    return table


def epsilon_greedy(q_table: Tensor, world: TokenWorld, *, epsilon: float = 0.0) -> TablePolicy:
    """The policy that takes the best word, and with probability ε one drawn uniformly from all.

    Args:
        q_table: (S, A) or (P, S, A) float, reward units, as `torch.cat(values.q_value)`. Of
            equally good words the first one is taken.
        world: gives the numbering of states.
        epsilon: in [0, 1]; 0 is greedy.
    Returns:
        A table of its conditionals.
    Raises:
        ValueError: epsilon is outside [0, 1], or the shape is not this world's.
    Source: Sutton and Barto (2018), section 2.2.
    """
    best = one_hot(q_table.argmax(-1), q_table.shape[-1]).double()
    return table_policy((1 - epsilon) * best + epsilon / q_table.shape[-1], world)


@torch.no_grad()
def exploring(
    policy: Policy, world: TokenWorld, *, temperature: float = 1.0, epsilon: float = 0.0
) -> TablePolicy:
    """The policy at another temperature, mixed word by word with the uniform distribution.

    Args:
        policy: token ids → logits.
        world: what to enumerate.
        temperature: > 0; divides the logits first.
        epsilon: in [0, 1]: weight of the uniform distribution.
    Returns:
        A table of (1 − ε) softmax(z / temperature) + ε / A.
    Raises:
        ValueError: the temperature is not positive, or epsilon is outside [0, 1].
    Source: chapter 04, eq. (4.17).
    """
    tempered = (tabulate(policy, world).logits / temperature).softmax(-1)
    return table_policy((1 - epsilon) * tempered + epsilon / world.num_actions, world)


contract.hold(globals())
