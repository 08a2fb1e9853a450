"""Text mixed into SFT is learned; text alone is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mengya.errors import UserError
from mengya.stages import evaluate, sft
from mengya.stages.sft import SftConfig
from tests.helpers.stage_fixtures import StageFixtures


def tuned(fixtures: StageFixtures, run_dir: Path, sources: list[object]) -> float:
    """Bits per character on held-out text of a model tuned on `sources`."""
    settings = fixtures.settings("conversation", run_dir)
    settings["data"]["train"] = sources
    assert sft.run(SftConfig(**settings))
    measured = evaluate.EvaluateConfig(
        checkpoint=run_dir, text_shards=[fixtures.shards["text"][1]], device="cpu"
    )
    found = evaluate.measure(measured).text
    assert found is not None
    return found.bits_per_char


def test_text_mixed_into_sft_is_learned(fixtures: StageFixtures, tmp_path: Path) -> None:
    talk = str(fixtures.shards["conversation"][0])
    text = str(fixtures.shards["text"][0])
    alone = tuned(fixtures, tmp_path / "alone", [talk])
    shares: list[object] = [{"path": talk, "weight": 0.5}, {"path": text, "weight": 0.5}]
    mixed = tuned(fixtures, tmp_path / "mixed", shares)
    assert mixed < alone


def test_text_alone_is_refused(fixtures: StageFixtures, tmp_path: Path) -> None:
    settings = fixtures.settings("conversation", tmp_path / "run")
    settings["data"]["train"] = [str(fixtures.shards["text"][0])]
    with pytest.raises(UserError, match="holds text shards, this stage takes kind=conversation"):
        sft.run(SftConfig(**settings))
