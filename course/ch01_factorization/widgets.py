"""Widgets of chapter 01: walk the prefix tree, and turn a sampler's knobs."""

from typing import Any

import ipywidgets
import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.ch01_factorization import figures
from course.exact import oracle, tables
from course.exact.oracle import Policy
from course.kit import style, walker
from course.worlds.word_world import TokenWorld
from helpers import kl, logprobs


class TreeExplorer(walker.PrefixWalker):
    """Walk the prefix tree of a word world: click a word, type words, go back.

    The state is shown three ways: in the picture, as bars of the next word's distribution, and
    in a line of text that a screen reader can read.
    """

    def __init__(self, policy: Policy, world: TokenWorld) -> None:
        """Enumerate each prompt once; a step then only draws.

        Args:
            policy: token ids → logits.
            world: the words and prompts to offer.
        """
        with torch.no_grad():
            self._levels = {p: oracle.state_logprobs(policy, world, p) for p in world.prompts}
        super().__init__(world)

    def redraw(self) -> None:
        """Show the outline, the next word's distribution and the running product."""
        levels, n = self._levels[self.prompt.value], self._world.num_continuing
        here = None if self.ended else levels[len(self.path)][oracle.rank(self.path, n)]
        self.label_words([] if here is None else [f"{p:.2f}" for p in here.exp().tolist()])
        factors = torch.tensor([0.0, *oracle.along(levels, self.path)], dtype=torch.float64).exp()
        product = " × ".join(f"{factor:.3f}" for factor in factors[1:].tolist()) or "1"
        probability = factors.prod()
        self.state.value = (
            f"{self.where()}<br>p = {product} = {probability:.5f}, &nbsp; "
            f"log p = {probability.log():.3f} nats"
        )
        figure = figures.prefix_tree(levels, self._world.words, self.prompt.value, self.path)
        self.image.value = style.png(figure)


class SamplerExplorer(ipywidgets.VBox):
    """Temperature, top-k and top-p against the exact distribution, with the exact KL."""

    def __init__(self, policy: Policy, world: TokenWorld) -> None:
        """Build the controls and draw once.

        Args:
            policy: token ids → logits.
            world: what to enumerate.
        """
        self._policy, self._world = tables.tabulate(policy, world), world
        self.prompt = walker.prompt_buttons(world)
        slider = {"style": {"description_width": "100px"}, "layout": {"width": "420px"}}
        self.temperature = ipywidgets.FloatSlider(
            1.0, min=0.2, max=3.0, step=0.1, description="temperature", **slider
        )
        self.top_k = ipywidgets.IntSlider(
            world.num_actions, min=1, max=world.num_actions, description="top-k (words)", **slider
        )
        self.top_p = ipywidgets.FloatSlider(
            1.0, min=0.05, max=1.0, step=0.05, description="top-p (mass)", **slider
        )
        self.reset = ipywidgets.Button(description="reset", layout={"width": "90px"})
        self.image, self.state = walker.picture(), ipywidgets.HTML()
        self._controls = (self.prompt, self.temperature, self.top_k, self.top_p)
        for control in self._controls:
            control.observe(lambda _: self.draw(), names="value")
        self.reset.on_click(lambda _: self._reset())
        super().__init__([*self._controls, self.reset, self.state, self.image])
        self.draw()

    def _reset(self) -> None:
        self.temperature.value, self.top_p.value = 1.0, 1.0
        self.top_k.value = self._world.num_actions

    @torch.no_grad()
    def draw(self) -> None:
        """Recompute the exact distributions and redraw."""
        settings = {
            "temperature": self.temperature.value,
            "top_k": self.top_k.value,
            "top_p": self.top_p.value,
        }
        figure, numbers = compare_sampler(self._policy, self._world, self.prompt.value, **settings)
        self.state.value = (
            f"KL(sampler ‖ model) = <b>{numbers['kl']:.3f} nats</b> a completion; &nbsp; "
            f"the model gives <b>{numbers['unreachable']:.1%}</b> to completions that this sampler "
            f"never writes; &nbsp; entropy {numbers['sampler_entropy']:.2f} "
            f"(model: {numbers['model_entropy']:.2f}) nats"
        )
        self.image.value = style.png(figure)


def compare_sampler(
    policy: Policy, world: TokenWorld, prompt: str, *, shown: int = 8, **settings: Any
) -> tuple[Figure, dict[str, float]]:
    """The figure and the exact numbers of one sampler against its model.

    Args:
        policy: token ids → logits: the model.
        world: what to enumerate.
        prompt: one of the world's prompts.
        shown: completions in the figure: the model's most probable ones.
        settings: temperature, top_k, top_p, as in `logprobs.sampling_logits`.
    Returns:
        The figure, and `kl` (sampler ‖ model), `unreachable` (the model's probability of
        completions that the sampler cannot write), `sampler_entropy`, `model_entropy`; nats.
    """

    def sampler_policy(token_ids: Tensor) -> Tensor:
        return logprobs.sampling_logits(policy(token_ids), **settings)

    with torch.no_grad():
        model = oracle.completion_logprobs(policy, world, prompt)
        sampler = oracle.completion_logprobs(sampler_policy, world, prompt)
        prompt_ids = torch.tensor([[world.prompt_id(prompt)]])
        first = [p(prompt_ids)[0, 0].softmax(-1).tolist() for p in (policy, sampler_policy)]
    numbers = {
        "kl": float(kl.kl_divergence(sampler, model)),
        "unreachable": float(model.exp()[sampler == -torch.inf].sum()),
        "sampler_entropy": max(0.0, float(logprobs.entropy(sampler))),
        "model_entropy": float(logprobs.entropy(model)),
    }
    top = model.topk(shown).indices
    texts = oracle.enumerate_completions(world).texts
    figure = figures.samplers(
        world.words,
        first[0],
        first[1],
        [texts[i] for i in top.tolist()],
        model.exp()[top].tolist(),
        sampler.exp()[top].tolist(),
    )
    return figure, numbers
