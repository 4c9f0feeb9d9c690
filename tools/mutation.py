"""Tests of the tests, from outside: small slips in the code, one at a time; do the tests notice?

    python tools/mutation.py [module …]      `make mutation` installs what it needs

The slips are those of cosmic-ray (an operator, a comparison, a number, a decorator, a condition),
of the kinds that mean something, and some of tensor code that it does not know: a sum for a mean,
a lost detach, another dimension. Each is tried with the tests that stand beside its module. What
survives must be named in `tests/mutation_equivalent.toml` with the reason why it changes nothing;
of the rest at least 95 % must die, or the exit status is 1.

Nothing is written to disk: every slip lives in a forked process that has imported torch and pytest
already. Tests that have found slips before go first, then the quick ones: seconds are enough for
most.
"""

import argparse
import ast
import gc
import importlib.abc
import importlib.util
import json
import os
import re
import signal
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tests" / "mutation_equivalent.toml"
ENOUGH = 0.95
SKIPPED = (ast.Raise, ast.Import, ast.ImportFrom)
BESIDE = {  # module: its tests below tests/, quick ones first
    "helpers.losses": "helpers/test_losses.py",
    "helpers.kl": "helpers/test_kl.py",
    "helpers.logprobs": "helpers/test_logprobs.py helpers/test_rollout.py",
    "helpers.advantages": "helpers/test_advantages.py helpers/test_rewards_to_go.py",
    "helpers.value_head": "helpers/test_value_head.py helpers/test_train_baselines.py",
    "helpers.scoring": "helpers/test_scoring.py helpers/test_train_gradients.py"
    " helpers/test_train_baselines.py helpers/test_probe.py helpers/test_cpu.py",
    "helpers.cpu": "helpers/test_cpu.py",
    "helpers.rollout": "helpers/test_rollout.py helpers/test_rollout_rows.py"
    " helpers/test_decoding_lean.py helpers/test_scoring.py helpers/test_probe.py",
    "helpers.decoding": "helpers/test_decoding.py helpers/test_decoding_lean.py"
    " helpers/test_scoring.py helpers/test_rollout.py helpers/test_probe.py",
    "helpers.train": "helpers/test_train_steps.py helpers/test_train_gradients.py"
    " helpers/test_train_baselines.py helpers/test_train_refusals.py helpers/test_probe.py"
    " helpers/test_checkpoints.py helpers/test_identity.py",
    "course.exact.oracle": "exact/test_oracle.py",
    "course.exact.gradients": "exact/test_gradients.py",
    "course.exact.importance": "exact/test_importance.py",
    "course.exact.off_policy": "exact/test_off_policy.py",
    "course.exact.values": "exact/test_values.py",
    "course.exact.tables": "exact/test_tables.py",
    "course.exact.td": "exact/test_td.py",
    "course.exact.baselines": "exact/test_baselines.py",
    "course.exact.ascent": "exact/test_ascent.py",
}
OPERATORS = re.compile(
    r"BinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Div|Mod_Mul|Pow_Mul|MatMult_Mul"
    r"|BitAnd_BitOr)$|ComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Is_IsNot"
    r"|IsNot_Is|In_NotIn|NotIn_In)$|UnaryOperator_Delete_|AddNot|TrueWithFalse|FalseWithTrue"
    r"|AndWithOr|OrWithAnd|BreakWithContinue|NumberReplacer|RemoveDecorator|ZeroIteration"
)
SLIPS = [  # of tensor code: a pattern, and what a tired author writes
    (r"\.sum\(", ".mean("),
    (r"\.mean\(", ".sum("),
    (r"\bamax\(", "amin("),
    (r"\bamin\(", "amax("),
    (r"\.max\(", ".min("),
    (r"\.min\(", ".max("),
    (r"\.detach\(\)", ""),
    (r"\.double\(\)", ""),
    (r"\.exp\(\)", ""),
    (r"\.log\(\)", ""),
    (r"\.abs\(\)", ""),
    (r"\.clamp\([^()]*\)", ""),
    (r"\.masked_fill\([^()]*\)", ""),
    (r"\.flip\([^()]*\)", ""),
    (r"\.all\(", ".any("),
    (r"\.any\(", ".all("),
    (r"keepdim=True", "keepdim=False"),
    (r"zeros", "ones"),
    (r"\bones", "zeros"),
    (r"-1\)", "0)"),
]


@dataclass(frozen=True)
class Mutant:
    """One slip."""

    line: int  # number, from 1
    before: str  # the line as it is
    after: str  # and with the slip; lines that a formatter joins are shown as one
    source: str  # of the whole module


def mutants(source: str) -> list[Mutant]:
    """All slips in a module, each once.

    Args:
        source: of the module.
    """
    code = _lines_of_code(source)
    found = {new: _compare(source, new) for new in _of_cosmic_ray(source)}
    found |= {one.source: one for one in mutants_of_tensor_code(source)}
    return [one for one in found.values() if one and one.line in code and _compiles(one.source)]


def mutants_of_tensor_code(source: str) -> list[Mutant]:
    """Those of `SLIPS`.

    Args:
        source: of the module.
    """
    lines, found = source.split("\n"), []
    for number in sorted(_lines_of_code(source)):
        text = lines[number - 1]
        for pattern, slip in SLIPS:
            for match in re.finditer(pattern, text):
                changed = text[: match.start()] + slip + text[match.end() :]
                new = "\n".join([*lines[: number - 1], changed, *lines[number:]])
                found.append(Mutant(number, text.strip(), changed.strip(), new))
    return found


def _of_cosmic_ray(source: str) -> Iterator[str]:
    import cosmic_ray.ast
    import cosmic_ray.plugins
    from cosmic_ray.mutating import mutate_code

    tree = cosmic_ray.ast.get_ast(source)
    nodes = list(cosmic_ray.ast.ast_nodes(tree))
    for name in filter(OPERATORS.search, cosmic_ray.plugins.operator_names()):
        operator = cosmic_ray.plugins.get_operator(name)()
        count = sum(len(list(operator.mutation_positions(node))) for node in nodes)
        for occurrence in range(count):
            changed = mutate_code(source, operator, occurrence)
            if changed is not None:
                yield changed


def _compare(source: str, changed: str) -> Mutant | None:
    pairs = zip(source.split("\n"), changed.split("\n"), strict=False)
    for number, (before, after) in enumerate(pairs, start=1):
        if before != after and after != before.replace("*,", "/,", 1):  # def f(x, *, y)
            return Mutant(number, before.strip(), after.strip(), changed)
    return None


def _lines_of_code(source: str) -> set[int]:
    """Lines whose slips count: no docstrings, no imports, no messages, no module-level calls."""
    tree = ast.parse(source)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and (text or isinstance(node, SKIPPED)):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    first = min(n.lineno for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef))
    last = max(
        n.end_lineno or 0 for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)
    )
    return set(range(first - 3, last + 1)) - skipped


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def create_module(self, spec):  # type: ignore[no-untyped-def]
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def path_of(module: str) -> Path:
    """The file of a module.

    Args:
        module: its full name.
    """
    return ROOT / (module.replace(".", "/") + ".py")


class _InOrder:
    """For pytest: which test goes first, and a note of each that ran."""

    def __init__(self, order: dict[str, float], pipe: int) -> None:
        self.order, self.pipe = order, pipe

    def pytest_collection_modifyitems(self, items: list) -> None:
        items.sort(key=lambda item: self.order.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report) -> None:  # type: ignore[no-untyped-def]
        if report.failed or report.when == "call":
            about = [report.nodeid, report.duration, report.failed]
            os.write(self.pipe, (json.dumps(about) + "\n").encode())


def dies(
    module: str,
    source: str,
    tests: list[str],
    *,
    seconds: float,
    order: dict[str, float] | None = None,
) -> bool:
    """Whether the tests fail with a module of this source, in a forked process.

    Args:
        module: full name.
        source: of it.
        tests: files below tests/.
        seconds: after which it counts as failed: a loop that never ends is noticed too.
        order: of a test's name, its place; is brought up to date: a test that failed goes before
            all others, the rest by the time that they take.
    """
    order = {} if order is None else order
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(max(1, int(seconds)))
        with open(os.devnull, "w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        sys.meta_path.insert(0, _Finder(module, path_of(module), source))
        import pytest

        slow = ("cacheprovider", "xdist", "nbval", "unraisableexception")  # to load, or at the end
        options = ["-x", "-q", "-m", "not gpu", *(f"-pno:{name}" for name in slow)]
        paths = [str(ROOT / "tests" / test) for test in tests]
        os._exit(int(pytest.main([*options, *paths], plugins=[_InOrder(order, writing)])))
    os.close(writing)
    with open(reading, encoding="utf-8") as lines:
        for name, spent, failed in map(json.loads, lines):
            order[name] = min(order.values(), default=0.0) - 1 if failed else order.get(name, spent)
    return os.waitpid(child, 0)[1] != 0


def equivalents(module: str) -> dict[tuple[str, str], str]:
    """(line, line with the slip) → why it changes nothing.

    Args:
        module: full name.
    """
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("mutant", [])
    return {(m["line"], m["becomes"]): m["why"] for m in listed if m["module"] == module}


def stale(module: str) -> list[tuple[str, str]]:
    """Entries of the list whose line the module does not have any more.

    Args:
        module: full name.
    """
    lines = {line.strip() for line in path_of(module).read_text(encoding="utf-8").split("\n")}
    return [key for key in equivalents(module) if key[0] not in lines]


def run(module: str, tests: list[str]) -> tuple[int, int, list[Mutant]]:
    """(killed, equivalent, survivors) of a module."""
    source = path_of(module).read_text(encoding="utf-8")
    started = time.perf_counter()
    order: dict[str, float] = {}
    if dies(module, source, tests, seconds=600, order=order):
        sys.exit(f"{module}: the tests fail without any slip: {tests}")
    limit = 20 + 5 * (time.perf_counter() - started)
    known, killed, equal, left = equivalents(module), 0, 0, []
    for one in mutants(source):
        if (one.before, one.after) in known:
            equal += 1
        elif dies(module, one.source, tests, seconds=limit, order=order):
            killed += 1
        else:
            left.append(one)
            print(f"    line {one.line}: {one.before}\n      became: {one.after}", flush=True)
    return killed, equal, left


def _import_libraries() -> None:
    """What the tests import, once and before all forks; our own modules are forgotten again."""
    for name in ("pytest", "tests.conftest", "helpers.train", "transformers.models.gpt2"):
        importlib.import_module(name)
    import transformers

    for name in ("GPT2LMHeadModel", "LlamaForCausalLM", "PreTrainedTokenizerFast"):
        getattr(transformers, name)  # the library imports what it is asked for
    for name in [n for n in sys.modules if n.split(".")[0] in ("helpers", "course", "tests")]:
        del sys.modules[name]
    gc.freeze()  # what all processes share is not looked through again in each


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="such as helpers.losses; all without")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    _import_libraries()
    all_killed = all_counted = 0
    for module in args.modules or BESIDE:
        started = time.perf_counter()
        killed, equal, left = run(module, BESIDE[module].split())
        counted = killed + len(left)
        all_killed, all_counted = all_killed + killed, all_counted + counted
        print(
            f"{module:26} {counted + equal:4} slips, {killed:4} killed, {equal:3} equivalent, "
            f"{len(left):3} survive: {killed / max(1, counted):6.1%} of the rest die "
            f"({time.perf_counter() - started:.0f} s)",
            flush=True,
        )
        for key in stale(module):
            print(f"    stale in {EQUIVALENT.name}: {key}")
    share = all_killed / max(1, all_counted)
    print(f"\nin all: {all_killed} of {all_counted} die, {share:.1%} (95 % are wanted)")
    return int(share < ENOUGH)


if __name__ == "__main__":
    sys.exit(main())
