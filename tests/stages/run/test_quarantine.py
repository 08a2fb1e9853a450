"""A real run meets a document that is noise: it goes back, leaves it out, and says which one it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mengya.data.shards import ShardWriter
from mengya.stages import pretrain
from mengya.stages.pretrain import PretrainConfig
from mengya.tokenizer.load import document_token_id, encode_texts, load_tokenizer, tokenizer_hash
from tests.helpers.stage_fixtures import MODEL, StageFixtures

DOCUMENTS, NOISE, LENGTH = 60, 17, 65  # each fills a row of 64 by itself


def test_the_document_at_fault_is_left_out_and_named(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(fixtures.tokenizer)
    easy = np.resize(encode_texts(tokenizer, ["小满买了苹果。"])[0], LENGTH)
    noise = np.random.default_rng(0).integers(5, 400, LENGTH)
    easy[0] = noise[0] = document_token_id(tokenizer)
    writer = ShardWriter(tmp_path / "shards", "text", len(tokenizer))
    for number in range(DOCUMENTS):
        writer.add(noise if number == NOISE else easy, np.array([LENGTH]))
    source = {"name": "town", "documents": DOCUMENTS, "files": [{"path": "town.jsonl"}]}
    writer.close(
        tokenizer={"sha256": tokenizer_hash(fixtures.tokenizer)}, characters=1, sources=[source]
    )
    more: dict[str, Any] = {
        "model": {**MODEL, "vocab_size": 400},
        "data": {"train": [str(tmp_path / "shards")], "sequence_length": 64},
        "micro_batch_size": 1, "global_batch_size": 1, "max_steps": 3 * DOCUMENTS,
        "optimizer": {"lr": 1e-2},
        "loop": {"log_every": 20, "save_every": 20, "spike_steps": 1},
    }  # fmt: skip
    pretrain.run(PretrainConfig(**fixtures.settings("text", tmp_path / "run", **more)))

    state = json.loads((tmp_path / "run/checkpoints/latest/trainer/state.json").read_text())
    assert state["step"] == 3 * DOCUMENTS and state["rewinds"] >= 1
    lines = [json.loads(line) for line in (tmp_path / "run/quarantine.jsonl").open()]
    assert [line["step"] - 1 for line in lines] == state["quarantined"]
    found = [line for line in lines if line["document"] == NOISE]
    assert len(found) == state["rewinds"]
    for line in found:
        assert line["shards"] == str(tmp_path / "shards")
        assert (line["source"], line["files"]) == ("town", ["town.jsonl"])
        assert line["text"] == tokenizer.decode(noise[:64].tolist())
        assert "is above" in line["reason"]
