"""What can go wrong on the way: messages say what to type, nothing looks complete, the same call resumes."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from mengya.errors import UserError
from tests.data.hub.conftest import Get, jsonl, one_kind, records
from tests.data.hub.test_get import HUBS, read
from tests.helpers.data_hub_server import TOKEN, DataHubServer, DataSet
from tests.helpers.waiting import wait_until


@pytest.mark.parametrize("where", HUBS)
def test_a_full_download_resumes_where_the_server_died(
    hub: DataHubServer, get: Get, tmp_path: Path, where: str
) -> None:
    files = {f"{i}.jsonl": jsonl(records(4000)) for i in range(3)}
    hub.sets["me/set"] = DataSet(files)
    size = len(files["0.jsonl"])
    hub.most = size + size // 2
    with pytest.raises(UserError, match=r"type the same|Check the network"):
        get(name="me/set", out=tmp_path / "out", hub=where)
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.mengya-partial").is_dir()
    hub.most, hub.sent = None, 0
    got = get(name="me/set", out=tmp_path / "out", hub=where)
    assert [path.read_bytes() for path in got.files] == [files[p.name] for p in got.files]
    assert (
        hub.sent <= 1.8 * size
    )  # the first file is not sent again; of the second what came is kept
    assert not (tmp_path / ".out.mengya-partial").exists()


@pytest.mark.parametrize("kind", ["a.jsonl", "b.jsonl.gz", "c.parquet"])
def test_a_part_resumes_where_the_server_died(
    hub: DataHubServer, get: Get, tmp_path: Path, kind: str, many: list[dict[str, Any]]
) -> None:
    hub.sets["me/set"] = one_kind(kind, many)
    size = len(hub.sets["me/set"].files[f"data/{kind}"])
    keys = {"name": "me/set", "out": tmp_path / "out", "rows": 19_990}
    hub.most = int(0.8 * size)
    with pytest.raises(UserError, match=r"type the same|Check the network"):
        get(**keys)
    assert not (tmp_path / "out").exists()
    hub.most, hub.sent = None, 0
    assert read(get(**keys).files[0]) == many[:19_990]
    if kind != "b.jsonl.gz":  # which can only be read from its beginning
        assert hub.sent < 0.9 * size


@pytest.mark.parametrize("limit", [[], ["rows=19000"]])
def test_a_killed_process_leaves_nothing_that_looks_complete(
    hub: DataHubServer, get: Get, tmp_path: Path, many: list[dict[str, Any]], limit: list[str]
) -> None:
    hub.sets["me/set"] = one_kind("a.jsonl", many)
    size = len(hub.sets["me/set"].files["data/a.jsonl"])
    hub.most, hub.stalls = size * 2 // 3, True
    command = [sys.executable, "-m", "mengya", "data", "get", "me/set", f"out={tmp_path / 'out'}"]
    variables = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    process = subprocess.Popen([*command, *limit], env=variables)
    wait_until(lambda: hub.sent >= (hub.most or 0) or process.poll() is not None, 60)
    process.kill()
    process.wait()
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.mengya-partial").is_dir()
    hub.most = None
    keys = {"rows": 19_000} if limit else {}
    got = get(name="me/set", out=tmp_path / "out", **keys)
    assert read(got.files[0]) == many[: keys.get("rows")]


def test_passing_trouble_is_waited_for(hub: DataHubServer, get: Get, tmp_path: Path) -> None:
    hub.sets["me/set"] = DataSet({"a.jsonl": jsonl(records(20_000))})
    hub.trouble, hub.times = {("GET", "/resolve/"): 503}, 2
    assert len(read(get(name="me/set", out=tmp_path / "1", rows=5).files[0])) == 5
    hub.trouble, hub.times = {("GET", "/repo"): 429}, 2
    got = get(name="me/set", out=tmp_path / "2", rows=5, hub="modelscope")
    assert len(read(got.files[0])) == 5


@pytest.mark.parametrize("where", HUBS)
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "gated or private.*export (HF_TOKEN|MODELSCOPE_API_TOKEN)="),
        (403, "Ask for access on http://127.*/datasets/me/set"),
        (404, "has no data set me/set, or not the revision"),
        (429, "wants fewer requests.*type the same again"),
        (500, "has trouble of its own"),
    ],
)
def test_what_the_hub_refuses(
    hub: DataHubServer, get: Get, tmp_path: Path, where: str, status: int, message: str
) -> None:
    hub.sets["me/set"] = DataSet({"a.jsonl": jsonl(records(5))})
    hub.trouble = {("GET", "datasets/me/set"): status}
    with pytest.raises(UserError, match=message):
        get(name="me/set", out=tmp_path / "out", hub=where)
    assert not list(tmp_path.glob("*out*"))


def test_no_network_names_the_mirror_and_the_other_hub(
    hub: DataHubServer, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"export HF_ENDPOINT=https://hf-mirror.com, or add hub=mod"
    ):
        get(name="skypile", out=tmp_path / "out")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"http://127\.0\.0\.1:9 cannot be reached.*hub=huggingface"
    ):
        get(name="skypile", out=tmp_path / "out", hub="modelscope")


def test_a_gated_set_needs_a_token_which_is_never_shown(
    hub: DataHubServer, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.sets["me/set"] = DataSet({"a.jsonl": jsonl(records(5))}, gated=True)
    for where in HUBS:
        with pytest.raises(UserError, match="it is gated or private"):
            get(name="me/set", out=tmp_path / where, hub=where)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    for where in HUBS:
        assert get(name="me/set", out=tmp_path / where, hub=where).files
        assert get(name="me/set", out=tmp_path / f"{where}-part", hub=where, rows=2).files
    hub.trouble = {("GET", "datasets/me/set"): 500}
    for where in HUBS:
        with pytest.raises(UserError) as caught:
            get(name="me/set", out=tmp_path / "x", hub=where)
        assert TOKEN not in str(caught.value) and "***" in str(caught.value)


@pytest.mark.parametrize("where", HUBS)
def test_a_wrong_size_or_checksum_is_noticed(
    hub: DataHubServer, get: Get, tmp_path: Path, where: str
) -> None:
    good = jsonl(records(100))
    lie = {"b.jsonl": (len(good), "0" * 64)}
    hub.sets["me/set"] = DataSet({"a.jsonl": good, "b.jsonl": good}, lies=lie)
    with pytest.raises(UserError, match=r"b\.jsonl of me/set came damaged: it has another SHA-256"):
        get(name="me/set", out=tmp_path / "out", hub=where)
    assert not (tmp_path / "out").exists()
    hub.sets["me/set"].lies, hub.sent = {}, 0
    got = get(name="me/set", out=tmp_path / "out", hub=where)
    assert [path.read_bytes() for path in got.files] == [good, good] and hub.sent == len(good)
    hub.sets["me/set"].lies = {"b.jsonl": (len(good) + 5, "0" * 64)}
    with pytest.raises(UserError):
        get(name="me/set", out=tmp_path / "size", hub=where)
    assert not (tmp_path / "size").exists()
    with pytest.raises(UserError, match=f"has {len(good)} bytes now"):
        get(name="me/set", out=tmp_path / "part", hub=where, rows=5, files="b*")


@pytest.mark.parametrize(
    "name",
    [
        "../../x.jsonl",
        "/etc/x.jsonl",
        "a/../../x.jsonl",
        "a\\..\\x.jsonl",
        "C:/x.jsonl",
        "a\n.jsonl",
    ],
)
@pytest.mark.parametrize("where", HUBS)
def test_a_name_that_leads_elsewhere_is_refused(
    hub: DataHubServer, get: Get, tmp_path: Path, name: str, where: str
) -> None:
    hub.sets["me/set"] = DataSet({"a.jsonl": jsonl(records(1)), name: jsonl(records(1))})
    for limit in ({}, {"rows": 2}):
        with pytest.raises(UserError, match="a name that leads elsewhere"):
            get(name="me/set", out=tmp_path / "in/out", hub=where, **limit)
    assert not list(tmp_path.rglob("x.jsonl*")) and not (tmp_path / "in/out").exists()
    assert get(name="me/set", out=tmp_path / "out", hub=where, files="a.jsonl").files


def test_a_server_without_ranges(hub: DataHubServer, get: Get, tmp_path: Path) -> None:
    hub.sets["me/set"] = DataSet({"a.jsonl": jsonl(records(5000))})
    hub.no_ranges = True
    for limit in ({}, {"rows": 5}):
        with pytest.raises(UserError, match="does not give parts of files, which is needed"):
            get(name="me/set", out=tmp_path / "out", **limit)


def test_what_no_reader_reads(hub: DataHubServer, get: Get, tmp_path: Path) -> None:
    hub.sets["me/set"] = DataSet({"a.jsonl.gz": gzip.compress(jsonl(records(9)))[:-20]})
    got = get(name="me/set", out=tmp_path / "cut", rows=5)
    assert len(read(got.files[0])) == 5
    hub.sets["me/bad"] = DataSet({"a.parquet": b"PAR1 no parquet at all PAR1" * 99})
    with pytest.raises(UserError, match="no record of me/bad could be read"):
        get(name="me/bad", out=tmp_path / "bad", rows=5)
    hub.sets["me/none"] = DataSet({"README.md": b"nothing"})
    with pytest.raises(
        UserError, match=r"no file of me/none .* is a data file; it has 'README.md'"
    ):
        get(name="me/none", out=tmp_path / "none")
