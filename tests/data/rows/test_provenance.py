"""The documents of a step are named as `prepare` counted them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mengya.data.rows.datasets import PackedRows
from mengya.data.rows.mixture import Mixture
from mengya.data.rows.provenance import step_documents
from mengya.data.shards import ShardWriter, TokenShards


def shards(folder: Path, documents: list[list[int]], **facts: object) -> TokenShards:
    writer = ShardWriter(folder, "text", 400)
    for ids in documents:
        writer.add(np.array(ids), np.array([len(ids)]))
    writer.close(**facts)
    return TokenShards(folder)


def test_every_document_of_the_rows_is_named_once_with_its_source(tmp_path: Path) -> None:
    first = [[i + 1] * 20 for i in range(10)]  # document i is made of token i + 1
    second = [[i + 101] * 50 for i in range(6)]
    sources = [
        {"name": "a", "documents": 4, "files": [{"path": "a.jsonl"}]},
        {"name": "b", "documents": 6, "files": [{"path": "b.jsonl"}]},
    ]
    opened = [
        shards(tmp_path / "first", first, sources=sources), shards(tmp_path / "second", second)
    ]  # fmt: skip
    rows = Mixture([(PackedRows(part, 32), None) for part in opened])

    def decode(ids: list[int]) -> str:
        return " ".join(map(str, ids))

    for start in range(0, len(rows), 4):
        found = list(step_documents(rows, range(start, start + 4), decode))
        tokens = {int(t) for i in range(start, start + 4) for t in rows.global_row(i).input_ids}
        named = {int(of["text"].split()[0]) for of in found}
        assert named == tokens - {0} and len(found) == len(named)
        for of in found:
            number = int(of["text"].split()[0])
            if number > 100:
                assert of["document"] == number - 101 and of["shards"].endswith("second")
                assert "source" not in of  # a manifest that does not know
                continue
            assert of["document"] == number - 1 and of["shards"].endswith("first")
            assert of["source"] == ("a" if number <= 4 else "b")
            assert of["files"] == [f"{of['source']}.jsonl"]
