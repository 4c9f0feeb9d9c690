"""Write the pictures of figures/ from the outputs of the executed notebooks.

python tools/make_figures.py
"""

import base64
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
FIGURES = {  # file → (notebook, a string in the cell that draws it)
    "the_loop.png": ("00_start_here", "figures.loop_diagram()"),
    "prefix_tree.png": ("01_autoregressive_factorization", "figures.prefix_tree("),
    "imitation.png": ("02_from_loss_to_reward", 'alt="The loss falls'),
    "value_tree.png": ("03_token_mdp", "figures.colored_tree("),
    "gradient_cloud.png": ("05_reinforce", "figures.gradient_cloud("),
    "baselines.png": ("06_baselines_and_advantage", "widgets.compare_baselines("),
    "off_policy.png": ("04_on_and_off_policy", "widgets.compare_estimators("),
    "gamed.png": ("07_reinforce_on_a_language_model", 'title="recorded: praise, no KL"'),
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
    for file, source in FIGURES.items():
        (ROOT / "figures" / file).write_bytes(picture(*source))
        print(f"figures/{file}")
