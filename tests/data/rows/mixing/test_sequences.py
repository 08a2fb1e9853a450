"""Blocks of sources: any index at once, ranks without gaps, exactly the rows of each segment."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest

from mengya.data.rows.mixing.sequences import EvenBlocks, Segment, SegmentBlocks, block_counts


def segments(*counts: tuple[int, ...]) -> list[Segment]:
    starts = [0, *accumulate(map(sum, counts))]
    return [Segment(start, each) for start, each in zip(starts, counts, strict=False)]


def test_a_segment_may_end_anywhere() -> None:
    """What comes before does not change, ranks continue, and no more is taken than `most` says."""
    counts = ((7000, 2000, 1000), (0, 1, 3))
    open_end = SegmentBlocks([Segment(0, counts[0])], seed=2)
    for end in (1, 999, 1000, 1234, 9999, 10_000, 23_456):
        first, second = Segment(0, counts[0]), Segment(end, counts[1])
        cut = SegmentBlocks([first, second], seed=2)
        asked = sorted({0, end // 2, end - 1})
        assert [cut.place(i) for i in asked] == [open_end.place(i) for i in asked]
        seen = open_end.before(end)
        assert cut.before(end).tolist() == seen.tolist() and seen.sum() == end
        assert (seen <= first.most(end)).all() and sum(first.most(end)) <= end + 2000
        for index in range(end, end + 40):
            source, rank = cut.place(index)
            assert rank == seen[source] and source > 0
            seen[source] += 1


CASES = {
    "one source": [(3000,)],
    "a short phase": [(3, 1)],
    "phases": [(9000, 1000), (0, 700), (1500, 1500)],
    "a source of a few rows": [(70_000, 3, 2), (100, 1, 40)],
    "many rare sources": [(20_000, *([1] * 40))],
    "many sources alike": [tuple([51] * 40)],
    "uneven": [(4999, 3001, 777, 0, 13), (1, 2, 3, 4, 5)],
}


@pytest.mark.parametrize("counts", CASES.values(), ids=CASES.keys())
def test_a_segment_has_its_counts_and_ranks_rise_by_one(counts: list[tuple[int, ...]]) -> None:
    blocks = SegmentBlocks(segments(*counts), seed=3)
    total = sum(map(sum, counts))
    last = np.array(counts[-1])
    seen = np.zeros(len(last), np.int64)
    for index in range(total + sum(counts[-1]) + 5):  # after the end the last segment comes again
        if index % 997 == 0:
            assert blocks.before(index).tolist() == seen.tolist()
        source, rank = blocks.place(index)
        assert rank == seen[source]
        seen[source] += 1
        if index == total - 1:
            assert seen.tolist() == np.sum(counts, 0).tolist()


@pytest.mark.parametrize("counts", CASES.values(), ids=CASES.keys())
def test_any_index_is_the_same_in_any_order_of_asking(counts: list[tuple[int, ...]]) -> None:
    total = sum(map(sum, counts))
    straight = SegmentBlocks(segments(*counts), seed=3)
    places = [straight.place(i) for i in range(total)]
    asked = np.random.default_rng(0).permutation(total)[:2000].tolist()
    back = SegmentBlocks(segments(*counts), seed=3)
    assert [back.place(i) for i in asked] == [places[i] for i in asked]
    other = SegmentBlocks(segments(*counts), seed=4)
    if len(counts[0]) > 1 and total > 100:
        assert [other.place(i) for i in range(total)] != places


def test_shares_hold_within_a_phase_and_not_only_over_it() -> None:
    blocks = SegmentBlocks(segments((90_000, 9_000, 1_000)), seed=0)
    for begin in range(0, 100_000, 5000):
        taken = blocks.before(begin + 5000) - blocks.before(begin)
        assert taken.tolist() == pytest.approx([4500, 450, 50], abs=8)


def test_even_blocks_count_what_comes_before() -> None:
    counts = block_counts([0.6, 0.3, 0.1])
    assert counts is not None
    blocks = EvenBlocks(counts, seed=1)
    seen = np.zeros(3, np.int64)
    for index in range(5000):
        assert index % 499 or blocks.before(index).tolist() == seen.tolist()
        source, rank = blocks.place(index)
        assert rank == seen[source]
        seen[source] += 1
