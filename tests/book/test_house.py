"""Rules of the house that a machine can check: floors, names, docstrings, cleanliness."""

import ast
import functools
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "helpers").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]

# A module may import from lower floors, and on its own floor what stands before it.
FLOORS = [
    ["logprobs", "kl", "importance", "advantages", "losses"],
    [
        "grammar",
        "worlds",
        "rewards",
        "exact",
        "values",
        "tabular",
        "learning",
        "moments",
        "estimators",
        "ascent",
        "baselines",
    ],
    [
        "models",
        "caches",
        "graphs",
        "rollout",
        "pretraining",
        "microbatches",
        "reference",
        "value_head",
        "checkpoints",
        "settings",
        "processes",
        "train",
        "runlog",
        "devices",
    ],
    ["plotting", "widgets", "checks"],
]
ORDER = [name for floor in FLOORS for name in floor]
ONLY_HERE = {
    "transformers": {"caches", "models"},
    "matplotlib": {"plotting"},
    "ipywidgets": {"widgets"},
    "IPython": {"plotting"},
}
FORBIDDEN_NAMES = {
    "actor",
    "agent",
    "scores_",
    "preds",
    "logp_old",
    "query",
    "response",
    "generation",
    "action_mask",
    "labels_mask",
    "response_mask",
    "replay_buffer",
    "episode",
    "experience",
    "num_generations",
    "num_rollouts",
    "critic",
    "coef_1",
}


def module_of(path: Path) -> str:
    return path.relative_to(ROOT / "helpers").parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "helpers" else {node.module}
    return found


def public_functions(path: Path):
    """Functions and methods that a reader may call: (qualified name, node)."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_imports_go_downwards_only(path):
    own = module_of(path)
    if own == "__init__":
        assert not imports_of(path), "helpers/__init__.py imports nothing"
        return
    assert own in ORDER, f"{own} has no floor: add it to FLOORS"
    for name in imports_of(path):
        package, _, rest = name.partition(".")
        if package == "helpers" and rest and rest.split(".")[0] != own:
            assert ORDER.index(rest.split(".")[0]) < ORDER.index(own), f"{own} imports {name}"
        if package in ONLY_HERE:
            assert own in ONLY_HERE[package], f"{own} imports {package}"
        assert name != "matplotlib.pyplot", "figures are objects; pyplot is global state"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_helpers_are_called_through_their_module(path):
    """`from helpers import x`, then `x.f(...)`: the data flow shows where a thing is from."""
    own = f"helpers.{module_of(path)}."  # the parts of one package may know each other
    for node in ast.walk(ast.parse(path.read_text())):
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        if module.startswith("helpers.") and not f"{module}.".startswith(own):
            lower_case = [a.name for a in node.names if a.name.islower()]
            assert not lower_case, f"{node.module}: import the module, not {lower_case}"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_no_pickle_no_evaluation_no_global_seed(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "torch.load", "torch.save", "pickle.load"}
            if called == "torch.manual_seed":
                assert "fork_rng" in path.read_text(), "a global seed without fork_rng"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_names_are_the_houses(path):
    tree = ast.parse(path.read_text())
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    used |= {a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)}
    assert not used & FORBIDDEN_NAMES


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_public_docstrings_name_every_argument_and_give_shapes(path):
    for name, node in public_functions(path):
        doc = ast.get_docstring(node) or ""
        assert doc, f"{name} has no docstring"
        arguments = [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.arg != "self"]
        if len(arguments) > 3 or "Args:" in doc:
            assert "Args:" in doc, f"{name}: no Args section"
            for argument in arguments:
                assert re.search(rf"^\s+{argument}\b.*:", doc, re.M), f"{name}: {argument}?"
        returns = ast.unparse(node.returns) if node.returns else ""
        takes = " ".join(ast.unparse(a.annotation) for a in node.args.args if a.annotation)
        if "Tensor" in returns and "Tensor" in takes and "Callable" not in returns:
            assert re.search(r"\(\.\.\.\)|\((\w|…)?[^()]*\) (float|int|bool|nats|integer)", doc), (
                f"{name}: the docstring gives no shape and type of what it returns"
            )
        raises = any(isinstance(n, ast.Raise) and n.exc for n in ast.walk(node))
        if raises:
            assert "Raises:" in doc, f"{name} raises and does not say so"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_modules_and_functions_stay_small(path):
    most = 450 if path.parent.name == "checks" else 400  # a chapter's checkers are one file
    assert len(path.read_text().splitlines()) <= most, "split the module"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            doc = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno - doc.count("\n")
            assert length <= 60, f"{node.name} has {length} lines without its docstring"


def test_environment_yml_is_kept_in_step():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python, pip, lines = environment["dependencies"]
    assert pip == "pip" and lines == {"pip": ["-c constraints.txt", "-e .[test]"]}
    assert python.startswith("python=3.") and project["requires-python"] == ">=3.11"
    assert int(python.removeprefix("python=3.")) >= 11
    assert environment["name"] == project["name"]


def test_every_dependency_is_pinned_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.]+", line) for line in lines)
    pins = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert len(pins) == len(lines)
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    for requirement in wanted:
        assert re.split(r"[<>=!]", requirement)[0].lower() in pins, requirement
    assert "torch==2.13.0" in lines and "torch==2.13.0" in project["dependencies"]


@functools.cache
def tracked_text() -> tuple[Path, ...]:
    suffixes = {".py", ".md", ".toml", ".yml", ".txt", ".cff", ".ipynb", ".json", ""}
    found = []
    for folder, inner, files in os.walk(ROOT):
        keep = [name for name in inner if not re.search(r"^\.(?!ci)|egg-info|__pycache__", name)]
        inner[:] = keep  # do not walk through the virtual environment
        files = [file for file in files if file != ".git"]  # of a worktree
        found += [Path(folder) / file for file in files if Path(file).suffix in suffixes]
    return tuple(found)


def test_no_machine_paths_and_no_registry_hosts():
    pattern = re.compile(r"(/(?:root|Users|tmp|work|opt)/\w|/home/\w+/|pypi\.org|file://)")
    for path in tracked_text():
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1):
            if '"image/png": "' in line:
                continue  # base64
            assert not pattern.search(line), f"{path.relative_to(ROOT)}:{number}: {line[:120]}"


def test_file_names_do_not_collide():
    assert len(tracked_text()) > 60, "the walk lost the files"
    names = [str(p.relative_to(ROOT)).lower().replace("-", "_") for p in tracked_text()]
    assert len(names) == len(set(names))
