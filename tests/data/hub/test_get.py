"""`mengya data get`: complete files, parts of them, revisions, and what is written about them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mengya.data.hub.download import RECORD
from mengya.data.ingest.reading.read import parse_chunk, read_chunks
from mengya.data.ingest.reading.records import Record
from mengya.errors import UserError
from tests.data.hub.conftest import MAKERS, Get, jsonl, one_kind, records, rows
from tests.helpers.data_hub_server import DataHubServer, DataSet

HUBS = ["huggingface", "modelscope"]


def read(path: Path) -> list[Any]:
    chunks = (parse_chunk(chunk) for chunk in read_chunks(path))
    return [record.value for chunk in chunks for record in chunk if isinstance(record, Record)]


@pytest.mark.parametrize("where", HUBS)
def test_all_data_files_arrive_as_they_are(
    hub: DataHubServer, get: Get, tmp_path: Path, where: str
) -> None:
    names, data = sorted(MAKERS), DataSet({})
    for name in names:
        data.files |= one_kind(name, records(20)).files
    hub.sets["me/set"] = data
    got = get(name="me/set", out=tmp_path / "out", hub=where)
    assert [path.name for path in got.files] == names
    for path in got.files:
        assert path.read_bytes() == data.files[f"data/{path.name}"]
    record = json.loads((tmp_path / "out" / RECORD).read_text("utf-8"))
    revision = {"huggingface": "c" * 40, "modelscope": "master"}[where]
    assert record["request"]["revision"] == revision and record["request"]["hub"] == where
    for fact in record["files"]:
        assert fact["sha256"] == hashlib.sha256(data.files[fact["path"]]).hexdigest()
    kept = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert kept == {*names, RECORD, ".mengya.json"}
    assert not list(tmp_path.glob(".out*"))


def test_the_same_again_does_nothing_and_something_else_is_refused(
    hub: DataHubServer, get: Get, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataSet({"a.jsonl": jsonl(records(5)), "b.jsonl": jsonl(records(5))})
    hub.sets["me/set"] = data
    get(name="me/set", out=tmp_path / "out", files="a*")
    sent = hub.sent
    get(name="me/set", out=tmp_path / "out", files="a*")
    assert hub.sent == sent and "up to date" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"files: \['a\*'\] -> \['b\*'\]\n.*overwrite=true"):
        get(name="me/set", out=tmp_path / "out", files="b*")
    data.commits.append("d" * 40)
    with pytest.raises(UserError, match=f"keep what is there with revision={'c' * 40}"):
        get(name="me/set", out=tmp_path / "out", files="a*")
    get(name="me/set", out=tmp_path / "out", files="a*", revision="c" * 40)
    got = get(name="me/set", out=tmp_path / "out", files="b*", overwrite=True)
    assert [path.name for path in got.files] == ["b.jsonl"] and not (
        tmp_path / "out/a.jsonl"
    ).exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"did not write: notes.txt"):
        get(name="me/set", out=tmp_path / "mine", overwrite=True)


def test_a_revision_is_pinned(hub: DataHubServer, get: Get, tmp_path: Path) -> None:
    hub.sets["me/set"] = DataSet({"a.jsonl": jsonl(records(5))}, commits=["a" * 40, "b" * 40])
    newest = get(name="me/set", out=tmp_path / "1").record
    older = get(name=f"me/set@{'a' * 40}", out=tmp_path / "2").record
    assert (newest["request"]["revision"], newest["asked"]) == ("b" * 40, "main")
    assert older["request"]["revision"] == "a" * 40
    assert hub.count(f"/resolve/{'a' * 40}/a.jsonl") and not hub.count("/resolve/main/")
    with pytest.raises(UserError, match="name two revisions"):
        get(name="me/set@a", out=tmp_path / "3", revision="b")


@pytest.mark.parametrize("where", HUBS)
@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_limit_takes_the_first_records_and_not_the_file(
    hub: DataHubServer, get: Get, tmp_path: Path, name: str, where: str, many: list[dict[str, Any]]
) -> None:
    hub.sets["me/set"] = one_kind(name, many)
    got = get(name="me/set", out=tmp_path / "out", rows=20, hub=where)
    assert read(got.files[0]) == many[:20]
    size = len(hub.sets["me/set"].files[f"data/{name}"])
    assert 0 < hub.sent < 0.85 * size and hub.sent <= 2 << 20
    assert got.record["request"]["limits"] == {"rows": 20}


def test_limits_in_bytes_and_over_several_files(
    hub: DataHubServer, get: Get, tmp_path: Path
) -> None:
    first, second = records(10), records(10)
    hub.sets["me/set"] = DataSet({"a.jsonl": jsonl(first), "b.parquet": rows(second)})
    got = get(name="me/set", out=tmp_path / "rows", rows=13)
    assert [len(read(path)) for path in got.files] == [10, 3]
    assert [path.name for path in got.files] == ["a.jsonl.zst", "b.parquet.jsonl.zst"]
    one = len(jsonl(first[:1]))
    got = get(name="me/set", out=tmp_path / "bytes", bytes=3 * one + 1)
    assert [len(read(path)) for path in got.files] == [4]
    got = get(name="me/set", out=tmp_path / "more", rows=1000)
    assert [record for path in got.files for record in read(path)] == [*first, *second]


def test_a_limit_in_tokens(
    hub: DataHubServer, get: Get, tmp_path: Path, tokenizer_folder: Path
) -> None:
    hub.sets["me/set"] = DataSet({"a.jsonl": jsonl([{"text": "春天来了", "id": "x" * 500}] * 50)})
    keys = {"name": "me/set", "tokenizer": tokenizer_folder, "out": tmp_path / "all"}
    all_texts = len(read(get(**keys, tokens=1000).files[0]))
    (tmp_path / "mine.yaml").write_text(
        "mine: {kind: text, about: x, huggingface: me/set, field: text}"
    )
    keys |= {"name": "mine", "registry": tmp_path / "mine.yaml", "out": tmp_path / "text"}
    assert all_texts < 10 < len(read(get(**keys, tokens=100).files[0]))
    with pytest.raises(UserError, match="write tokenizer=PATH as well"):
        get(name="me/set", out=tmp_path / "x", tokens=5)


def test_bad_lines_stay_where_they_were(
    hub: DataHubServer, get: Get, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = jsonl(records(3)) + b'{"text": \n' + jsonl(records(3))
    table = b'text,n\n"a",1\n"b"\n"c",3\n'
    hub.sets["me/set"] = DataSet({"a.jsonl": lines, "b.csv": table})
    got = get(name="me/set", out=tmp_path / "out", rows=100)
    assert len(read(got.files[0])) == 6 and len(read(got.files[1])) == 2
    assert "b.csv:3: 1 fields, the first line names 2" in capsys.readouterr().err


def test_patterns(hub: DataHubServer, get: Get, tmp_path: Path) -> None:
    names = ("a.jsonl", "x/b.jsonl", "x/y/c.jsonl", "x/d.txt.zip", "old/a.jsonl")
    hub.sets["me/set"] = DataSet({name: jsonl(records(1)) for name in names})

    def found(**keys: Any) -> list[str]:
        got = get(out=tmp_path / str(len(list(tmp_path.iterdir()))), **{"name": "me/set", **keys})
        return [str(path.relative_to(got.folder)) for path in got.files]

    assert found(files="*.jsonl") == found(name="me/set:*.jsonl") == ["a.jsonl"]
    assert found(files="**/*.jsonl") == ["a.jsonl", "old/a.jsonl", "x/b.jsonl", "x/y/c.jsonl"]
    assert found(files=["x/*", "o?d/**"]) == ["old/a.jsonl", "x/b.jsonl", "x/d.txt.zip"]
    assert found() == ["a.jsonl", "old/a.jsonl", "x/b.jsonl", "x/y/c.jsonl"]
    with pytest.raises(
        UserError, match=r"no file of me/set on Hugging Face fits 'z\*'; it has 'a.json"
    ):
        found(files="z*")
    with pytest.raises(UserError, match=r"x/d\.txt\.zip cannot be read in part"):
        found(files="x/*", rows=1)


def test_names_of_the_registry(hub: DataHubServer, get: Get, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "mine: {kind: conversation, about: x, huggingface: me/set, modelscope: other/set, files: b*, "
        "license: MIT, faults: [It is odd.]}\nfar: {kind: text, about: x, page: https://example.org/far}\n"
    )
    hub.sets["me/set"] = DataSet({"a.jsonl": jsonl(records(1)), "b.jsonl": jsonl(records(1))})
    hub.sets["other/set"] = DataSet({"b2.jsonl": jsonl(records(1))})
    keys = {"name": "mine", "registry": tmp_path / "mine.yaml"}
    got = get(**keys, out=tmp_path / "1")
    assert [path.name for path in got.files] == ["b.jsonl"] and got.record["license"] == "MIT"
    got = get(**keys, out=tmp_path / "2", hub="modelscope")
    assert [path.name for path in got.files] == ["b2.jsonl"] and got.record["name"] == "mine"
    with pytest.raises(UserError, match=r"is on no hub: get it from https://example.org/far"):
        get(**{**keys, "name": "far"}, out=tmp_path / "3")


def test_the_hub_of_the_environment_is_taken_where_it_has_the_set(
    hub: DataHubServer, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.sets["me/set"] = DataSet({"a.jsonl": jsonl(records(1))})
    (tmp_path / "mine.yaml").write_text("mine: {kind: text, about: x, huggingface: me/set}")
    monkeypatch.setenv("MENGYA_HUB", "modelscope")
    assert get(name="me/set", out=tmp_path / "1").record["request"]["hub"] == "modelscope"
    keys = {"name": "mine", "registry": tmp_path / "mine.yaml"}
    assert get(**keys, out=tmp_path / "2").record["request"]["hub"] == "huggingface"
    with pytest.raises(UserError, match=r"mine is not on modelscope .*; write hub=huggingface"):
        get(**keys, out=tmp_path / "3", hub="modelscope")
    monkeypatch.setenv("MENGYA_HUB", "gitee")
    with pytest.raises(UserError, match="MENGYA_HUB=gitee must be one of huggingface, modelscope"):
        get(name="me/set", out=tmp_path / "4")
