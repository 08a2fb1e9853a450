"""What few runs use stays behind one seam: its name appears nowhere else in the package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import mengya

ROOT = Path(mengya.__file__).parent


@dataclass(frozen=True)
class Seam:
    """A name, as a case-insensitive pattern, and the only files that may write it.

    The key that people type in a recipe may be read anywhere, so patterns leave it out.
    """

    pattern: str
    files: frozenset[str]


SEAMS = {
    "clex": Seam(
        r"clex",
        frozenset(
            {
                "models/extensions/clex.py",
                "models/extensions/__init__.py",  # the registry
                "models/config/rope.py",  # the key: rope_type
            }
        ),
    ),
    "shifted sparse attention": Seam(
        r"shifted.?groups|shifted.?sparse(?!_ratio\b)|longlora",
        frozenset(
            {
                "models/extensions/shifted_groups.py",
                "models/extensions/__init__.py",  # the registry
                "training/run_config.py",  # the key: shifted_sparse_ratio
            }
        ),
    ),
    "streaming cache": Seam(
        r"streaming.?(cache|config|attention|llm)|cache.streaming",
        frozenset(
            {
                "models/cache/streaming.py",
                "stages/chat.py",  # the key: streaming
            }
        ),
    ),
}


def files_with(pattern: str) -> set[str]:
    found = re.compile(pattern, re.IGNORECASE)
    return {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if found.search(path.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize("name", SEAMS)
def test_its_name_appears_only_there(name: str) -> None:
    assert files_with(SEAMS[name].pattern) == SEAMS[name].files
