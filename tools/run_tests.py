"""Run everything and print a summary: what `make test` does.

    python tools/run_tests.py [stage …]

Stages, in this order: lint, unit, mutants, notebooks, browser. All are run even if one fails; the
exit status is 1 then. The notebooks stage executes every cell of the readers' notebooks, and the
solutions and checks with the cells that these need; the browser stage runs chapter 00 in
JupyterLab, and the widgets of the others.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest", "-q", "--durations=5"]
NBVAL = [*PYTEST, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120"]
# The cells of one notebook stay on one worker, and a chapter's two versions run side by side.
PARALLEL = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]


def commands(stage: str) -> list[list[str]]:
    """The command lines of a stage."""
    names = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    folders = ("notebooks", "build/solutions")  # the latter made by the line before
    notebooks = [f"{folder}/{name}" for name in names for folder in folders if name < "90"]
    return {
        "lint": [
            [sys.executable, "-m", "ruff", "check", "."],
            [sys.executable, "-m", "ruff", "format", "--check", "."],
            [sys.executable, "-m", "mypy"],
        ],
        "unit": [[*PYTEST, "-m", "not mutants and not browser", "-n", "2", "tests"]],
        "mutants": [[*PYTEST, "-m", "mutants", "-n", "2", "tests/book"]],
        "notebooks": [
            [sys.executable, "tools/needed_cells.py"],
            [*NBVAL, *PARALLEL, *notebooks],
        ],
        "browser": [[*PYTEST, "-rs", "-s", "-m", "browser", "tests/book/test_browser.py"]],
    }[stage]


STAGES = ("lint", "unit", "mutants", "notebooks", "browser")


def counts(report: Path) -> tuple[int, int, int]:
    """(passed, failed, skipped) of a JUnit report; nothing run counts as one failure."""
    if not report.exists():
        return 0, 1, 0
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total = sum(int(s.get("tests", 0)) for s in suites)
    failed = sum(int(s.get("failures", 0)) + int(s.get("errors", 0)) for s in suites)
    skipped = sum(int(s.get("skipped", 0)) for s in suites)
    return (0, 1, 0) if total == 0 else (total - failed - skipped, failed, skipped)


def run(stage: str, environment: dict[str, str]) -> tuple[int, int, int, float]:
    """Run one stage; (passed, failed, skipped, seconds)."""
    started, passed, failed, skipped = time.perf_counter(), 0, 0, 0
    for command in commands(stage):
        print(f"\n=== {stage}: {re.sub(r'^.*?-m ', '', ' '.join(command))}"[:160], flush=True)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            extra = [f"--junitxml={report}"] if "pytest" in command else []
            status = subprocess.run([*command, *extra], cwd=ROOT, env=environment).returncode
            good, bad, left = counts(report) if extra else (int(status == 0), int(status != 0), 0)
        bad = max(bad, int(status != 0))  # a crash after the last test is a failure too
        passed, failed, skipped = passed + good, failed + bad, skipped + left
    return passed, failed, skipped, time.perf_counter() - started


def main() -> int:
    stages = sys.argv[1:] or STAGES
    unknown = set(stages) - set(STAGES)
    if unknown:
        sys.exit(f"unknown stages {sorted(unknown)}; there are {', '.join(STAGES)}")
    # One thread a process: two of them fill two cores, and sums come out the same every time.
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name in ("COURSE_MODEL", "COURSE_ZOOM"):
        environment.pop(name, None)
    # Without compiled modules each of the many kernels would compile torch and transformers anew.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    results = {stage: run(stage, environment) for stage in stages}
    print("\nsummary")
    for stage, (passed, failed, skipped, seconds) in results.items():
        print(f"  {stage:10} {passed:4} ok {failed:4} bad {skipped:4} skipped {seconds:7.0f} s")
    passed, failed, skipped = (int(sum(r[k] for r in results.values())) for k in range(3))
    print(f"  {'':10} {sum(r[3] for r in results.values()):.0f} s in all\n")
    print(f"total: {passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
