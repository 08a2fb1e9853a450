"""What few runs use stays behind its registry: its name appears nowhere else in the package."""

from __future__ import annotations

from pathlib import Path

import pytest

import mengya

ROOT = Path(mengya.__file__).parent

# name -> the files that may say it: its own, the registry, and the settings that users type.
SEAMS = {
    "galore": {f"training/optim/{name}.py" for name in ("galore", "registry", "config")},
    "deepspeed": {
        *(
            f"training/distributed/{name}.py"
            for name in ("deepspeed", "deepspeed_config", "registry", "config")
        ),
        "cli.py",  # an argument that its launcher adds
    },
}


@pytest.mark.parametrize("name", SEAMS)
def test_the_name_is_said_nowhere_else(name: str) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*")
        if path.suffix in (".py", ".yaml", ".jinja") and name in path.read_text("utf-8").lower()
    }
    assert files - SEAMS[name] == set()
    assert any(name in file for file in files), "the implementation has moved"
