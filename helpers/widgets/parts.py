"""The pieces that the course's widgets share."""

import ipywidgets

from helpers.worlds import TokenWorld


def picture() -> ipywidgets.Image:
    """A picture at its own size: stretched to its box it would be blurred."""
    layout = {"width": "740px", "max_width": "100%", "align_self": "flex-start"}
    return ipywidgets.Image(format="png", layout=layout)


def prompt_buttons(world: TokenWorld) -> ipywidgets.ToggleButtons:
    """Choose one of a world's prompts."""
    style = {"button_width": "90px"}
    return ipywidgets.ToggleButtons(options=world.prompts, description="prompt", style=style)
