"""A kernel's test in Triton's interpreter, which needs no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_interpreted(code: str, minimum_triton: str | None = None) -> None:
    """Run `code` in a process of its own: the interpreter is chosen when Triton is imported."""
    pytest.importorskip("triton", minversion=minimum_triton)
    settings = {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(["src", *sys.path])}
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **settings},
    )
