"""Mixtures with phases, orders and counts of what was seen: pure functions of the row, exact by count."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mengya.data.rows.batch_size import BatchRamp, BatchSize
from mengya.data.rows.datasets import PackedRows
from mengya.data.rows.loader import batches
from mengya.data.rows.mixing.config import Order
from mengya.data.rows.mixing.metrics import source_metrics
from mengya.data.rows.mixing.sequences import Segment
from mengya.data.rows.mixture import Mixture
from mengya.data.shards import ShardWriter, TokenShards
from mengya.errors import UserError
from tests.helpers.random_shards import make_shards

SEGMENTS = (Segment(0, (600, 40, 0)), Segment(640, (100, 0, 900)), Segment(1640, (0, 300, 10)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[PackedRows]:
    folder = tmp_path_factory.mktemp("shards")
    return [
        PackedRows(make_shards(folder / str(i), count=20 * (i + 1), seed=i), 32, seed=3)
        for i in range(3)
    ]


MIXTURES: dict[str, Callable[[list[PackedRows]], Mixture]] = {
    "pool": lambda parts: Mixture([(part, None) for part in parts], 5),
    "weights": lambda parts: Mixture(list(zip(parts, (5, 3, 2), strict=True)), 5),
    "phases": lambda parts: Mixture([(part, None) for part in parts], 5, SEGMENTS),
}


@pytest.mark.parametrize("kind", MIXTURES)
def test_tokens_seen_equal_a_count_by_hand(kind: str, parts: list[PackedRows]) -> None:
    mixture, fresh = MIXTURES[kind](parts), MIXTURES[kind](parts)
    tokens, by_index = np.zeros(3, np.int64), {}
    for index in range(2100):
        by_index[index] = tokens.copy()
        source, stored = mixture.locate(index)
        tokens[source] += int((parts[source].stored_row(stored).document_ids >= 0).sum())
    for index in [0, 7, 8, 640, 641, 2099, 1000, 3, 163, 164]:  # forwards and back
        assert fresh.tokens_before(index).tolist() == by_index[index].tolist(), index


def test_metrics_are_of_the_steps_with_a_growing_batch(parts: list[PackedRows]) -> None:
    mixture, batch = MIXTURES["phases"](parts), BatchSize(16, BatchRamp(start=4, steps=10))
    values = source_metrics(mixture, ["a", "b", "c"], batch, since=20, step=30)
    rows = [mixture.locate(index) for index in range(batch.first_row(30))]
    counted = [Counter[int](), Counter[int]()]
    for index, (source, stored) in enumerate(rows):
        size = int(parts[source].packing.row_tokens[stored])
        counted[0][source] += size
        counted[1][source] += size if index >= batch.first_row(20) else 0
    for source, name in enumerate("abc"):
        assert values[f"data/{name}/tokens"] == counted[0][source]
        share = counted[1][source] / counted[1].total()
        assert values[f"data/{name}/share"] == pytest.approx(share, abs=1e-12)
        epoch = sum(parts[source].packing.length.tolist())
        assert values[f"data/{name}/epochs"] == pytest.approx(counted[0][source] / epoch)


def test_phases_are_the_same_for_every_number_of_processes_and_start(
    parts: list[PackedRows],
) -> None:
    def rows(world_size: int, start: int) -> list[torch.Tensor]:
        ranks = [
            batches(
                MIXTURES["phases"](parts), start_step=start, batch_size=BatchSize(8),
                micro_batch_size=2, rank=rank, world_size=world_size,
            )
            for rank in range(world_size)
        ]  # fmt: skip
        steps = [list(itertools.islice(rank, 100 - start)) for rank in ranks]
        return [
            torch.cat([b.input_ids for rank in steps for b in rank[step]])
            for step in range(100 - start)
        ]

    straight = rows(1, 0)
    for world_size, start in ((2, 0), (4, 79), (1, 80), (2, 81), (4, 99)):
        assert all(map(torch.equal, straight[start:], rows(world_size, start)))


def test_each_source_runs_through_its_own_epochs(parts: list[PackedRows]) -> None:
    mixture = MIXTURES["phases"](parts)
    places = [mixture.locate(index) for index in range(1950)]
    used = Counter(stored for source, stored in places if source == 2)
    assert sum(used.values()) == 910 and max(used.values()) - min(used.values()) <= 1


def conversations(folder: Path) -> TokenShards:
    """300 of one to three answers of other lengths; the first token of the second is learned already."""
    rng, writer = (
        np.random.default_rng(0),
        ShardWriter(folder, "conversation", 1000, part_tokens=999),
    )
    for number in range(300):
        lengths = rng.integers(1, 4, 2 * (1 + number % 3))
        mask = np.repeat(np.arange(len(lengths)) % 2, lengths)
        if number == 1:
            mask = mask[lengths[0] :]
        writer.add(np.full(len(mask), number), np.array([len(mask)]), mask)
    writer.close()
    return TokenShards(folder)


def test_answers_are_counted(tmp_path: Path) -> None:
    assert conversations(tmp_path).answers.tolist() == [1 + i % 3 for i in range(300)]


@pytest.mark.parametrize("order", ["short_first", "few_turns_first"])
def test_the_first_pass_is_in_order_and_later_ones_shuffled(tmp_path: Path, order: Order) -> None:
    shards = conversations(tmp_path)
    plain, rows = PackedRows(shards, 16, 3), PackedRows(shards, 16, 3, order)
    difficulty = shards.lengths if order == "short_first" else shards.answers
    n = len(rows)

    def key(stored: int) -> float:
        first, last = rows.packing.row_starts[stored : stored + 2]
        weights = rows.packing.length[first:last]
        return float(difficulty[rows.packing.document[first:last]] @ weights / weights.sum())

    keys = [key(rows.order(0, index)) for index in range(n)]
    tenths = [keys[-(-t * n // 10) : -(-(t + 1) * n // 10)] for t in range(10)]
    assert all(max(a) <= min(b) for a, b in itertools.pairwise(tenths))
    assert any(tenth != sorted(tenth) for tenth in tenths)
    assert sorted(rows.order(0, index) for index in range(n)) == list(range(n))
    assert [rows.order(1, i) for i in range(n)] == [plain.order(1, i) for i in range(n)]
    alone = Mixture([(rows, None)], 7, [Segment(0, (n,))])
    assert [alone.locate(i)[1] for i in range(2 * n)] == [
        rows.order(*divmod(i, n)) for i in range(2 * n)
    ]


def test_turns_of_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds text shards, which have no turns .* write short_first"
    ):
        PackedRows(make_shards(tmp_path), 32, 3, "few_turns_first")
    PackedRows(make_shards(tmp_path), 32, 3, "short_first")
