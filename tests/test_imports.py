"""Imports point down, siblings never import one another, and no imports form a cycle, lazy ones included."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import mengya

ROOT = Path(mengya.__file__).parent
# From the bottom up; packages of one row are siblings.
ROWS = [
    {"config", "runtime", "batch", "errors", "version"},
    {"kernels", "text", "tokenizer", "world", "endpoint"},
    {"models", "losses", "rewards", "data"},
    {"generation", "web", "measured"},
    {"training", "evaluation", "quantization", "export", "serving", "synthesis", "board"},
    {"planning"},
    {"stages"},
    {"cli", "api"},
]
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports_of(path: Path) -> set[str]:
    """The modules of mengya that a file imports, at its top or inside functions, types alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in for_types_only:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in MODULES else str(node.module))
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & MODULES.keys()


IMPORTS = {name: imports_of(path) - {name} for name, path in MODULES.items()}


def test_imports_point_down() -> None:
    wrong = []
    for module, imported in IMPORTS.items():
        if module in ("mengya", "mengya.__main__"):
            continue
        package = module.split(".")[1]
        for other in sorted(imported - {"mengya"}):
            lower = other.split(".")[1]
            inside_lowest_row = RANK[package] == RANK[lower] == 0
            if lower != package and RANK[lower] >= RANK[package] and not inside_lowest_row:
                wrong.append(f"{module} imports {other}")
    assert not wrong, "\n".join(wrong)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = lowest[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], index[other])
        if lowest[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_a_cycle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert cycles(graph) == [["b", "c"]]


def test_no_imports_form_a_cycle() -> None:
    assert not cycles(IMPORTS)


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys, mengya.cli; "
        "print([m for m in ('torch', 'transformers', 'numpy', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
