"""Open the course in JupyterLab: on this machine only, with a token.

    python tools/lab.py [--class] [--ServerApp.port=8899 and other options of `jupyter lab`]

With --class it opens a copy for a lecture: no outputs, so that no picture answers a question
before it is asked, and figures half as large again.
An option that is given here takes the place of the course's own. Without a screen (a container,
an ssh session) nothing is opened; the address to open is printed.
"""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLASS = ROOT / "build" / "class"
SERVER_SETTINGS = ROOT / "tools" / "jupyter" / "server_settings.py"
FIRST_PAGE = "/lab/tree/notebooks/00_start_here.ipynb"


def has_screen() -> bool:
    """Whether a browser can be opened here."""
    if sys.platform in ("win32", "darwin"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def copy_for_a_class() -> Path:
    """The reader's notebooks without outputs, made anew, and what they read from disk."""
    import nbformat

    shutil.rmtree(CLASS, ignore_errors=True)
    shutil.copytree(ROOT / "notebooks", CLASS / "notebooks")
    for path in (CLASS / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    return CLASS


def command(extra: list[str], root: Path = ROOT) -> list[str]:
    """The command line of JupyterLab for this machine."""
    line = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url={FIRST_PAGE}",
        "--ServerApp.ip=127.0.0.1",
        # No look for updates: the course works without a network, and asks nobody.
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        line.append("--allow-root")
    if not has_screen():
        line.append("--no-browser")
    given = {option.split("=")[0] for option in extra}
    given |= {"--ServerApp.ip"} if "--ip" in given else set()
    if not given & {"--IdentityProvider.token", "--ServerApp.token", "--config"}:
        line.append(f"--config={SERVER_SETTINGS}")
    return [option for option in line if option.split("=")[0] not in given] + extra


if __name__ == "__main__":
    if os.environ.pop("PYTHONOPTIMIZE", ""):
        print("PYTHONOPTIMIZE is left out: it would switch the checks of the notebooks off.")
    os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    # JupyterLab's question about news would lie over the first page: tools/jupyter says no to it.
    settings = [str(ROOT / "tools" / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, settings))
    if shutil.which("jupyter-lab") is None:
        sys.exit("JupyterLab is not installed here: run `make lab`, or the pip lines in README.md.")
    if not has_screen():
        print("No screen here. Open the address with ?token=... below in a browser.", flush=True)
    options = sys.argv[1:]
    if in_class := "--class" in options:
        options.remove("--class")
        os.environ.setdefault("COURSE_ZOOM", "1.5")
    arguments = command(options, copy_for_a_class() if in_class else ROOT)
    if sys.platform == "win32":
        import subprocess

        sys.exit(subprocess.call(arguments))
    os.execv(arguments[0], arguments)
