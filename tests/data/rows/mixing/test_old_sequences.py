"""The rows of settings without phases, caps and order are those of earlier versions, bit for bit.

Their runs resume: a digest here that changes breaks every one of them.
"""

from __future__ import annotations

import hashlib
import json

import pytest

from mengya.data.rows.datasets import PackedRows
from mengya.data.rows.mixture import Mixture
from tests.helpers.random_shards import make_shards

# SHA-256 of JSON, first 16 digits, made by the version before phases (commit eecfb06).
SEQUENCES = {
    (None, None, None): "c7c7510182cd4105",
    (0.7, 0.2999, 0.0001): "d9cc954bc5d9ffcb",
    (3, 2, 1): "b0472b497205c3b0",
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[PackedRows]:
    folder = tmp_path_factory.mktemp("shards")
    return [
        PackedRows(make_shards(folder / str(i), count=20 * (i + 1), seed=i), 32, seed=3)
        for i in range(3)
    ]


def digest(places: list[tuple[int, int]]) -> str:
    text = json.dumps([list(place) for place in places])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("weights", SEQUENCES)
def test_a_mixture_is_what_it_was(
    parts: list[PackedRows], weights: tuple[float | None, ...]
) -> None:
    mixture = Mixture(list(zip(parts, weights, strict=True)), seed=5)
    assert digest([mixture.locate(i) for i in range(30_000)]) == SEQUENCES[weights]
    assert mixture.locate(7) == Mixture(list(zip(parts, weights, strict=True)), seed=5).locate(7)


def test_one_source_is_what_it_was(parts: list[PackedRows]) -> None:
    mixture = Mixture([(parts[1], None)], seed=5)
    assert digest([mixture.locate(i) for i in range(3000)]) == "31314a4e19867689"
    assert mixture.global_row(777).input_ids[:5].tolist() == [485, 345, 201, 971, 264]
