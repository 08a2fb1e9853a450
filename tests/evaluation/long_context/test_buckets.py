"""Names and borders of buckets."""

from __future__ import annotations

import pytest

from mengya.evaluation.long_context.buckets import Buckets


def test_the_default_buckets_have_the_names_of_the_field() -> None:
    buckets = Buckets([4096, 8192])
    assert buckets.names == ["0-4k", "4-8k", "8k+"] == Buckets([4000, 8000]).names
    assert [buckets.name(n) for n in (1, 4095, 4096, 8191, 8192, 10**6)] == [
        "0-4k", "0-4k", "4-8k", "4-8k", "8k+", "8k+"
    ]  # fmt: skip
    assert [buckets.bounds(n) for n in range(3)] == [(0, 4096), (4096, 8192), (8192, None)]


@pytest.mark.parametrize(
    ("edges", "names"),
    [([100], ["0-100", "100+"]), ([1000, 4096], ["0-1k", "1-4k", "4k+"]), ([4096, 5000, 5001],
     ["0-4k", "4-5k", "5k-5001", "5001+"])],
)  # fmt: skip
def test_other_edges_are_written_out(edges: list[int], names: list[str]) -> None:
    assert Buckets(edges).names == names
