"""Film chapter 07's laboratory: two presets, trained anew, one picture every two steps.

`python -m course.ch07_language_model.film` writes figures/laboratory.gif, in about a minute.
"""

import io
from pathlib import Path
from textwrap import shorten
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from course.ch07_language_model import figures, record, widgets
from course.kit import style
from course.kit.style import LINES

FILE = Path(__file__).resolve().parents[2] / "figures" / "laboratory.gif"
FILMED = {"praise, no KL": "paid for praise", "praise, with KL": "the same, minus 1 × KL"}
TEXTS = 3  # of each run that are shown
WIDE = 92  # letters a line
DPI = 110
MILLISECONDS, AT_THE_END = 350, 4000


def frame(runs: dict[str, list[dict[str, Any]]], step: int) -> Image.Image:
    """The laboratory's curves up to a step, over some of the texts of that step."""
    curves = {
        label: {name: [r[name] for r in records[: step + 1]] for name in figures.PANELS}
        for label, records in runs.items()
    }
    exact = widgets.exact_values()
    last = max(len(records) for records in runs.values()) - 1
    above = figures.laboratory(curves, exact=exact, title=f"step {step} of {last}")
    below = Figure(figsize=(7.4, 1.75))
    for k, (label, records) in enumerate(runs.items()):
        shown, color = records[min(step, len(records) - 1)], LINES[k][0]
        top = 0.96 - 0.5 * k
        below.text(0.02, top, label, color=color, weight="bold", fontsize=8, va="top")
        for line, (prompt, text, paid) in enumerate(shown["samples"][:TEXTS], 1):
            below.text(
                0.02,
                top - 0.11 * line,
                shorten(f"{paid:+6.1f}  {prompt} {text}", WIDE, placeholder=" …"),
                fontsize=7.5,
                family="monospace",
                va="top",
            )
    parts = [picture(above), picture(below)]
    both = Image.new("RGB", (parts[0].width, sum(p.height for p in parts)), "white")
    both.paste(parts[0], (0, 0))
    both.paste(parts[1], (0, parts[0].height))
    return both


def picture(figure: Figure) -> Image.Image:
    """A figure as it would be shown."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, bbox_inches=None, facecolor="white")
    return Image.open(file).convert("RGB")


def main() -> None:
    """Train, draw, and write the film."""
    style.use_style()
    runs = {label: record.one_seed(preset, 0) for preset, label in FILMED.items()}
    last = max(len(records) for records in runs.values()) - 1
    frames = [frame(runs, step) for step in [*range(0, last, 2), last]]
    palette = frames[-1].quantize(64)
    small = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    times = [MILLISECONDS] * (len(small) - 1) + [AT_THE_END]
    small[0].save(FILE, save_all=True, append_images=small[1:], duration=times, loop=0)
    print(f"figures/{FILE.name}: {len(small)} pictures, {FILE.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
