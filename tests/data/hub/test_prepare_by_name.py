"""`mengya prepare sources=hub:NAME`: downloaded into the cache, read as any files, pinned in the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from mengya.config import load_config
from mengya.data.prepare.config import PrepareSource
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig, run
from mengya.stages.tokenizer.train import TokenizerConfig
from mengya.stages.tokenizer.train import run as train_tokenizer
from tests.data.hub.conftest import jsonl, one_kind, records, rows
from tests.helpers.data_hub_server import DataHubServer, DataSet

REGISTRY = """
mine: {kind: text, about: x, huggingface: me/set, modelscope: other/set, license: MIT,
       files: data/*, field: content}
talk: {kind: conversation, about: x, huggingface: me/talk, columns: {prompt: 问, response: 答}}
quiz: {kind: exam, about: x, huggingface: me/set}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "registry.yaml"
    path.write_text(REGISTRY, encoding="utf-8")
    return path


@pytest.fixture
def contents(hub: DataHubServer) -> list[dict[str, Any]]:
    """What data/a.parquet and data/b.jsonl of me/set hold, on both hubs."""
    values = [{"content": record["text"], "score": 0.5} for record in records(60)]
    files = {
        "README.md": b"",
        "data/a.parquet": rows(values[:30]),
        "data/b.jsonl": jsonl(values[30:]),
    }
    hub.sets["me/set"] = DataSet(files, license=["cc0-1.0"])
    hub.sets["other/set"] = DataSet(files)
    return values


def prepare(out: Path, tokenizer: Path, sources: Any, **settings: Any) -> dict[str, Any]:
    """The only source of the manifest."""
    values = {"out": out, "tokenizer": tokenizer, "sources": sources, "workers": 1, **settings}
    run(load_config(PrepareConfig, None, values))
    (source,) = json.loads((out / "manifest.json").read_text("utf-8"))["sources"]
    return source


def test_a_name_gives_files_license_fields_and_revision(
    hub: DataHubServer,
    tmp_path: Path,
    tokenizer_folder: Path,
    registry: Path,
    contents: list[dict[str, Any]],
) -> None:
    source = prepare(tmp_path / "out", tokenizer_folder, "hub:mine", registry=registry)
    assert (source["name"], source["license"], source["samples"]) == ("mine", "MIT", 60)
    origin = {"hub": "huggingface", "id": "me/set", "asked": "main", "revision": "c" * 40}
    assert source["hub"] == {**origin, "files": ["data/a.parquet", "data/b.jsonl"]}
    assert all(str(tmp_path / "cache/data/huggingface") in file["path"] for file in source["files"])
    local = [file["path"] for file in source["files"]]
    again = prepare(
        tmp_path / "local", tokenizer_folder, [{"path": local, "field": "content", "name": "x"}]
    )
    tokens = [(tmp_path / name / "00000.tokens.bin").read_bytes() for name in ("out", "local")]
    assert tokens[0] == tokens[1] and "hub" not in again


def test_a_limit_downloads_no_more_than_it_needs(
    hub: DataHubServer, tmp_path: Path, tokenizer_folder: Path, many: list[dict[str, Any]]
) -> None:
    hub.sets["me/set"] = one_kind("a.jsonl", many)
    source = prepare(
        tmp_path / "out", tokenizer_folder, {"path": "hub:me/set", "limit": 15, "name": "few"}
    )
    assert (source["name"], source["read"], source["license"]) == ("few", 15, "apache-2.0")
    assert hub.sent < len(hub.sets["me/set"].files["data/a.jsonl"]) / 1.5
    by_tokens = {"path": "hub:me/set:data/*.jsonl", "limit_tokens": 500}
    source = prepare(tmp_path / "tokens", tokenizer_folder, by_tokens)
    assert 500 <= source["tokens"] < 800 and source["hub"]["files"] == ["data/a.jsonl"]


def test_the_same_again_asks_no_hub_and_a_newer_revision_changes_nothing(
    hub: DataHubServer,
    tmp_path: Path,
    tokenizer_folder: Path,
    registry: Path,
    contents: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = {"sources": "hub:mine", "registry": registry}
    prepare(tmp_path / "out", tokenizer_folder, **keys)
    hub.sets["me/set"].commits.append("d" * 40)
    hub.requests.clear()
    assert prepare(tmp_path / "out", tokenizer_folder, **keys)["hub"]["revision"] == "c" * 40
    assert "up to date" in capsys.readouterr().err and not hub.requests
    new = prepare(tmp_path / "new", tokenizer_folder, **keys)
    assert new["hub"]["revision"] == "d" * 40 and hub.requests
    hub.requests.clear()
    pinned = prepare(
        tmp_path / "pinned", tokenizer_folder, f"hub:mine@{'c' * 40}", registry=registry
    )
    assert pinned["hub"]["revision"] == "c" * 40 and not hub.requests  # it is in the cache


def test_an_interrupted_download_resumes(
    hub: DataHubServer, tmp_path: Path, tokenizer_folder: Path
) -> None:
    hub.sets["me/set"] = one_kind("a.jsonl", records(4000))
    hub.most = 1 << 19
    with pytest.raises(UserError, match=r"type the same again|Check the network"):
        prepare(tmp_path / "out", tokenizer_folder, "hub:me/set")
    assert not (tmp_path / "out").exists()
    hub.most, hub.sent = None, 0
    source = prepare(tmp_path / "out", tokenizer_folder, "hub:me/set")
    assert source["read"] == 4000
    assert hub.sent <= len(hub.sets["me/set"].files["data/a.jsonl"]) - (1 << 18)


def test_columns_of_the_registry_unless_the_user_gives_them(
    hub: DataHubServer, tmp_path: Path, tokenizer_folder: Path, registry: Path
) -> None:
    talk = [
        {"问": f"{i}加一？", "答": f"是{i + 1}。", "x": "好？", "y": f"好{i}。"} for i in range(9)
    ]
    hub.sets["me/talk"] = DataSet({"a.jsonl": jsonl(talk)})
    keys = {"kind": "conversation", "registry": registry}
    prepare(tmp_path / "1", tokenizer_folder, "hub:talk", **keys)
    own = {"path": "hub:talk", "columns": {"prompt": "x", "response": "y"}}
    prepare(tmp_path / "2", tokenizer_folder, own, **keys)
    tokens = [(tmp_path / name / "00000.tokens.bin").read_bytes() for name in ("1", "2")]
    assert tokens[0] != tokens[1]


def test_modelscope_is_one_key_away(
    hub: DataHubServer,
    tmp_path: Path,
    tokenizer_folder: Path,
    registry: Path,
    contents: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = {"path": "hub:mine", "hub": "modelscope", "limit": 40}
    made = prepare(tmp_path / "1", tokenizer_folder, source, registry=registry)
    assert (made["hub"]["id"], made["hub"]["revision"], made["read"]) == ("other/set", "master", 40)
    monkeypatch.setenv("MENGYA_HUB", "modelscope")
    made = prepare(tmp_path / "2", tokenizer_folder, "hub:mine", registry=registry)
    assert made["hub"]["hub"] == "modelscope" and made["read"] == 60


def test_what_is_refused_before_any_work(
    hub: DataHubServer,
    tmp_path: Path,
    tokenizer_folder: Path,
    registry: Path,
    contents: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(sources: Any, match: str, **settings: Any) -> None:
        with pytest.raises(UserError, match=match):
            prepare(tmp_path / "x", tokenizer_folder, sources, registry=registry, **settings)

    refused("hub:talk", "holds samples of the kind conversation; write kind=conversation")
    refused("hub:quiz", "is an exam, which is measured and not trained on")
    refused("hub:nothing", "no data set is called 'nothing'")
    refused("hub:me/gone", "has no data set me/gone")
    refused({"path": ["hub:mine", "a.jsonl"]}, "write one source each")
    refused({"path": "a.jsonl", "limit_bytes": 5}, "limit_bytes is for a path hub:NAME")
    refused("hub:a b", "the form is hub:NAME or hub:OWNER/NAME")
    hub.sets["me/zip"] = DataSet({"a.zip": b"PK"})
    refused("hub:me/zip:*.zip", "no file that `prepare` reads: type mengya data get me/zip out=")
    config = {"out": tmp_path / "t", "sources": "hub:mine"}
    with pytest.raises(UserError, match="type mengya data get hub:mine out=FOLDER first"):
        train_tokenizer(load_config(TokenizerConfig, None, config))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused("hub:mine", "export HF_ENDPOINT=https://hf-mirror.com, or add hub=modelscope")
    assert not (tmp_path / "x").exists()


def test_a_plain_source_is_what_it_was() -> None:
    source = PrepareSource.model_validate("data/a.jsonl")
    assert source.origin is None and source.title == "a"
