"""Shared by all tests: small work stays on one thread, nothing reaches a hub, real data when it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: a second thread only waits
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED_DATA = Path(
    os.environ.get("MENGYA_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-pages",
        action="store_true",
        help="put what the tutorial's commands print into its pages, instead of comparing",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: a worker that started the tutorial last would keep the others waiting."""
    items.sort(key=lambda item: item.path.name != "test_tutorial.py")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real Chinese text that the project measures itself on; not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}; set MENGYA_SHARED_DATA")
    return SHARED_DATA
