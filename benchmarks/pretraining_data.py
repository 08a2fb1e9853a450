"""Made-up documents for the speed of pretraining: as packed rows for us, as collated rows for transformers.

Takes lengths and a vocabulary; gives random tokens. Knows nothing of models.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mengya.batch import IGNORE_INDEX, Batch
from mengya.data.rows.datasets import PackedRow
from mengya.data.rows.loader import collate


def documents(count: int, longest: int, vocab: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(longest // 16, longest + 1, count)
    return [rng.integers(0, vocab, n + 1) for n in lengths]


def packed_rows(docs: list[np.ndarray], rows: int, size: int) -> list[PackedRow]:
    """Documents end to end; the one at a row's end is cut, as `data.packing` cuts long ones."""
    stream = itertools.cycle(docs)
    made = []
    for _ in range(rows):
        ids, labels, positions, numbers, ends = [], [], [], [], []
        while len(ids) < size:
            doc = next(stream)[: size - len(ids) + 1]
            ids += doc[:-1].tolist()
            labels += doc[1:].tolist()
            positions += range(len(doc) - 1)
            numbers += [len(ends)] * (len(doc) - 1)
            ends.append(len(ids))
        columns = [np.array(column, np.int64) for column in (ids, labels, positions, numbers)]
        made.append(PackedRow(*columns, ends=np.array(ends, np.int32)))
    return made


def packed(docs: list[np.ndarray], rows: int, size: int) -> Batch:
    """`packed_rows` as one batch."""
    made = packed_rows(docs, rows, size)
    return collate(made, max_documents=max(len(row.ends) for row in made) + 1)


class RowList:
    """Rows in memory as a `RowSource`, in their order, over and over."""

    def __init__(self, rows: Sequence[PackedRow]) -> None:
        self.rows, self.sequence_length = rows, len(rows[0].input_ids)
        self.max_documents = max(len(row.ends) for row in rows) + 1

    def __len__(self) -> int:
        return len(self.rows)

    def global_row(self, index: int) -> PackedRow:
        return self.rows[index % len(self.rows)]

    stored_row = global_row


class Padded:
    """Collates documents one a row, padded to the longest or to `length`."""

    def __init__(self, length: int | None) -> None:
        self.length = length

    def __call__(self, examples: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
        docs = [example["input_ids"] for example in examples]
        longest = self.length or max(map(len, docs))
        ids = torch.zeros(len(docs), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, doc in enumerate(docs):
            ids[row, : len(doc)] = torch.from_numpy(doc)
            mask[row, : len(doc)] = 1
        labels = torch.where(mask.bool(), ids, IGNORE_INDEX)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class Packed:
    """Collates full rows; `masked`: position ids say where documents begin, else nothing does.

    Without this plain mask a compiled Qwen3 would build one of [S, S] that masks nothing.
    """

    def __init__(self, masked: bool, plain_mask: bool) -> None:
        self.masked, self.plain_mask = masked, plain_mask

    def __call__(self, examples: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
        stacked = {k: torch.from_numpy(np.stack([e[k] for e in examples])) for k in examples[0]}
        inputs: dict[str, Any] = {"input_ids": stacked["input_ids"], "labels": stacked["input_ids"]}
        if self.masked:
            inputs["position_ids"] = stacked["position_ids"]
        elif self.plain_mask:
            inputs["attention_mask"] = {"full_attention": None}
        return inputs
