"""Packing places every (input, label) pair exactly once, never overfills a row and keeps groups together."""

from __future__ import annotations

import numpy as np
import pytest

from mengya.data.rows.packing import Packing, pack


def random_lengths(rng: np.random.Generator) -> np.ndarray:
    count = int(rng.integers(1, 300))
    shape = rng.integers(3)
    if shape == 0:
        return rng.integers(0, 20, count)
    if shape == 1:
        return np.clip(rng.lognormal(3, 1.5, count), 0, 5000).astype(np.int64)
    return np.full(count, int(rng.integers(0, 200)))


def rows_of(packing: Packing) -> list[slice]:
    return [slice(a, b) for a, b in zip(packing.row_starts, packing.row_starts[1:], strict=False)]


@pytest.mark.parametrize("trial", range(60))
def test_every_pair_exactly_once(trial: int) -> None:
    rng = np.random.default_rng(trial)
    lengths, size = random_lengths(rng), int(rng.integers(1, 130))
    packing = pack(lengths, size, seed=trial)
    seen = [np.zeros(max(0, n - 1), np.int64) for n in lengths]
    for document, start, length in zip(
        packing.document, packing.start, packing.length, strict=True
    ):
        assert 1 <= length <= size
        assert start % size == 0
        seen[document][start : start + length] += 1
        assert start + length <= len(seen[document])
    assert all((pairs == 1).all() for pairs in seen)
    for row in rows_of(packing):
        assert 0 < packing.length[row].sum() <= size
    assert packing.row_starts[0] == 0 and packing.row_starts[-1] == len(packing.document)


@pytest.mark.parametrize("trial", range(40))
def test_pairs_of_documents_stay_together(trial: int) -> None:
    rng = np.random.default_rng(1000 + trial)
    lengths = random_lengths(rng)
    lengths = lengths[: len(lengths) // 2 * 2]
    size = int(rng.integers(2, 130))
    packing = pack(lengths, size, group=2, seed=trial)
    pairs = np.maximum(lengths - 1, 0).reshape(-1, 2)
    expected = np.where(pairs.sum(1)[:, None] > size, 0, pairs)  # no side is ever cut
    assert (packing.start == 0).all()
    placed: dict[int, int] = {}
    for row in rows_of(packing):
        documents, length = packing.document[row], packing.length[row]
        assert 0 < length.sum() <= size
        assert (documents[::2] % 2 == 0).all() and (documents[1::2] == documents[::2] + 1).all()
        assert not placed.keys() & set(documents.tolist())
        placed |= dict(zip(documents.tolist(), length.tolist(), strict=True))
    kept = np.flatnonzero((expected > 0).all(1))
    assert placed == {int(2 * i + s): int(expected[i, s]) for i in kept for s in (0, 1)}


def test_rows_are_nearly_full() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(5.5, 1.2, 100_000), 1, 1e6).astype(
        np.int64
    )
    packing = pack(lengths, 1024)
    assert packing.fill > 0.98
    assert packing.max_pieces < 128


def test_the_plan_is_a_pure_function() -> None:
    lengths = np.random.default_rng(0).integers(0, 300, 1000)
    one, two, other = (
        pack(lengths, 128, seed=3),
        pack(lengths, 128, seed=3),
        pack(lengths, 128, seed=4),
    )
    assert np.array_equal(one.document, two.document) and np.array_equal(
        one.row_starts, two.row_starts
    )
    assert not np.array_equal(one.document, other.document)


def test_nothing_to_pack_gives_no_rows() -> None:
    assert len(pack(np.array([], np.int64), 8)) == 0
    assert len(pack(np.array([0, 1, 1]), 8)) == 0


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold 2"):
        pack(np.array([3, 3]), 1, group=2)
    with pytest.raises(ValueError, match="groups of 2"):
        pack(np.array([3, 3, 3]), 8, group=2)
