"""The numbers of a shard folder, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mengya.data.inspection import histogram, inspect_shards, source_of
from mengya.data.shards import ShardWriter, TokenShards


def folder(
    path: Path, kind: str, documents: list[list[int]], masks: list[list[int]] | None = None
) -> TokenShards:
    writer = ShardWriter(path, kind, 100)
    for i, ids in enumerate(documents):
        mask = None if masks is None else np.array(masks[i])
        writer.add(np.array(ids, np.uint32), np.array([len(ids)]), mask)
    sources = [
        {"name": "a", "documents": 2, "tokens": 6, "license": "MIT", "dropped": {"short": 3}},
        {"name": "b", "documents": len(documents) - 2, "tokens": 4},
    ]
    writer.close(sources=sources)
    return TokenShards(path)


def test_conversations(tmp_path: Path) -> None:
    shards = folder(
        tmp_path, "conversation", [[1, 2, 3], [4, 5, 6], [1, 2, 3], [7]],
        [[1, 0, 1], [0, 1, 1], [0, 0, 0], [1]],
    )  # fmt: skip
    seen: list[int] = []
    found = inspect_shards(shards, seen.append)
    assert (found.samples, found.tokens, found.duplicates) == (4, 10, 1) and sum(seen) == 4
    assert found.answers.tolist() == [2, 1, 0, 1] and found.learned == 0.5
    assert found.duplicate_share == 0.25
    assert [(s.name, s.share, s.license, s.dropped) for s in found.sources] == [
        ("a", 0.6, "MIT", {"short": 3}), ("b", 0.4, None, {}),
    ]  # fmt: skip
    names = [(source_of(shards.manifest, i) or {}).get("name") for i in range(5)]
    assert names == ["a", "a", "b", "b", None]


def test_pairs_are_equal_when_both_sides_are(tmp_path: Path) -> None:
    sides = [[1, 2], [3], [1], [2, 3], [1, 2], [3]]
    found = inspect_shards(folder(tmp_path, "preference", sides, [[1] * len(s) for s in sides]))
    assert (found.samples, found.duplicates, len(found.lengths)) == (3, 1, 6)


def test_histograms() -> None:
    assert histogram(np.array([1, 2, 3, 8]), powers=True) == [
        ("1", 1), ("2 to 3", 2), ("4 to 7", 0), ("8 to 15", 1),
    ]  # fmt: skip
    assert histogram(np.array([1, 3, 12, 10]), powers=False)[-1] == ("10 and more", 2)
    assert histogram(np.array([2, 2]), powers=False) == [("2", 2)]
    assert histogram(np.zeros(0, np.int64), powers=True) == []
