"""Order, packed rows, mixture and loader: pure functions of the seed and the index, for any world size."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mengya.batch import IGNORE_INDEX, Batch
from mengya.data.rows.batch_size import BatchSize
from mengya.data.rows.datasets import PackedRow, PackedRows
from mengya.data.rows.loader import batches, validation_batches
from mengya.data.rows.mixture import Mixture
from mengya.data.rows.order import row_permutation
from mengya.data.shards import ShardWriter, TokenShards
from mengya.errors import UserError
from tests.helpers.random_shards import make_shards


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in Batch.__slots__)


def test_order_is_a_pure_permutation() -> None:
    for n in (0, 1, 2, 1000):
        assert sorted(row_permutation(7, 3, n)) == list(range(n))
    assert np.array_equal(row_permutation(7, 3, 1000), row_permutation(7, 3, 1000))
    different = [
        row_permutation(7, 3, 1000),
        row_permutation(7, 4, 1000),
        row_permutation(8, 3, 1000),
    ]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(different, 2))
    # pinned, so that a changed function (which would break every resume) does not go unseen
    assert row_permutation(0, 0, 8).tolist() == PINNED


PINNED = [6, 2, 0, 4, 3, 1, 7, 5]


def test_the_order_is_not_visibly_biased() -> None:
    first = Counter(int(row_permutation(seed, 0, 10)[0]) for seed in range(2000))
    assert all(140 < first[i] < 260 for i in range(10))


@pytest.mark.parametrize("kind", ["text", "conversation"])
def test_an_epoch_holds_every_label_once(tmp_path: Path, kind: str) -> None:
    shards = make_shards(tmp_path, kind)
    rows = PackedRows(shards, 32, seed=1)
    expected: Counter[tuple[int, int]] = Counter()
    for document in range(len(shards)):
        used = int(rows.fitting.lengths[document])  # complete turns of a long conversation
        tokens = shards.tokens(document, 0, used).tolist()
        mask = shards.loss_mask(document, 0, used)
        expected.update(
            pair
            for pair, labelled in zip(itertools.pairwise(tokens), mask[1:], strict=True)
            if labelled
        )
    assert expected
    for epoch in (0, 1):
        found: Counter[tuple[int, int]] = Counter()
        for index in range(len(rows)):
            row = rows.row(epoch, index)
            labelled = row.labels != IGNORE_INDEX
            found.update(
                zip(row.input_ids[labelled].tolist(), row.labels[labelled].tolist(), strict=True)
            )
            check_structure(row)
        assert found == expected


def check_structure(row: PackedRow) -> None:
    begin = 0
    for number, end in enumerate(row.ends):
        assert (row.document_ids[begin:end] == number).all()
        assert row.position_ids[begin:end].tolist() == list(range(end - begin))
        assert row.input_ids[begin + 1 : end].tolist() == [
            label if label != IGNORE_INDEX else token
            for label, token in zip(
                row.labels[begin : end - 1], row.input_ids[begin + 1 : end], strict=True
            )
        ]
        begin = end
    assert (row.document_ids[begin:] == -1).all() and (row.labels[begin:] == IGNORE_INDEX).all()


def test_preferences_alternate_chosen_and_rejected(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "preference", 1000)
    for pair in range(20):
        for side in (0, 1):
            tokens = np.full(3 + pair, 10 * pair + side)
            writer.add(tokens, np.array([len(tokens)]), np.ones(len(tokens)))
    for side in (0, 1):  # together too long for a row
        writer.add(np.full(60, 900 + side), np.array([60]), np.ones(60))
    writer.close()
    rows = PackedRows(TokenShards(tmp_path), 64, seed=1)
    assert rows.fitting.left_out == 1 and rows.fitting.needed == 118
    chosen = []
    for index in range(len(rows)):
        row = rows.stored_row(index)
        first = [int(row.input_ids[end - 1]) for end in row.ends]
        assert len(first) % 2 == 0 and [f % 10 for f in first] == [0, 1] * (len(first) // 2)
        assert [f // 10 for f in first[::2]] == [f // 10 for f in first[1::2]]
        chosen += first[::2]
    assert sorted(chosen) == [10 * pair for pair in range(20)]


def test_a_mixture_without_weights_covers_all_rows_once_an_epoch(tmp_path: Path) -> None:
    parts = [
        PackedRows(make_shards(tmp_path / str(i), count=20 * (i + 1), seed=i), 32) for i in range(3)
    ]
    mixture = Mixture([(part, None) for part in parts], seed=5)
    everything = sorted((s, r) for s, part in enumerate(parts) for r in range(len(part)))
    epochs = [[mixture.locate(e * len(mixture) + i) for i in range(len(mixture))] for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == everything
    assert epochs[0] != epochs[1]
    fresh = Mixture([(part, None) for part in parts], seed=5)
    assert [fresh.locate(i) for i in range(len(mixture))] == epochs[0]


def test_a_mixture_follows_its_weights(tmp_path: Path) -> None:
    parts = [
        PackedRows(make_shards(tmp_path / str(i), count=20 * (i + 1), seed=i), 32) for i in range(3)
    ]
    weights = (0.7, 0.2999, 0.0001)
    mixture = Mixture(list(zip(parts, weights, strict=True)), seed=5)
    places = [mixture.locate(i) for i in range(200_000)]
    share = Counter(source for source, _ in places)
    for source, weight in enumerate(weights):
        assert share[source] / len(places) == pytest.approx(weight, rel=0.06)
    early = Counter(source for source, _ in places[:10_000])
    assert early[0] / 10_000 == pytest.approx(0.7, abs=0.03)
    used = Counter(row for source, row in places if source == 1)
    assert max(used.values()) - min(used.values()) <= 1 and len(used) == len(parts[1])
    fresh = Mixture(list(zip(parts, weights, strict=True)), seed=5)
    for index in (150_000, 3, 99_999):
        assert fresh.locate(index) == places[index]


def test_bad_weights_are_refused(tmp_path: Path) -> None:
    rows = PackedRows(make_shards(tmp_path), 32)
    for weights in ((1.0, None), (1.0, 0.0), (1.0, float("nan"))):
        with pytest.raises(UserError, match="positive weight to every source"):
            Mixture([(rows, w) for w in weights])
    with pytest.raises(UserError, match="at least one"):
        Mixture([])


def test_the_loader_gives_the_same_rows_for_every_world_size_and_start(tmp_path: Path) -> None:
    mixture = Mixture([(PackedRows(make_shards(tmp_path), 32, seed=1), None)], seed=1)

    def rows(world_size: int, start_step: int, steps: int, micro: int) -> list[torch.Tensor]:
        per_rank = [
            list(
                itertools.islice(
                    batches(
                        mixture,
                        start_step=start_step,
                        batch_size=BatchSize(8),
                        micro_batch_size=micro,
                        rank=rank,
                        world_size=world_size,
                    ),
                    steps,
                )
            )
            for rank in range(world_size)
        ]
        return [
            torch.cat([b.input_ids for rank in range(world_size) for b in per_rank[rank][step]])
            for step in range(steps)
        ]

    reference = rows(1, 0, 20, 8)
    assert all(step.shape == (8, 32) for step in reference)
    for world_size, micro in ((1, 2), (2, 4), (2, 1), (4, 2)):
        assert all(map(torch.equal, reference, rows(world_size, 0, 20, micro)))
    assert all(map(torch.equal, reference[13:], rows(2, 13, 7, 2)))


def test_batches_hold_the_document_boundaries(tmp_path: Path) -> None:
    rows = PackedRows(make_shards(tmp_path), 32)
    for batch in validation_batches(rows, 4):
        assert (
            batch.cu_seqlens.shape == (4 * rows.max_documents + 1,)
            and batch.cu_seqlens.dtype == torch.int32
        )
        ids = batch.document_ids.clone() + torch.arange(4)[:, None] * 1000
        flat = ids.flatten()
        changes = [0, *(i for i in range(1, 128) if flat[i] != flat[i - 1]), 128]
        # two pieces of neighbouring rows never merge, so the changes are exactly the boundaries
        assert batch.cu_seqlens.unique().tolist() == changes
        assert (batch.cu_seqlens.diff() >= 0).all()


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_validation_sees_every_row_once(tmp_path: Path, world_size: int) -> None:
    rows = PackedRows(make_shards(tmp_path), 32)
    assert len(rows) % 3
    per_rank = [list(validation_batches(rows, 3, rank, world_size)) for rank in range(world_size)]
    assert len({len(p) for p in per_rank}) == 1
    found = sorted(
        row.tolist() for p in per_rank for b in p
        for row, ids in zip(b.input_ids, b.document_ids, strict=True)
        if ids[0] >= 0
    )  # fmt: skip
    assert found == sorted(rows.stored_row(i).input_ids.tolist() for i in range(len(rows)))


def test_an_error_in_the_thread_reaches_the_caller(tmp_path: Path) -> None:
    rows = PackedRows(make_shards(tmp_path), 32)

    class Broken(PackedRows):
        def stored_row(self, index: int) -> PackedRow:
            if index == 5:
                raise OSError("disk gone")
            return super().stored_row(index)

    broken = Broken(rows.shards, 32)
    got = []
    with pytest.raises(OSError, match="disk gone"):
        got.extend(validation_batches(broken, 2))
    assert len(got) == 2


def test_a_batch_size_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    rows = PackedRows(make_shards(tmp_path), 32)
    with pytest.raises(UserError, match="must be a multiple"):
        batches(rows, start_step=0, batch_size=BatchSize(8), micro_batch_size=3)


@pytest.mark.parametrize("at", [0, 700, 1999])
def test_an_id_outside_the_vocabulary_is_named_by_file_and_position(
    tmp_path: Path, at: int
) -> None:
    """Also the last token of a document, which only ever is a label."""
    writer = ShardWriter(tmp_path, "text", 1000, part_tokens=500)
    for number in range(30):
        writer.add(np.full(100, number), np.array([100]))
    writer.close()
    part, position = divmod(at, 500)
    path = tmp_path / f"{part:05d}.tokens.bin"
    tokens = np.fromfile(path, "<u2")
    tokens[position] += 4096
    tokens.tofile(path)
    rows = Mixture([(PackedRows(TokenShards(tmp_path), 64), None)])
    epoch = batches(rows, start_step=0, batch_size=BatchSize(4), micro_batch_size=4)
    with pytest.raises(UserError) as caught:
        for _ in range(len(rows)):
            next(epoch)
    document = at // 100
    assert f"{path} is damaged: token {position} (document {document}) has the id" in str(
        caught.value
    )
    assert f"{document + 4096}, the vocabulary has 1000 ids" in str(caught.value)
