"""The part of a notebook that some of its cells need: its widgets, or its solutions.

A cell needs the earlier cells that bind or change the names it uses; those need theirs, and so on
to the set-up cell. Not seen is what a function does to its arguments, and how many random numbers
the cells in between have drawn.

    python tools/needed_cells.py    writes build/solutions: what the solutions and checks need
"""

import ast
import re
import symtable
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS = ROOT / "build" / "solutions"

WIDGET = re.compile(r"widgets\.[A-Z]\w*\(")
REBINDS = (ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def is_widget(source: str) -> bool:
    """Whether the value of a cell, its last line, is one of the course's widgets."""
    body = ast.parse(source).body
    return bool(body and isinstance(body[-1], ast.Expr) and WIDGET.match(ast.unparse(body[-1])))


def binds(statement: ast.AST) -> set[str]:
    """Names that a statement binds at the top level, as loops and imports do too."""
    table = symtable.symtable(ast.unparse(statement), "cell", "exec")
    return {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}


def reads(statement: ast.AST) -> set[str]:
    """Names that a statement reads, those of its functions that are not their own included."""
    tables = [symtable.symtable(ast.unparse(statement), "cell", "exec")]
    found = {s.get_name() for s in tables[0].get_symbols() if s.is_referenced()}
    for table in tables:
        tables += table.get_children()
        found |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    grown = [n.target for n in ast.walk(statement) if isinstance(n, ast.AugAssign)]
    return found | {target.id for target in grown if isinstance(target, ast.Name)}


def changes(statement: ast.AST) -> set[str]:
    """Names whose object a statement writes into: `x.a = …`, `x[i] += …`, `x.append(…)`."""
    places = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            places.append(ast.unparse(node.value.func))
        elif isinstance(getattr(node, "ctx", None), ast.Store):
            places.append(ast.unparse(node))
    return {match[1] for place in places if (match := re.match(r"(\w+)[.\[]", place))}


def needed(sources: Sequence[str], wanted: Callable[[str], bool] = is_widget) -> list[int]:
    """Which code cells of a notebook are wanted or needed by one that is, in order."""
    cells = [ast.parse(source).body for source in sources]
    imports = [s for cell in cells for s in cell if isinstance(s, ast.Import | ast.ImportFrom)]
    modules = set().union(*map(binds, imports))
    kept: list[int] = []
    names: set[str] = set()  # that later cells read
    for number in reversed(range(len(cells))):
        touched = set().union(*(binds(s) | (changes(s) - modules) for s in cells[number]))
        if not (wanted(sources[number]) or touched & names):
            continue
        kept.append(number)
        for statement in reversed(cells[number]):
            if isinstance(statement, REBINDS):
                names -= binds(statement)
            names |= reads(statement)
    return kept[::-1]


def for_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The code cells of a notebook that its solutions and their checks need, and no text."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    sources = [cell.source for cell in cells]
    solved = {c.source for c in cells if "solution" in c.metadata.get("tags", [])}
    kept = needed(sources, lambda s: s in solved or "checks.exercise_" in s)
    notebook.cells = [cells[number] for number in kept]
    return notebook


if __name__ == "__main__":
    SOLUTIONS.mkdir(parents=True, exist_ok=True)
    for path in (ROOT / "notebooks" / "solutions").glob("[0-8]*.ipynb"):
        nbformat.write(for_solutions(nbformat.read(path, as_version=4)), SOLUTIONS / path.name)
