"""Write the pictures of figures/ from the outputs of the executed notebooks.

python -m tools.make_figures
"""

import base64
from pathlib import Path

import nbformat

from tools import contents

ROOT = Path(__file__).resolve().parent.parent


def figures() -> dict[str, tuple[str, str]]:
    """File → the notebook and a string in the cell that draws it, as the texts say."""
    found = [contents.read(path) for path in contents.texts()]
    return {
        text.figure["file"]: (text.path.stem, text.figure["cell"]) for text in found if text.figure
    }


def picture(notebook: str, marker: str) -> bytes:
    """The PNG that the first cell with this marker has put out."""
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    for cell in cells:
        if cell.cell_type == "code" and marker in cell.source:
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    raise ValueError(f"no cell of {notebook} with {marker!r} has put out a picture.")


if __name__ == "__main__":
    for file, source in figures().items():
        (ROOT / "figures" / file).write_bytes(picture(*source))
        print(f"figures/{file}")
