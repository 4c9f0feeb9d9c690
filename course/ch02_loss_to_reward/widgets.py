"""Widgets of chapter 02: two critics and their imitator, and a bench for rewards."""

import html
import math
from collections.abc import Mapping, Sequence
from functools import cache

import ipywidgets
import torch
from matplotlib.figure import Figure

from course.ch02_loss_to_reward import figures
from course.kit import style, walker
from course.worlds import reviews
from course.worlds.word_world import RewardFunction
from helpers import kl

Rewards = Mapping[str, tuple[RewardFunction, str]]  # name → (function, unit)


@cache
def _facts(praise: float) -> tuple[float, float]:
    """Entropy (nats a review) and mean sentiment of the two critics' mixture, exact."""
    grammar = reviews.reviews_grammar(praise)
    return grammar.entropy(), grammar.expected_score()


def mix_critics(*, data_share: float, model_share: float) -> tuple[Figure, dict[str, float]]:
    """Data from one mixture of the two critics, a model that writes another: all exact.

    The mixtures differ in one choice, which critic writes, and a review shows who wrote it. So
    KL(data ‖ model) between whole reviews is that between the two shares.

    Args:
        data_share: in [0, 1], share of the data's reviews that start with praise.
        model_share: in (0, 1), share of the model's.
    Returns:
        The figure, and `entropy` (of the data), `kl` (data ‖ model), `cross_entropy`, all in
        nats a review, `data_sentiment`, `model_sentiment`.
    Raises:
        ValueError: model_share is 0 or 1, where the cross-entropy may be infinite.
    Source: chapter 02, eq. (2.7).
    """
    if not 0 < model_share < 1:
        raise ValueError(f"model_share must lie strictly between 0 and 1, got {model_share}.")
    entropy, data_sentiment = _facts(data_share)
    shares = [k / 100 for k in range(1, 100)]
    gaps = [_kl_of_shares(data_share, share) for share in shares]
    pan, praise = _facts(0.0)[1], _facts(1.0)[1]
    sentiment = lambda share: pan + share * (praise - pan)  # noqa: E731
    gap = _kl_of_shares(data_share, model_share)
    numbers = {
        "entropy": entropy,
        "kl": gap,
        "cross_entropy": entropy + gap,
        "data_sentiment": data_sentiment,
        "model_sentiment": sentiment(model_share),
    }
    figure = figures.two_critics(
        shares,
        [entropy + g for g in gaps],
        [sentiment(share) for share in shares],
        data=(data_share, entropy, data_sentiment),
        model=(model_share, entropy + gap, sentiment(model_share)),
    )
    return figure, numbers


def _kl_of_shares(data: float, model: float) -> float:
    pairs = torch.tensor([[data, 1 - data], [model, 1 - model]], dtype=torch.float64).log()
    return float(kl.kl_divergence(pairs[0], pairs[1]))


class CriticsExplorer(ipywidgets.VBox):
    """Two sliders: what the critics write, and what their imitator writes."""

    def __init__(self, data_share: float = 0.4, model_share: float = 0.6) -> None:
        """Build the controls and draw once.

        Args:
            data_share: where the first slider stands.
            model_share: where the second one stands.
        """
        slider = {"style": {"description_width": "150px"}, "layout": {"width": "480px"}}
        self.data_share = ipywidgets.FloatSlider(
            data_share, min=0.0, max=1.0, step=0.05, description="praise in the data", **slider
        )
        self.model_share = ipywidgets.FloatSlider(
            model_share, min=0.01, max=0.99, step=0.01, description="praise of the model", **slider
        )
        self.imitate = ipywidgets.Button(description="imitate", tooltip="lowest cross-entropy")
        self.please = ipywidgets.Button(description="please", tooltip="highest sentiment")
        self.image, self.state = walker.picture(), ipywidgets.HTML()
        for control in (self.data_share, self.model_share):
            control.observe(lambda _: self.draw(), names="value")
        self.imitate.on_click(lambda _: self._move(self.data_share.value))
        self.please.on_click(lambda _: self._move(self.model_share.max))
        buttons = ipywidgets.HBox([self.imitate, self.please])
        super().__init__([self.data_share, self.model_share, buttons, self.state, self.image])
        self.draw()

    def _move(self, share: float) -> None:
        self.model_share.value = min(max(share, self.model_share.min), self.model_share.max)

    def draw(self) -> None:
        """Recompute the exact numbers and redraw."""
        figure, numbers = mix_critics(
            data_share=self.data_share.value, model_share=self.model_share.value
        )
        self.state.value = (
            f"cross-entropy <b>{numbers['cross_entropy']:.3f}</b> = entropy "
            f"{numbers['entropy']:.3f} + KL {numbers['kl']:.3f} nats a review; &nbsp; mean "
            f"sentiment: data {numbers['data_sentiment']:+.2f}, model "
            f"<b>{numbers['model_sentiment']:+.2f}</b>"
        )
        self.image.value = style.png(figure)


def try_completion(
    rewards: Rewards, prompt: str, honest: Sequence[str], completion: str
) -> tuple[Figure, dict[str, float]]:
    """All rewards of one completion, against those of honest ones.

    Args:
        rewards: name → (reward function, its unit).
        prompt: the first words of a review.
        honest: completions of the grammar for this prompt.
        completion: what is tried.
    Returns:
        The figure, and the completion's reward under each name; `log p` is the grammar's own
        log-probability of the completion in nats, −inf for what it cannot write.
    """
    panels, numbers = {}, {}
    for name, (reward, unit) in rewards.items():
        values = reward([prompt] * len(honest), list(honest))
        [numbers[name]] = reward([prompt], [completion])
        panels[name] = (values, numbers[name], unit)
    numbers["log p"] = reviews.REVIEWS.logprob(completion, prefix=prompt)
    figure = figures.honest_and_gaming(
        panels, honest=f"{len(honest)} honest reviews", gaming="the completion that is tried"
    )
    return figure, numbers


class RewardBench(ipywidgets.VBox):
    """Type a completion and see what each reward pays for it."""

    def __init__(self, rewards: Rewards, prompt: str, honest: Sequence[str], start: str) -> None:
        """Build the controls and draw once.

        Args:
            rewards: name → (reward function, its unit); a reader's own is welcome.
            prompt: the first words of a review.
            honest: completions of the grammar for this prompt.
            start: the completion that stands there first.
        """
        self._rewards, self._prompt, self._honest = dict(rewards), prompt, list(honest)
        self.typed = ipywidgets.Text(
            value=start,
            description=f"{prompt} …",
            continuous_update=False,
            placeholder="a completion, then Enter",
            layout={"width": "720px"},
        )
        self.image, self.state = walker.picture(), ipywidgets.HTML()
        self.typed.observe(lambda _: self.draw(), names="value")
        super().__init__([self.typed, self.state, self.image])
        self.draw()

    def draw(self) -> None:
        """Ask every reward and redraw."""
        completion = self.typed.value
        figure, numbers = try_completion(self._rewards, self._prompt, self._honest, completion)
        logp = numbers.pop("log p")
        paid = ", &nbsp; ".join(
            f"{html.escape(name)} <b>{value:.3g}</b>" for name, value in numbers.items()
        )
        judge = (
            "the grammar cannot write this"
            if logp == -math.inf
            else f"a review; the grammar's log p(x | c) is {logp:.1f} nats"
        )
        self.state.value = f"{paid}<br>Independent check: <b>{judge}</b>."
        self.image.value = style.png(figure)
