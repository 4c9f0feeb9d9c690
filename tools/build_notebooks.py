"""Build every notebook from its text: a reader's version and one with the solutions.

    python -m tools.build_notebooks [00 01 …]

Reads the texts in course/*/NN_*.md, writes notebooks/*.ipynb and notebooks/solutions/*.ipynb,
executed from top to bottom. A rebuild on the same machine gives the same bytes. Cells tagged
`solution` are left out for the reader; cells tagged `exercise` (the stubs) are left out of the
solutions. The tables that follow from the texts are written too (`tools/contents.py`).
"""

import argparse
import hashlib
import os
import re
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

from tools import contents

ROOT = Path(__file__).resolve().parent.parent
CELL_SECONDS = 120
LEFT_OUT = {"reader": "solution", "solutions": "exercise"}
FOLDER = {"reader": ROOT / "notebooks", "solutions": ROOT / "notebooks" / "solutions"}
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_NOTE = (
    "*Interactive: run this cell and the controls appear. "
    "A still picture of the same figure stands in this chapter.*"
)


def skeleton(source: Path, version: str) -> nbformat.NotebookNode:
    """The notebook without outputs: the cells of one version, with ids made from their text."""
    notebook = jupytext.read(source, fmt="md:myst")
    cells: list[nbformat.NotebookNode] = []
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if LEFT_OUT[version] in tags:
            continue
        cell.source = contents.fill(cell.source)
        if version == "solutions" and cell.cell_type == "markdown":  # one folder deeper
            cell.source = re.sub(r"\]\(\.\./(?!\d\d_)", "](../../", cell.source)
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cell.metadata = {"tags": tags} if tags else {}
        cells.append(cell)
    notebook.cells = cells
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def clean(notebook: nbformat.NotebookNode) -> None:
    """Drop what differs from run to run or cannot live without a kernel."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        outputs: list[nbformat.NotebookNode] = []
        for output in cell.outputs:
            if (
                output.output_type == "stream"
                and outputs
                and outputs[-1].get("name") == output.name
            ):
                outputs[-1].text += output.text
                continue
            if WIDGET in output.get("data", {}):
                # A progress bar leaves nothing to read; any other widget leaves a note.
                if re.match(r"\s*\d+%\|", output.data.get("text/plain", "")):
                    continue
                output.data = {"text/markdown": WIDGET_NOTE, "text/plain": "(interactive)"}
                output.metadata = {}
            outputs.append(output)
        cell.outputs = outputs


def build(source: Path, version: str) -> str:
    """Build, execute and write one notebook; returns a line for the terminal."""
    started = time.perf_counter()
    notebook = skeleton(source, version)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER[version])}},
    )
    client.execute()
    clean(notebook)
    target = FOLDER[version] / f"{source.stem}.ipynb"
    nbformat.validate(notebook)
    text = nbformat.writes(notebook) + "\n"
    changed = not target.exists() or target.read_text(encoding="utf-8") != text
    target.write_text(text, encoding="utf-8")
    seconds = time.perf_counter() - started
    state = "written" if changed else "unchanged"
    return f"{target.relative_to(ROOT)}  {seconds:5.1f} s  {len(text) // 1024} KB  {state}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="numbers, such as 01; default: all")
    options = parser.parse_args()
    # One thread a kernel, so that sums come out the same and two kernels do not fight.
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}
    for name in ("COURSE_MODEL", "COURSE_ZOOM"):
        os.environ.pop(name, None)
    contents.write()
    texts = contents.texts(numbers=options.chapters)
    for folder in FOLDER.values():
        folder.mkdir(exist_ok=True)
    failed = 0
    with ProcessPoolExecutor(max_workers=2) as pool:
        jobs = [pool.submit(build, source, version) for source in texts for version in FOLDER]
        for job in jobs:
            try:
                print(job.result(), flush=True)
            except Exception as error:
                failed += 1
                print(f"FAILED: {str(error)[-3000:]}", file=sys.stderr, flush=True)
    return 1 if failed or not texts else 0


if __name__ == "__main__":
    sys.exit(main())
