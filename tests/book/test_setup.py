"""What a newcomer types: the Makefile, README's lines, and the course's front door."""

import importlib.metadata
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from packaging.specifiers import SpecifierSet

from tools import lab, run_tests

ROOT = Path(__file__).resolve().parents[2]


def test_the_two_commands_and_their_friends_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("lab", "class", "test", "notebooks", "figures", "lint", "pretrain"):
        assert re.search(rf"^{target}: \$\(READY\)", makefile, re.M), target
    readme = (ROOT / "README.md").read_text()
    install = '-m pip install -c constraints.txt -e ".[test]"'
    assert "make lab" in readme and "make test" in readme and install in readme
    assert '-c constraints.txt -e ".[test]"' in makefile and "-m venv" in makefile
    assert "make test" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize(
    ("screen", "root"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_the_lab_is_for_this_machine_only_and_keeps_its_token(monkeypatch, screen, root):
    monkeypatch.setattr(lab, "has_screen", lambda: screen)
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000, raising=False)
    line = lab.command(["--ServerApp.port=1"])
    assert "--ServerApp.ip=127.0.0.1" in line and line[-1] == "--ServerApp.port=1"
    assert ("--allow-root" in line) == root and ("--no-browser" in line) == (not screen)
    assert not any("token" in part or "password" in part for part in line)
    assert any(lab.FIRST_PAGE in part for part in line)
    assert (ROOT / lab.FIRST_PAGE.removeprefix("/lab/tree/")).exists()


def status(address: str) -> int:
    """Of an answer, as soon as there is one."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return urllib.request.urlopen(address).status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


HOSTILE = """
c.IdentityProvider.token = ''
c.ServerApp.token = ''
c.ServerApp.password = ''
c.ServerApp.allow_unauthenticated_access = True
c.ServerApp.ip = '0.0.0.0'
"""


def test_somebodys_own_settings_do_not_switch_the_token_off(tmp_path):
    """What README promises: on this machine only, and nobody comes in without the token."""
    for name in ("jupyter_server_config.py", "jupyter_lab_config.py"):
        (tmp_path / name).write_text(HOSTILE, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "tools/lab.py", f"--ServerApp.port={port}", "--no-browser"]
    poor = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path)}
    with subprocess.Popen(
        line, cwd=ROOT, env=poor, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            address = next(
                found[0]
                for text in process.stdout
                if (found := re.search(r"http://127\.0\.0\.1:\d+/lab\S*\?token=\w{48}", text))
            )
            base, token = re.fullmatch(r"(http://[^/]+)/.*token=(\w+)", address).groups()
            assert status(f"{base}/api/contents") == 403
            assert status(f"{base}/api/contents?token={token}") == 200
        finally:
            process.terminate()
            process.stdout.read()


def test_a_class_sees_no_answer_before_it_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(lab, "CLASS", tmp_path / "class")
    folder = lab.copy_for_a_class()
    assert (folder / lab.FIRST_PAGE.removeprefix("/lab/tree/")).exists()
    for path in (folder / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert f"--ServerApp.root_dir={folder}" in lab.command([], folder)


def test_every_test_belongs_to_a_stage_that_is_run():
    lines = [
        " ".join(command) for stage in run_tests.STAGES for command in run_tests.commands(stage)
    ]
    assert any("notebooks/00_start_here.ipynb" in line and "--nbval-lax" in line for line in lines)
    assert any("build/solutions/00_start_here.ipynb" in line for line in lines)
    for marker in ("-m not mutants and not browser", "-m mutants", "-m browser"):
        assert any(marker in line for line in lines)


def test_a_run_that_ran_nothing_or_crashed_is_a_failure(tmp_path):
    assert run_tests.counts(tmp_path / "missing.xml") == (0, 1, 0)
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="0"/></testsuites>')
    assert run_tests.counts(report) == (0, 1, 0)
    report.write_text(
        '<testsuites><testsuite tests="9" failures="1" errors="1" skipped="2"/></testsuites>'
    )
    assert run_tests.counts(report) == (5, 2, 2)


def test_an_unknown_stage_is_named():
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools/run_tests.py"), "everything"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and "everything" in result.stderr


def test_every_pinned_version_runs_on_the_oldest_and_the_newest_patch_of_each_python():
    """Debian 12 has 3.11.2; what a package asks for stands in what is installed here."""
    for one in importlib.metadata.distributions():
        wanted = SpecifierSet(one.metadata["Requires-Python"] or "")
        for python in ("3.11.0", "3.11.2", "3.11.99", "3.12.0", "3.12.99", "3.13.0", "3.14.0"):
            assert wanted.contains(python), f"{one.name} {one.version} needs Python {wanted}"


@pytest.mark.skipif(os.name != "posix", reason="a POSIX locale")
def test_a_terminal_that_is_not_utf_8(tmp_path):
    """Files are UTF-8 whatever the terminal is, and no message breaks a command."""
    poor = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    poor.pop("PYTHONIOENCODING", None)
    reward = (
        "def reward(prompts, completions):\n    return [t.count('„ä“') - 1.0 for t in completions]"
    )
    (tmp_path / "own.py").write_text(reward, encoding="utf-8")
    (tmp_path / "prompts.txt").write_text("\ufeffthe film\n", encoding="utf-8")
    lines = {
        "train": [
            "--steps=1",
            f"--folder={tmp_path / 'run'}",
            f"--reward={tmp_path / 'own.py'}:reward",
        ],
        "lab": ["--version"],
    }
    lines["train"].append(f"--prompts={tmp_path / 'prompts.txt'}")
    for tool, options in lines.items():
        line = [sys.executable, f"tools/{tool}.py", *options]
        done = subprocess.run(line, cwd=ROOT, env=poor, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_course_refuses_to_run_without_asserts_and_behind_another_helpers(tmp_path):
    line = [sys.executable, "-c", "import course"]
    done = subprocess.run(
        line, cwd=ROOT, env=os.environ | {"PYTHONOPTIMIZE": "1"}, capture_output=True, text=True
    )
    assert done.returncode and "without asserts" in done.stderr
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("")
    places = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        line, cwd=tmp_path, env=os.environ | places, capture_output=True, text=True
    )
    assert done.returncode and "another `helpers` stands in the way" in done.stderr
