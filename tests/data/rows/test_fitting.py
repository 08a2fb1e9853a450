"""Chats longer than a row: complete turns are used, no answer is cut, and what is lost is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mengya.batch import IGNORE_INDEX
from mengya.data.rows.datasets import PackedRows
from mengya.data.shards import ShardWriter, TokenShards
from mengya.errors import UserError


def conversation(*turns: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of (question tokens, answer tokens); ids rise, the last id of an answer is 999."""
    mask = np.concatenate([np.repeat([0, 1], turn) for turn in turns])
    ids = np.arange(len(mask)) + 1
    ids[np.cumsum([sum(turn) for turn in turns]) - 1] = 999
    return ids, mask


def shards_of(folder: Path, kind: str, *documents: tuple[np.ndarray, np.ndarray]) -> TokenShards:
    writer = ShardWriter(folder, kind, 1000)
    for ids, mask in documents:
        writer.add(ids, np.array([len(ids)]), mask)
    writer.close()
    return TokenShards(folder)


def test_complete_turns_and_no_others(tmp_path: Path) -> None:
    documents = [
        conversation((10, 10), (10, 10)),  # 40 tokens: one turn fits 32
        conversation((20, 20), (4, 4)),  # its first answer does not fit
        conversation((10, 10)),
        conversation((13, 20)),  # 33 tokens are 32 pairs: it fits just so
        conversation((13, 21)),  # one more
        conversation((5, 5), (11, 12), (3, 3)),  # its second answer ends with token 33
    ]
    rows = PackedRows(shards_of(tmp_path, "conversation", *documents), 32)
    assert rows.fitting.lengths.tolist() == [20, 0, 20, 33, 0, 33]
    assert (rows.fitting.shortened, rows.fitting.left_out) == (2, 2)
    learned = 0
    for index in range(len(rows)):
        row, begin = rows.stored_row(index), 0
        for end in row.ends.tolist():
            assert (
                row.input_ids[begin] == 1 and row.labels[end - 1] == 999
            )  # from its start to an end
            begin = end
        learned += int((row.labels != IGNORE_INDEX).sum())
    assert learned == 10 + 10 + 20 + 5 + 12
    line = rows.fitting.describe("conversation", 32)
    assert (
        line
        and "of 6 conversations, 2 used up to their last answer that fits and 2 left out" in line
    )


def test_the_remedy_holds_everything(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, "conversation", conversation((50, 50)), conversation((3, 90)))
    with pytest.raises(UserError, match=r"2 left out .* data.sequence_length=99 holds all"):
        PackedRows(shards, 32)
    assert PackedRows(shards, 99).fitting.describe("conversation", 99) is None


def test_a_short_side_does_not_cut_the_long_one(tmp_path: Path) -> None:
    sides = [conversation((1, n - 1)) for n in (600, 100, 60, 60)]
    shards = shards_of(tmp_path, "preference", *sides)
    rows = PackedRows(shards, 640)
    assert rows.fitting.lengths.tolist() == [0, 0, 60, 60] and rows.fitting.left_out == 1
    needed = rows.fitting.needed
    assert needed == 698 and PackedRows(shards, needed).fitting.left_out == 0
    assert PackedRows(shards, needed - 1).fitting.left_out == 1
