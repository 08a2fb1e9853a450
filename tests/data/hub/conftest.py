"""A hub on this machine with small data sets, both hubs pointed at it, and a cache of its own."""

from __future__ import annotations

import gzip
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.utils._http as hf_http
import pyarrow
import pytest
from huggingface_hub import constants
from pyarrow import parquet

from mengya.config import load_config
from mengya.data.hub import ranged
from mengya.data.hub.download import Fetched
from mengya.runtime.hub import huggingface
from mengya.stages.data.get import DataGetConfig, run
from tests.helpers.data_hub_server import DataHubServer, DataSet, data_hub_server

Get = Callable[..., Fetched]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DataHubServer]:
    with data_hub_server() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
        monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses"), False)
        monkeypatch.setattr(ranged, "LARGEST", 1 << 18)  # of a block, which is what a cut loses
        monkeypatch.setattr(huggingface, "SILENCE", 1.0)
        monkeypatch.setattr(ranged, "WAITS", (0.0, 0.0))
        for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN", "MENGYA_HUB", "MENGYA_REGISTRY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.url)
        monkeypatch.setenv("MENGYA_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        moments = SimpleNamespace(sleep=lambda _: None, time=time.time, monotonic=time.monotonic)
        monkeypatch.setattr(hf_http, "time", moments)
        yield running


@pytest.fixture
def get() -> Get:
    """`mengya data get` with these keys."""
    return lambda **keys: run(load_config(DataGetConfig, None, keys))


def records(count: int, **more: Any) -> list[dict[str, Any]]:
    """Texts that do not compress, some 150 bytes each."""
    return [{"text": f"第{i}篇：春天来了。{os.urandom(50).hex()}", **more} for i in range(count)]


def jsonl(values: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()


def rows(values: list[dict[str, Any]], group: int = 1000) -> bytes:
    """A parquet file."""
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(values), buffer, row_group_size=group)
    return buffer.getvalue()


def csv(values: list[dict[str, Any]]) -> bytes:
    lines = [",".join(values[0]), *(",".join(f'"{v}"' for v in value.values()) for value in values)]
    return ("\n".join(lines) + "\n").encode()


MAKERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "a.jsonl": jsonl,
    "b.jsonl.gz": lambda values: gzip.compress(jsonl(values), 1),
    "c.parquet": lambda values: rows(values, 500),
    "d.csv": csv,
    "e.json": lambda values: json.dumps(values, ensure_ascii=False).encode(),
}


def one_kind(name: str, values: list[dict[str, Any]]) -> DataSet:
    """A data set with one file of that kind, and files that are no data."""
    about = {"README.md": b"# About\n", ".gitattributes": b"", "LICENSE.txt": b"..."}
    return DataSet({**about, f"data/{name}": MAKERS[name](values)})


@pytest.fixture(scope="session")
def many() -> list[dict[str, Any]]:
    """Some 3 MB of records."""
    return records(20_000)
