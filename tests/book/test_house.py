"""Rules of the house that a machine can check: who imports whom, sizes, names, docstrings."""

import ast
import functools
import io
import os
import re
import tokenize
import tomllib
from pathlib import Path

import pytest
import yaml

from course.exact import baselines
from helpers import runlog, settings, train
from tools import contents

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted([*ROOT.glob("helpers/**/*.py"), *ROOT.glob("course/**/*.py")])
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]
EVERY_FILE = sorted(
    [*MODULES]
    + [
        path
        for folder in ("tests", "tools", "benchmarks")
        for path in ROOT.glob(f"{folder}/**/*.py")
    ]
)
PARTS = ("worlds", "exact", "kit")  # of `course`, each importing only those before it, and itself
ROOM_FILES = {"figures.py", "widgets.py", "checks.py"}
MOST_MODULES, MOST_LINES, MOST_LINES_OF_CONTRACT, LONGEST = 18, 2600, 220, 45
MOST_BRANCHES = 14  # `if`s in the five stations and the step of the loop
ONLY_HERE = {
    "transformers": {"helpers/models.py", "helpers/decoding.py", "course/worlds/tiny_models.py"},
    "matplotlib": {"course/kit/", "course/ch"},
    "IPython": {"course/kit/", "course/ch"},
    "ipywidgets": {"course/kit/", "course/ch"},
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


def house_of(name: str) -> str | None:
    """Where in the house a dotted name is: helpers, worlds, exact, kit, a room; None: outside."""
    first, *rest = name.split(".")
    if first == "helpers":
        return first
    return rest[0] if first == "course" and rest else None


def allowed(house: str) -> set[str]:
    """What a module of this part of the house may import, besides other people's libraries."""
    if house == "helpers":
        return {"helpers"}
    if house in PARTS:
        return {"helpers", *PARTS[: PARTS.index(house) + 1]}
    return {"helpers", *PARTS, house}


def imports_of(source: str) -> list[tuple[str, str | None]]:
    """(dotted name, the name that it is given) of everything that is imported, anywhere."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, alias.asname) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [(f"{node.module}.{alias.name}", alias.asname) for alias in node.names]
    return found


def is_module(name: str) -> bool:
    """Whether a dotted name is a module of the house."""
    return ROOT.joinpath(*name.split(".")).with_suffix(".py").exists()


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code: no comment, no docstring, nothing empty."""
    empty = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in empty:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def public_functions(path: Path):
    """Functions and methods that a reader may call: (qualified name, node)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


# -------------------------------------------------------------------------- who imports whom


def broken_imports(place: str, source: str) -> list[str]:
    """What a module at this place may not import, in words.

    Args:
        place: of the module, such as helpers/train.py.
        source: its code.
    """
    house = house_of(place.removesuffix(".py").replace("/", "."))
    found = []
    for name, _ in imports_of(source):
        other = house_of(name)
        if house is not None and other is not None and other not in allowed(house):
            found.append(f"{place} imports {name}: {house} may import {sorted(allowed(house))}")
        places = ONLY_HERE.get(name.split(".")[0])
        if places and not place.startswith(tuple(places)):
            found.append(f"{place} imports {name}: only {sorted(places)} may")
        if name.startswith("matplotlib.pyplot"):
            found.append(f"{place} imports pyplot: figures are objects, pyplot is global state")
    return found


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_imports_go_one_way_and_no_room_imports_another(path):
    assert not broken_imports(str(path.relative_to(ROOT)), path.read_text())


@pytest.mark.parametrize(
    ("place", "line", "words"),
    [
        ("helpers/train.py", "from course.exact import oracle", "helpers may import"),
        ("helpers/train.py", "import course.worlds.reviews", "helpers may import"),
        ("course/worlds/rewards.py", "from course.exact import oracle", "worlds may import"),
        ("course/exact/oracle.py", "from course.kit import style", "exact may import"),
        ("course/kit/live.py", "from course.ch05_reinforce import figures", "kit may import"),
        ("course/ch05_reinforce/checks.py", "from course.ch06_baselines import checks", "ch05"),
        ("helpers/rollout.py", "import transformers", "only"),
        ("helpers/rollout.py", "def f():\n    from matplotlib import style", "only"),
        ("course/kit/style.py", "import matplotlib.pyplot as plt", "global state"),
        ("course/kit/style.py", "from matplotlib import pyplot", "global state"),
    ],
)
def test_a_wrong_import_would_be_seen(place, line, words):
    assert words in " ".join(broken_imports(place, line))


def test_a_chapters_notebook_imports_from_no_other_room():
    for path in contents.texts():
        rooms = set(re.findall(r"^from course\.(ch\w+)", path.read_text(), re.M))
        assert rooms <= {path.parent.name}, path.name


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_functions_are_called_through_their_module(path):
    """`from helpers import x`, then `x.f(...)`: the data flow shows where a thing is from."""
    for name, _ in imports_of(path.read_text()):
        if "." in name and house_of(name) is not None and not is_module(name):
            thing = name.rsplit(".", 1)[1]
            assert not thing.islower(), f"{name}: import the module, not {thing}"


@pytest.mark.parametrize("path", EVERY_FILE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_renamed_and_no_local_takes_its_name(path):
    source = path.read_text()
    modules = {name.rsplit(".", 1)[-1] for name, _ in imports_of(source) if is_module(name)}
    for name, given in imports_of(source):
        assert given is None or not is_module(name), f"{name} is renamed to {given}"
    bound = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
    assert not bound & modules, "a local has the name of a module that is imported here"


# ------------------------------------------------------------------------------------- sizes


def test_the_loop_is_small_enough_to_take_home():
    modules = [path for path in ROOT.glob("helpers/**/*.py") if path.name != "__init__.py"]
    assert 10 < len(modules) <= MOST_MODULES
    sizes = {path.name: len(code_lines(path.read_text())) for path in modules}
    assert sizes.pop("contract.py") <= MOST_LINES_OF_CONTRACT  # it serves `course` as well
    assert sum(sizes.values()) <= MOST_LINES


@pytest.mark.parametrize("path", EVERY_FILE, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_stay_small(path):
    source = path.read_text()
    lines = code_lines(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            length = len(lines & set(range(node.lineno, node.end_lineno + 1)))
            assert length <= LONGEST, f"{node.name} has {length} lines of code"


def test_the_formatter_is_switched_off_for_tables_only():
    for path in EVERY_FILE:
        source = path.read_text()
        if "fmt: " not in source or path == Path(__file__):
            continue
        for node in ast.parse(source).body:
            part = ast.get_source_segment(source, node) or ""
            is_table = isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(
                node.value, ast.Dict | ast.List | ast.Tuple
            )
            assert "fmt: " not in part or is_table, f"{path.name}:{node.lineno}"


def test_the_loop_does_not_grow_branches():
    """A variant of the loop is a subclass or a loss in its chapter's room (CONTRIBUTING)."""
    tree = ast.parse((ROOT / "helpers" / "train.py").read_text())
    [loop] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Loop"]
    branches = [n for n in ast.walk(loop) if isinstance(n, ast.If | ast.IfExp)]
    assert len(branches) <= MOST_BRANCHES, "make a subclass instead"


# ------------------------------------------------------------------------------------- names


def test_file_names_say_what_is_inside():
    for path in EVERY_FILE:
        stem = path.stem
        assert not re.search(r"(^|_)(utils?|misc|common|stuff|helpers?|tools?)(_|$)", stem), stem
        assert not re.search(r"\d[a-z]$|chapter\d|_b$|_?part_?\d", stem), f"{stem}: more of what?"


def test_a_room_has_fixed_names_and_readme_knows_the_others():
    readme = (ROOT / "README.md").read_text()
    for text in contents.texts():
        if text.name >= contents.INDEXES:
            continue
        room = text.parent
        assert room.name.startswith(f"ch{text.name[:2]}_"), room.name
        for path in room.glob("*.py"):
            assert path.name in ROOM_FILES or f"  {path.name} " in readme, path.name


def test_readme_shows_every_file_in_at_most_eight_words():
    [tree] = re.findall(r"^```\n(helpers/ .*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    folder, shown = "", {}
    for line in filter(None, tree.splitlines()):
        name, what = re.fullmatch(r"( *\S+)(?: +(\S.*))?", line).groups()
        if not name.startswith(" "):
            folder = name
        shown[folder + name.strip() if name.startswith(" ") else name] = what or ""
        assert len((what or "").split()) <= 8, line
    for path in MODULES:
        name = str(path.relative_to(ROOT))
        is_known = name in shown or path.name == "__init__.py" or path.name in ROOM_FILES
        assert is_known, f"{name} is not in README's list"
    for name in shown:
        if "…" not in name:
            assert (ROOT / name).exists(), f"{name} is in README's list, and nowhere else"


def test_baselines_have_one_slug_and_one_label_each():
    labels = [each.label for each in baselines.FAMILY.values()]
    assert len(set(labels)) == len(labels)
    for name, each in {**settings.BASELINES, **baselines.FAMILY}.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name), name
        assert each.label
    for name, each in settings.BASELINES.items():
        if name in baselines.FAMILY:
            both = (each.label, each.alone)
            assert both == (baselines.FAMILY[name].label, baselines.FAMILY[name].alone)
    # one level for all prompts in the loop, one for each prompt in the oracle: two names
    assert set(settings.BASELINES) - set(baselines.FAMILY) == {"running_mean"}


def test_readers_find_what_they_use():
    assert train.Config is settings.Config and train.Record is runlog.Record
    assert callable(train.train) and callable(train.Loop.step) and train.Reward


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_no_pickle_no_evaluation_no_global_seed(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "torch.load", "torch.save", "pickle.load"}
            if called == "torch.manual_seed":
                assert "fork_rng" in path.read_text(), "a global seed without fork_rng"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_names_are_the_fields(path):
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
    assert "torch==2.13.0" in lines and "torch>=2.11" in project["dependencies"]


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
