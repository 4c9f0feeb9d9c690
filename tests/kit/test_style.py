"""The course's look: colours of roles, and larger figures for a class."""

import io

from matplotlib.figure import Figure
from PIL import Image

from course.kit import style


def test_colours_of_roles_are_distinct_and_exact_is_black():
    assert len(set(style.COLORS.values())) == len(style.COLORS)
    assert style.COLORS["exact"] == "#000000"


def test_a_class_sees_larger_figures(monkeypatch):
    def width() -> int:
        style.use_style()
        figure = Figure(figsize=(4, 2))
        figure.subplots().plot([0, 1])
        with Image.open(io.BytesIO(style.png(figure))) as picture:
            return picture.width

    before = width()
    monkeypatch.setenv("COURSE_ZOOM", "1.5")
    assert abs(width() - 1.5 * before) <= 2
    monkeypatch.delenv("COURSE_ZOOM")
    assert width() == before
