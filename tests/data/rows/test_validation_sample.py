"""data.max_validation_rows is a sample: its lengths are those of the full set, not the longest documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mengya.data.rows.datasets import PackedRows
from mengya.data.rows.loader import validation_batches
from mengya.data.shards import ShardWriter, TokenShards


def long_and_short(directory: Path) -> PackedRows:
    """A third of the tokens in documents that fill a row, of token 1; the rest in short ones, of token 2."""
    writer = ShardWriter(directory, "text", 1000)
    for token, length, count in ((1, 33, 50), (2, 9, 400)):
        for _ in range(count):
            writer.add(np.full(length, token), np.array([length]))
    writer.close()
    return PackedRows(TokenShards(directory), 32)


def sampled(rows: PackedRows, seed: int, world_size: int = 1) -> torch.Tensor:
    parts = [
        batch.input_ids[batch.document_ids[:, 0] >= 0]
        for rank in range(world_size)
        for batch in validation_batches(rows, 4, rank, world_size, max_rows=40, seed=seed)
    ]
    return torch.cat(parts)


def test_the_sample_has_the_lengths_of_the_set(tmp_path: Path) -> None:
    rows = long_and_short(tmp_path)
    full = sum(int(rows.stored_row(i).input_ids[0] == 1) for i in range(len(rows))) / len(rows)
    shares = [(sampled(rows, seed)[:, 0] == 1).float().mean().item() for seed in range(20)]
    assert 0.25 < full < 0.4
    assert all(len(sampled(rows, seed)) == 40 for seed in range(3))
    assert abs(np.mean(shares) - full) < 0.06  # the first 40 rows of the plan are all long: 1.0


def test_a_seed_gives_one_sample_for_any_number_of_processes(tmp_path: Path) -> None:
    rows = long_and_short(tmp_path)

    def counts(sample: torch.Tensor) -> list[list[int]]:
        return sorted(sample.tolist())

    assert counts(sampled(rows, 3)) == counts(sampled(rows, 3, world_size=2))
    assert not torch.equal(sampled(rows, 3), sampled(rows, 4))
