"""What every figure of the course must pass; each chapter's tests call it with its own figures."""

import sys
from collections.abc import Callable, Collection

from matplotlib.figure import Figure

from course.kit import style


def check(
    draw: Callable[[], dict[str, Figure]],
    *,
    schematic: Collection[str] = (),
    titled: Collection[str] = (),
) -> None:
    """Reproducible to the byte, without pyplot, and every axis says what it shows.

    Args:
        draw: makes the figures anew, by name.
        schematic: those that have no axes to label.
        titled: small multiples, whose left titles say what is shown and in which unit.
    """
    style.use_style()
    figures, again = draw(), draw()
    assert "matplotlib.pyplot" not in sys.modules, "a figure goes through pyplot"
    for name, figure in figures.items():
        picture = style.png(figure)
        assert picture.startswith(b"\x89PNG") and picture == style.png(again[name]), name
        visible = [ax for ax in figure.axes if ax.axison]
        assert all(ax.get_ylabel() or ax.get_title(loc="left") for ax in visible), name
        if name in titled:
            assert all(ax.get_title(loc="left") for ax in visible), name
        elif name not in schematic:
            assert any(ax.get_ylabel() for ax in figure.axes), name
