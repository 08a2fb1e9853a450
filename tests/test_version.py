"""Shards and checkpoints name the version that wrote them; a newer format is refused, none is version 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mengya
from mengya.data.shards import TokenShards
from mengya.stages.sft import SftConfig, run
from mengya.training.checkpoint.integrity import seal
from tests.helpers.stage_fixtures import StageFixtures
from tests.stages.conftest import fixtures, tokenizer_folder

__all__ = ["fixtures", "tokenizer_folder"]

REFUSED = (
    rf"written by mengya 9\.0\.0; this is mengya {mengya.__version__}, which reads formats up to 1"
)


def rewrite(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    values = {**json.loads(path.read_text("utf-8")), **changes}
    values = {key: value for key, value in values.items() if value is not None}
    path.write_text(json.dumps(values), "utf-8")


def test_shards(fixtures: StageFixtures, tmp_path: Path) -> None:
    for file in fixtures.shards["text"][0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert TokenShards(tmp_path).manifest["mengya_version"] == mengya.__version__
    rewrite(tmp_path / "manifest.json", mengya_version=None)
    assert len(TokenShards(tmp_path)) > 0
    rewrite(tmp_path / "manifest.json", format="mengya-shards-2", mengya_version="9.0.0")
    with pytest.raises(mengya.UserError, match=f"format 2, {REFUSED}"):
        TokenShards(tmp_path)
    rewrite(tmp_path / "manifest.json", format="other-shards-1")
    with pytest.raises(mengya.UserError, match="not the manifest of a mengya shard folder"):
        TokenShards(tmp_path)


def test_checkpoints(fixtures: StageFixtures, tmp_path: Path) -> None:
    def train(steps: int) -> None:
        settings = fixtures.settings("conversation", tmp_path / "run", max_steps=steps, resume=True)
        run(SftConfig(**settings))

    latest = tmp_path / "run" / "checkpoints" / "latest"
    state = latest / "trainer" / "state.json"
    train(1)
    assert json.loads(state.read_text("utf-8"))["mengya_version"] == mengya.__version__
    rewrite(state, format=None, mengya_version=None)  # as an earlier version wrote it
    seal(latest.resolve())
    train(2)
    assert json.loads(state.read_text("utf-8"))["step"] == 2
    rewrite(state, format=2, mengya_version="9.0.0")
    seal(latest.resolve())
    with pytest.raises(mengya.UserError, match=f"format 2, {REFUSED}"):
        train(3)
