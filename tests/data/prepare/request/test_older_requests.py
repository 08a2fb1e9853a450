"""Shards that an earlier version of mengya prepared are used as they are, and made again when asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mengya.data.prepare.request.inputs import VERSION
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig, run
from tests.helpers.json_lines import write_lines


def prepare(tmp_path: Path, tokenizer: Path, **more: Any) -> None:
    config = {
        "out": tmp_path / "out",
        "tokenizer": tokenizer,
        "sources": str(tmp_path / "a.jsonl"),
        "workers": 1,
        **more,
    }
    run(PrepareConfig.model_validate(config))


def test_shards_of_version_one(
    tmp_path: Path, tokenizer_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": f"春天来了，第{i}天。"} for i in range(20)])
    prepare(tmp_path, tokenizer_folder)
    path = tmp_path / "out/prepare.json"
    saved = json.loads(path.read_text())
    # What 39e0b2c wrote: these keys, and no others.
    old = saved["request"] | {
        "version": 1,
        "clean": {
            "unicode": "NFC",
            "control_characters": True,
            "min_characters": 5,
            "max_characters": None,
        },
        "dedup": True,
    }
    keys = ("version", "kind", "tokenizer", "clean", "dedup", "validation_fraction", "sources")
    path.write_text(json.dumps(saved | {"request": {key: old[key] for key in keys}}))
    before = path.read_bytes()
    prepare(tmp_path, tokenizer_folder)
    assert "made by an earlier version" in capfd.readouterr().err and path.read_bytes() == before
    with pytest.raises(UserError, match=r"clean.min_characters: 5 -> 6"):
        prepare(tmp_path, tokenizer_folder, clean={"min_characters": 6})
    prepare(tmp_path, tokenizer_folder, overwrite=True)
    assert json.loads(path.read_text())["request"]["version"] == VERSION
