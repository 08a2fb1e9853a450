"""Shards of random documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mengya.data.shards import ShardWriter, TokenShards


def make_shards(directory: Path, kind: str = "text", count: int = 60, seed: int = 0) -> TokenShards:
    rng = np.random.default_rng(seed)
    writer = ShardWriter(directory, kind, 1000, part_tokens=500)
    for _ in range(count):
        tokens = rng.integers(1, 1000, rng.integers(2, 90))
        writer.add(tokens, np.array([len(tokens)]), rng.integers(0, 2, len(tokens)))
    writer.close()
    return TokenShards(directory)
