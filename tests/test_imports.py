"""Imports point down: a package imports only from lower rows, and siblings never import one another."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import mengya

ROOT = Path(mengya.__file__).parent
# From the bottom up; packages of one row are siblings.
ROWS = [
    {"config", "runtime", "batch", "folder_lock", "output_folder"},
    {"tokenizer", "world"},
    {"models", "losses", "data"},
    {"generation"},
    {"training", "evaluation", "quantization", "serving"},
    {"stages"},
    {"cli"},
]
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}


def imports_of(path: Path) -> set[str]:
    """The mengya packages that a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {n.split(".")[1] for n in names if n.startswith("mengya.")}


def test_imports_point_down() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        package = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if package in ("__init__", "__main__"):
            continue
        for other in imports_of(path) - {package}:
            inside_lowest_row = RANK[package] == RANK[other] == 0
            if RANK[other] >= RANK[package] and not inside_lowest_row:
                wrong.append(f"{path.relative_to(ROOT)} imports mengya.{other}")
    assert not wrong, "\n".join(wrong)


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys, mengya.cli; "
        "print([m for m in ('torch', 'transformers', 'numpy', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
