"""The course as a reader meets it: `make lab`, a browser, Run All, and a play with the widgets.

CHROMIUM=<path> chooses the browser, SCREENSHOTS=<dir> keeps pictures of each stage, and
REQUIRE_BROWSER=1 turns a missing browser from a skip into a failure.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import nbformat
import psutil
import pytest

try:
    from playwright.sync_api import Locator, Page, expect, sync_playwright
except ImportError:
    sync_playwright = None

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
CHAPTER_00 = "notebooks/00_start_here.ipynb"
CHAPTER_01 = "notebooks/01_autoregressive_factorization.ipynb"
START_SECONDS, RUN_SECONDS, STEP_SECONDS = 60, 120, 15
LOOSE_BOUND_MS = 1000  # 250 is the target on an idle machine

# Notes in the page itself when a key or a button went down, and when a new picture was there.
STOPWATCH = """image => {
    const clock = window.stopwatch = {start: null, end: null};
    const start = () => { clock.start ??= performance.now(); };
    for (const kind of ["keydown", "pointerdown"])
        document.addEventListener(kind, start, {capture: true, once: true});
    image.addEventListener("load", () => { clock.end = performance.now(); }, {once: true});
}"""
ELAPSED = "() => window.stopwatch.end && window.stopwatch.end - window.stopwatch.start"


# --- the server, the browser, the page ---


@pytest.fixture(scope="module")
def chromium() -> str:
    """Path of a browser; skips where there is none."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    missing = "playwright is not installed" if sync_playwright is None else None
    if not path:
        missing = f"none of {', '.join(BROWSERS)} found, and CHROMIUM is not set"
    if missing and os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(missing)
    if missing:
        print(f"browser tests skipped: {missing}")
        pytest.skip(missing)
    return path


def copy_of_the_course(root: Path) -> Path:
    """`tools/lab.py` and the notebooks without outputs, so that each output is of this run."""
    (root / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "lab.py", root / "tools")
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns("src"))
    for path in (root / CHAPTER_00, root / CHAPTER_01):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    return root


def settings_of_nobody(folder: Path) -> dict[str, str]:
    """An environment in which the settings of whoever runs the test do not count."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
    folders = (
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_RUNTIME_DIR",
        "JUPYTERLAB_SETTINGS_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
        "IPYTHONDIR",
    )
    for name in folders:
        (folder / name).mkdir(parents=True)
        environment[name] = str(folder / name)
    return environment | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def printed_address(server: subprocess.Popen) -> str:
    """The address with a token, as soon as the server prints it."""
    lines, addresses, found = [], [], threading.Event()

    def read() -> None:  # to the end, so that the pipe never fills
        for line in server.stdout:
            lines.append(line)
            if match := re.search(r"http\S+\?token=\w+", line):
                addresses.append(match.group())
                found.set()

    threading.Thread(target=read, daemon=True).start()
    assert found.wait(START_SECONDS), "no address was printed:\n" + "".join(lines)
    return addresses[0]


def stop(server: subprocess.Popen) -> None:
    """End the server, and the kernels, which are no members of its process group."""
    family = psutil.Process(server.pid).children(recursive=True)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.terminate()
        server.wait(timeout=20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    for process in psutil.wait_procs(family, timeout=2)[1]:
        process.kill()
    server.wait(timeout=10)


@pytest.fixture(scope="module")
def lab(chromium: str, tmp_path_factory: pytest.TempPathFactory):
    """A running JupyterLab on a copy of the course: (folder, printed address)."""
    folder = copy_of_the_course(tmp_path_factory.mktemp("course") / "course")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "tools/lab.py", f"--ServerApp.port={port}", "--no-browser"],
        cwd=folder,
        env=settings_of_nobody(tmp_path_factory.mktemp("jupyter")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield folder, printed_address(server)
    finally:
        stop(server)


@pytest.fixture(scope="module")
def browser(chromium: str):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def outside() -> set[str]:
    """Addresses outside this machine that a page asked for."""
    return set()


@pytest.fixture
def open_page(browser, outside: set[str]):
    """A function that opens an address in a fresh window and notes what the page complains of."""
    contexts, complaints = [], []

    def note_request(url: str) -> None:
        if urlsplit(url).hostname not in (None, "127.0.0.1"):
            outside.add(url)

    def note_message(message) -> None:
        if message.type == "error" and "widget" in f"{message.text} {message.location}":
            complaints.append(message.text)

    def open_address(address: str) -> Page:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 1000}))
        page = contexts[-1].new_page()
        page.on("request", lambda request: note_request(request.url))
        page.on("console", note_message)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield open_address
    for context in contexts:
        context.close()
    for complaint in complaints:
        print("page:", complaint)
