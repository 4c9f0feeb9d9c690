"""Walking down a word world with buttons, and the small pieces that widgets share."""

from collections.abc import Sequence
from typing import Any

import ipywidgets

from course.worlds.word_world import TokenWorld


def picture() -> ipywidgets.Image:
    """A picture at its own size: stretched to its box it would be blurred."""
    layout = {"width": "740px", "max_width": "100%", "align_self": "flex-start"}
    return ipywidgets.Image(format="png", layout=layout)


def prompt_buttons(world: TokenWorld) -> ipywidgets.ToggleButtons:
    """Choose one of a world's prompts."""
    style = {"button_width": "90px"}
    return ipywidgets.ToggleButtons(options=world.prompts, description="prompt", style=style)


class PrefixWalker(ipywidgets.VBox):
    """Buttons and a text field to walk down a word world; what is shown is up to the subclass.

    A subclass sets up what it needs, calls `super().__init__`, and writes `redraw`.
    """

    def __init__(self, world: TokenWorld, *controls: ipywidgets.Widget) -> None:
        """Build the controls and show the empty prefix.

        Args:
            world: the words and prompts to offer.
            controls: more of them, shown below the prompt.
        """
        self._world = world
        self.path: list[int] = []  # word ids walked so far
        self.prompt = prompt_buttons(world)
        self.words = [ipywidgets.Button(layout={"width": "110px"}) for _ in world.words]
        self.back = ipywidgets.Button(description="back", icon="undo", layout={"width": "90px"})
        self.restart = ipywidgets.Button(description="start over", layout={"width": "90px"})
        self.typed = ipywidgets.Text(
            description="or type", placeholder="words, then Enter", continuous_update=False
        )
        self.image, self.state = picture(), ipywidgets.HTML()
        for word, button in enumerate(self.words):
            button.on_click(lambda _, word=word: self.walk([*self.path, word]))
        self.back.on_click(lambda _: self.walk(self.path[:-1]))
        self.restart.on_click(lambda _: self.walk([]))
        self.prompt.observe(lambda _: self.walk([]), names="value")
        self.typed.observe(self._walk_typed, names="value")
        steps = ipywidgets.HBox([*self.words], layout={"flex_flow": "row wrap"})
        moves = ipywidgets.HBox([self.back, self.restart, self.typed])
        super().__init__([self.prompt, *controls, steps, moves, self.state, self.image])
        self.walk([])

    @property
    def ended(self) -> bool:
        """Whether the walk has reached an ending word or the limit."""
        over = any(word in self._world.eos_ids for word in self.path)
        return over or len(self.path) == self._world.max_length

    def walk(self, path: Sequence[int]) -> None:
        """Go to the prefix with these word ids and redraw.

        Args:
            path: at most T word ids; whatever follows an ending word is dropped.
        """
        world = self._world
        ends = [k for k, word in enumerate(path) if word in world.eos_ids]
        self.path = list(path)[: ends[0] + 1 if ends else world.max_length]
        self.back.disabled = self.restart.disabled = not self.path
        for button in self.words:
            button.disabled = self.ended
        self.redraw()

    def redraw(self) -> None:
        """Show the state: the buttons' numbers, the line of text, the picture.

        Raises:
            NotImplementedError: the subclass did not write it.
        """
        raise NotImplementedError

    def label_words(self, numbers: Sequence[str]) -> None:
        """Put a number behind each word's button, or none of them if the list is empty."""
        for word, button in enumerate(self.words):
            number = f"  {numbers[word]}" if numbers else ""
            button.description = self._world.words[word] + number

    def where(self) -> str:
        """The prompt and the words so far, as HTML."""
        text = self._world.decode(self.path) or "(nothing yet)"
        place = "complete" if self.ended else "choose the next word"
        return f"<b>{self.prompt.value} →</b> {text} &nbsp; [{place}]"

    def _walk_typed(self, change: dict[str, Any]) -> None:
        words = change["new"].split()
        unknown = sorted(set(words) - set(self._world.words))
        if unknown:
            message = f"no word {', '.join(unknown)} here; try {', '.join(self._world.words)}"
        elif len(words) > self._world.max_length:
            message = f"a completion has at most {self._world.max_length} words"
        elif words:
            self.typed.value = ""
            return self.walk(self._world.encode(" ".join(words)))
        else:
            return None
        self.state.value = f"{self.state.value.split('<br>')[0]}<br><b>{message}</b>"
        return None
