"""A missing optional dependency names its remedy; an import error inside one is not hidden."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from mengya.errors import UserError
from mengya.runtime.optional import require

ROOT = Path(__file__).parents[2]


def test_a_missing_library_names_a_command_for_the_clone_and_for_elsewhere() -> None:
    with pytest.raises(UserError, match=r"no_such_library\.part is not installed") as caught:
        require("no_such_library.part", "serve")
    assert "pip install -e '.[serve]'" in str(caught.value)
    assert f"pip install -e '{ROOT}[serve]'" in str(caught.value)


def test_every_extra_that_the_code_requires_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [
        ast.literal_eval(node.args[1])
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "require"
    ]
    assert len(named) > 5
    assert set(named) <= set(project["optional-dependencies"])


def test_a_broken_library_keeps_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_library.py").write_text("import not_there_either\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_there_either"):
        require("broken_library", "serve")
