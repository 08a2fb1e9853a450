"""Bits per character of a run's validation and of `mengya evaluate` are one number, with the window in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mengya.data.shards import ShardWriter, TokenShards
from mengya.evaluation.results import results_table
from mengya.models.hf.config import load_model_config
from mengya.stages import pretrain
from mengya.stages.evaluate import EvaluateConfig, measure
from mengya.stages.pretrain import PretrainConfig
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.stage_fixtures import MODEL, StageFixtures


def with_characters(shards: Path, tokenizer: Path, out: Path) -> Path:
    """The same text shards, with the number of characters that prepare would count."""
    stored, decoder = TokenShards(shards), load_tokenizer(tokenizer)
    writer = ShardWriter(out, "text", stored.vocab_size)
    characters = 0
    for document in range(len(stored)):
        ids = np.array(stored.tokens(document))
        writer.add(ids, np.array([len(ids)]))
        text = decoder.decode(ids[1:-1].tolist(), clean_up_tokenization_spaces=False)
        characters += len(str(text))
    writer.close(tokenizer=stored.manifest["tokenizer"], characters=characters)
    return out


def test_validation_and_evaluation_agree(
    fixtures: StageFixtures, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    held_out = with_characters(
        fixtures.shards["text"][1], fixtures.tokenizer, tmp_path / "held_out"
    )
    settings = fixtures.settings("text", tmp_path / "run", model=MODEL, max_steps=10)
    settings["data"] |= {"validation": [str(held_out)], "sequence_length": 32}
    pretrain.run(PretrainConfig(**settings, save_dtype="float32"))
    assert "validation (window 32): " in capfd.readouterr().err
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    validated = [x["validation/bits_per_char"] for x in lines if "validation/bits_per_char" in x]

    folder = tmp_path / "run/checkpoints/latest"
    assert load_model_config(folder).context_length == 256
    result = measure(EvaluateConfig(checkpoint=folder, text_shards=[held_out], device="cpu"))
    assert result.text is not None and result.text.window == 32
    assert result.text.bits_per_char == pytest.approx(validated[-1], abs=1e-4)
    console = Console(width=120, record=True)
    console.print(results_table(result))
    assert "window 32" in console.export_text()
    full = measure(
        EvaluateConfig(checkpoint=folder, text_shards=[held_out], device="cpu", window=256)
    )
    assert full.text is not None and full.text.bits_per_char != pytest.approx(
        validated[-1], abs=1e-4
    )


def test_the_trained_length_is_the_longest_of_a_model_and_kept_by_what_follows(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    settings = fixtures.settings("text", tmp_path / "run", model=MODEL, max_steps=1)
    pretrain.run(PretrainConfig(**settings))
    first = tmp_path / "run/checkpoints/latest"
    assert load_model_config(first).training_sequence_length == 128
    more = fixtures.settings("text", tmp_path / "more", init_from=first, max_steps=1)
    more["data"]["sequence_length"] = 64
    pretrain.run(PretrainConfig(**more))
    assert load_model_config(tmp_path / "more/checkpoints/latest").training_sequence_length == 128
