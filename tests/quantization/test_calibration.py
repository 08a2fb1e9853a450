"""Rows of calibration: packed end to end, deterministic, from shards and files, clear when there are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mengya.config import load_config
from mengya.data.shards import ShardWriter
from mengya.errors import UserError
from mengya.quantization.calibration import (
    CalibrationConfig,
    CalibrationRows,
    default_length,
    read_calibration,
)
from mengya.tokenizer.chat_template import encode_conversation
from mengya.tokenizer.load import document_token_id, load_tokenizer, tokenizer_hash
from tests.helpers.trained_model import Trained


def read(trained: Trained, length: int = 32, **keys: object) -> CalibrationRows:
    config = load_config(CalibrationConfig, None, {"num_sequences": 8, **keys})
    return read_calibration(config, trained.folder, load_tokenizer(trained.folder), length)


def documents(rows: CalibrationRows) -> list[list[int]]:
    """The pieces of documents, row by row."""
    pieces = []
    for ids, numbers in zip(rows.input_ids_RS, rows.document_ids_RS, strict=True):
        for number in numbers.unique_consecutive().tolist():
            if number >= 0:
                pieces.append(ids[numbers == number].tolist())
    return pieces


def test_documents_lie_end_to_end_and_count_their_positions(trained: Trained) -> None:
    rows = read(trained, texts=trained.texts)
    assert rows.input_ids_RS.shape == (8, 32)
    assert rows.tokens == 8 * 32
    for numbers, positions in zip(rows.document_ids_RS, rows.position_ids_RS, strict=True):
        for number in numbers.unique().tolist():
            here = positions[numbers == number]
            assert here.tolist() == list(range(len(here)))
    tokenizer = load_tokenizer(trained.folder)
    edge = document_token_id(tokenizer)
    text = [json.loads(line)["text"] for line in trained.texts.read_text("utf-8").splitlines()]
    stream = rows.input_ids_RS.flatten().tolist()
    known = [[edge, *tokenizer.encode(t, add_special_tokens=False), edge] for t in text]
    first = stream[: stream.index(edge, 1) + 1]
    assert first in known  # complete, though it is longer than a row


def test_the_seed_chooses_and_equal_seeds_choose_equally(trained: Trained) -> None:
    one, same, other = (read(trained, texts=trained.texts, seed=seed) for seed in (0, 0, 1))
    assert one.digest() == same.digest() != other.digest()
    assert one.facts["sha256"] == one.digest()


def test_conversations_are_rendered_by_the_template(trained: Trained) -> None:
    rows = read(trained, conversations=trained.conversations)
    tokenizer = load_tokenizer(trained.folder)
    first = json.loads(trained.conversations.read_text("utf-8").splitlines()[0])
    ids, _ = encode_conversation(tokenizer, first["messages"])
    assert rows.input_ids_RS[0, 0].item() == ids[0]


def test_shards_give_what_they_hold(trained: Trained, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(trained.folder)
    edge = document_token_id(tokenizer)
    writer = ShardWriter(tmp_path / "shards", "text", len(tokenizer))
    for length in (5, 30, 50):
        writer.add(np.array([edge, *range(5, 5 + length), edge]), np.array([length + 2]))
    writer.close(tokenizer={"sha256": tokenizer_hash(trained.folder)})
    rows = read(trained, shards=tmp_path / "shards")
    assert rows.tokens == 91
    assert rows.facts["documents"] == 3
    assert rows.facts["tokens_wanted"] == 8 * 32
    assert (rows.document_ids_RS == -1).sum() == 5  # the last row's padding
    assert sum(map(len, documents(rows))) == 91


def test_shards_of_another_tokenizer_are_refused(trained: Trained, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "shards", "text", 400)
    writer.add(np.array([1, 2, 3]), np.array([3]))
    writer.close(tokenizer={"sha256": "0" * 64})
    with pytest.raises(UserError, match="made with tokenizer 000000000000"):
        read(trained, shards=tmp_path / "shards")


@pytest.mark.parametrize("content", ["", "\n\n", '{"text": ""}\n{"text": "  "}\n'])
def test_files_without_text_are_named(trained: Trained, tmp_path: Path, content: str) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text(content, "utf-8")
    with pytest.raises(UserError, match="empty"):
        read(trained, texts=file)


def test_a_lone_short_text_makes_one_padded_row(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("小满", "utf-8")
    rows = read(trained, texts=tmp_path / "one.txt")
    assert rows.input_ids_RS.shape == (1, 32)
    assert 0 < rows.tokens < 32
    assert torch.equal(rows.document_ids_RS[0] >= 0, torch.arange(32) < rows.tokens)


def test_default_length() -> None:
    assert default_length(2048, 1024) == 512
    assert default_length(2048, 256) == 256
    assert default_length(128, None) == 128


def test_lines_that_do_not_fit_are_counted_and_the_remedy_works(trained: Trained) -> None:
    with pytest.raises(UserError, match=r"no field 'text'(.|\n)*with calibration\.max_bad_lines=N"):
        read(trained, texts=trained.conversations)
    with pytest.raises(UserError, match="no text in"):
        read(trained, texts=trained.conversations, max_bad_lines=1000)
