"""Widget of chapter 03: the prefix tree coloured by V, Q or A."""

from typing import Any

import ipywidgets
import torch
from matplotlib.figure import Figure

from course.ch03_token_mdp import figures
from course.exact import oracle, tables, values
from course.exact.oracle import Policy
from course.exact.values import Levels, Values
from course.kit import style, walker
from course.worlds.word_world import TokenWorld

SHOWN = {"V, of the state": "V", "Q, of the word": "Q", "A = Q − V": "A"}
PAYMENTS = ("at the end", "for each word (shaped)", "at the end, +2 per “very”")


class ValueExplorer(walker.PrefixWalker):
    """Walk the tree; choose what colours it, who writes, what is paid and the discount γ."""

    def __init__(self, policy: Policy, world: TokenWorld) -> None:
        """Tabulate the policy once; a step then only sweeps and draws.

        Args:
            policy: token ids → logits: one of the policies to choose from.
            world: the words and prompts to offer; it must have an ending word.
        """
        wide: dict[str, Any] = {
            "style": {"description_width": "70px"},
            "layout": {"width": "330px"},
        }
        self._policy = tables.tabulate(policy, world)
        self._uniform = tables.TablePolicy(world)
        self.shown = ipywidgets.Dropdown(options=SHOWN, value="Q", description="colour", **wide)
        self.writer = ipywidgets.Dropdown(
            options=("the transformer", "uniform", "the best one"), description="policy", **wide
        )
        self.payment = ipywidgets.Dropdown(options=PAYMENTS, description="reward", **wide)
        self.gamma = ipywidgets.FloatSlider(
            1.0, min=0.0, max=1.0, step=0.05, description="discount γ", **wide
        )
        for control in (self.shown, self.writer, self.payment, self.gamma):
            control.observe(lambda _: self.redraw(), names="value")
        super().__init__(
            world,
            ipywidgets.HBox([self.shown, self.writer], layout={"flex_flow": "row wrap"}),
            ipywidgets.HBox([self.payment, self.gamma], layout={"flex_flow": "row wrap"}),
        )

    @torch.no_grad()
    def solve(self) -> tuple[Values, Levels]:
        """Values of the chosen setting, and the writer's probabilities, by one sweep.

        Returns:
            The values, and T tensors (n^k, A) of π(a | s).
        """
        world, prompt, gamma = self._world, self.prompt.value, self.gamma.value
        rewards = pay(world, prompt, self.payment.value, gamma=gamma)
        if self.writer.value == "the best one":
            found = values.optimal_values(world, prompt, gamma=gamma, rewards=rewards)
            policy = tables.epsilon_greedy(torch.cat(found.q_value), world)
        else:
            policy = self._uniform if self.writer.value == "uniform" else self._policy
            found = values.policy_values(policy, world, prompt, gamma=gamma, rewards=rewards)
        return found, [p.exp() for p in oracle.state_logprobs(policy, world, prompt)]

    def redraw(self) -> None:
        """Show the tree, the next words' numbers and the state's values."""
        found, probs = self.solve()
        figure, bars = tree_of_values(
            found, probs, self._world, self.path, shown=self.shown.value, prompt=self.prompt.value
        )
        self.label_words([] if bars is None else [f"{number:+.2f}" for number in bars])
        start = f"V({self.prompt.value}) = <b>{float(found.start):+.3f}</b>"
        row = oracle.rank(self.path, self._world.num_continuing)
        here = "a terminal state, V = 0"
        if bars is not None:
            here = f"V(s) = <b>{float(found.value[len(self.path)][row]):+.3f}</b>"
        self.state.value = f"{self.where()}<br>{here}, &nbsp; at the start {start}, reward units"
        self.image.value = style.png(figure)


def pay(world: TokenWorld, prompt: str, payment: str, *, gamma: float) -> Levels:
    """r(s, a) for one of the ways to pay that the explorer offers.

    Args:
        world: what to enumerate; it must have an ending word.
        prompt: one of the world's prompts.
        payment: one of PAYMENTS.
        gamma: the discount, which shaping must know.
    Returns:
        T tensors (n^k, A) float64, reward units.
    """
    rewards = values.transition_rewards(world, prompt)
    if payment == PAYMENTS[1]:
        potential = values.stopping_rewards(rewards, world)
        return values.shape_rewards(rewards, potential, gamma=gamma)
    if payment == PAYMENTS[2]:
        bonus = torch.tensor([2.0 * (word == "very") for word in world.words])
        return [level + bonus for level in rewards]
    return rewards


def tree_of_values(
    found: Values, probs: Levels, world: TokenWorld, path: list[int], *, shown: str, prompt: str
) -> tuple[Figure, list[float] | None]:
    """The explorer's figure, and the numbers of the next words.

    Args:
        found: V and Q of every state.
        probs: T tensors (n^k, A) of π(a | s).
        world: names the words.
        path: word ids walked so far.
        shown: "V", "Q" or "A".
        prompt: for the title.
    Returns:
        The figure, and A numbers: V(s′), Q(s, a) or A(s, a); None at a terminal state.
    """
    n, depth = world.num_continuing, len(path)
    levels = {"V": _next_values(found, n), "Q": found.q_value, "A": found.advantage}[shown]
    ended = depth == world.max_length or (bool(path) and path[-1] >= n)
    row, bars, level, chosen = oracle.rank(path, n), None, None, []
    if not ended:
        bars = levels[depth][row].nan_to_num(0.0).tolist()
        level = float(found.value[depth][row]) if shown == "Q" else None
        chosen = probs[depth][row].tolist()
    figure = figures.value_tree(
        levels,
        bars,
        world.words,
        path,
        level=level,
        probs=chosen,
        name={"V": "V(s′) after the word", "Q": "Q(s, a)", "A": "A(s, a)"}[shown],
        title=f"“{prompt}”: {shown}, brown below 0, green above",
    )
    return figure, bars


def _next_values(found: Values, n: int) -> Levels:
    """V of the state that each word leads to; nan where the text is over."""
    levels = [torch.full_like(q_value, torch.nan) for q_value in found.q_value]
    for level, following in zip(levels, found.value[1:], strict=False):
        level[:, :n] = following.view(-1, n)
    return levels
