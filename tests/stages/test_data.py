"""`mengya data VERB` as it is typed: help of the group, keys, tables, and errors without a traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mengya import cli


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["mengya", "data", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_group_and_its_verbs_have_help() -> None:
    shown = CliRunner().invoke(cli.app, ["data", "--help"], env={"COLUMNS": "80"}).stdout
    assert all(verb in shown for verb in ("list", "show", "get")) and "Download" in shown
    shown = CliRunner().invoke(cli.app, ["data", "get", "--help"], env={"COLUMNS": "100"}).stdout
    assert "usage: mengya data get NAME [RECIPE.yaml] [key.sub=value ...]" in shown
    shown = CliRunner().invoke(cli.app, ["data", "get", "--keys"]).stdout
    assert "rows: integer | null = null" in shown


def test_commands_and_their_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("MENGYA_REGISTRY", raising=False)
    assert typed(monkeypatch, "list", "kind=exam") == 0
    printed = capsys.readouterr().out
    assert "ceval" in printed and "CC BY-NC-SA 4.0" in printed and "skypile" not in printed
    assert typed(monkeypatch, "show", "ceval") == 0
    assert "mengya data get ceval out=data/ceval" in capsys.readouterr().out
    assert typed(monkeypatch, "get", "cevall", f"out={tmp_path / 'x'}") == 2
    assert "did you mean ceval?" in capsys.readouterr().err
    assert typed(monkeypatch, "get", "ceval") == 2
    message = capsys.readouterr().err
    assert "configuration of `data get`" in message and "write out=PATH" in message
    assert typed(monkeypatch, "list", "kind=txt", "serch=a") == 2
    message = capsys.readouterr().err
    assert "2 problems" in message and "did you mean 'search'?" in message
