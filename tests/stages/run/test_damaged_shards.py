"""A run on damaged shards ends with the name of the file: found by data.verify, or where the id is read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mengya.errors import UserError
from mengya.stages import dpo, pretrain, sft
from mengya.stages.dpo import DpoConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.sft import SftConfig
from tests.helpers.stage_fixtures import MODEL, StageFixtures

STAGES: dict[str, tuple[Any, Any]] = {
    "text": (pretrain, PretrainConfig),
    "conversation": (sft, SftConfig),
    "preference": (dpo, DpoConfig),
}


def settings(fixtures: StageFixtures, kind: str, tmp_path: Path, **data: Any) -> dict[str, Any]:
    """A run on a copy of the shards, which a test may damage."""
    copy = shutil.copytree(fixtures.shards[kind][0], tmp_path / "shards")
    values = fixtures.settings(kind, tmp_path / "run", max_steps=40)
    values["data"] = {**values["data"], "train": [str(copy)], **data}
    return values | ({"model": {**MODEL, "vocab_size": 400}} if kind == "text" else {})


def flip(path: Path, bit: int) -> int:
    """Flip a bit of the token in the middle of the file; its position."""
    tokens = np.fromfile(path, "<u2")
    at = len(tokens) // 2
    tokens[at] ^= 1 << bit
    tokens.tofile(path)
    return at


@pytest.mark.parametrize("kind", STAGES)
def test_an_id_outside_the_vocabulary_stops_the_run_by_name(
    kind: str, fixtures: StageFixtures, tmp_path: Path
) -> None:
    stage, config_class = STAGES[kind]
    config = config_class(**settings(fixtures, kind, tmp_path))
    file = tmp_path / "shards/00000.tokens.bin"
    at = flip(file, bit=12)
    with pytest.raises(
        UserError, match=f"{file} is damaged: token {at} .* has the id .*, the vocabulary has"
    ):
        stage.run(config)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_verify_finds_a_flipped_bit_before_the_first_step(
    part: str, fixtures: StageFixtures, tmp_path: Path
) -> None:
    values = settings(fixtures, "text", tmp_path, verify=True)
    if part == "validation":
        values["data"]["validation"] = [
            str(shutil.copytree(tmp_path / "shards", tmp_path / "held"))
        ]
    folder = tmp_path / ("shards" if part == "train" else "held")
    flip(folder / "00000.tokens.bin", bit=0)
    with pytest.raises(UserError, match=r"00000\.tokens\.bin has CRC-32") as caught:
        pretrain.run(PretrainConfig(**values))
    assert str(folder) in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_verify_may_be_switched_on_for_a_resumed_run(
    fixtures: StageFixtures, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = {
        **settings(fixtures, "text", tmp_path),
        "max_steps": 2,
        "schedule": {"name": "constant"},
    }
    pretrain.run(PretrainConfig(**values))
    values["data"]["verify"] = True
    pretrain.run(PretrainConfig(**{**values, "max_steps": 3, "resume": True}))
    assert "bytes are what was written" in capfd.readouterr().err
    flip(tmp_path / "shards/00000.tokens.bin", bit=0)
    with pytest.raises(UserError, match="CRC-32"):
        pretrain.run(PretrainConfig(**{**values, "max_steps": 4, "resume": True}))
