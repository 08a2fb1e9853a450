"""A corpus in a tar archive arrives as files that `prepare` reads; hostile archives write nothing outside."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from mengya.data.hub import tar
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig
from mengya.stages.prepare import run as prepare
from tests.data.hub.conftest import Get
from tests.helpers.data_hub_server import DataHubServer, DataSet

TEXTS = "".join(
    json.dumps({"text": f"第{i}篇：春天来了，小镇的集市开张。"}, ensure_ascii=False) + "\n"
    for i in range(20)
)


def packed(files: dict[str, str | tarfile.TarInfo], mode: str = "w:bz2") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as made:  # type: ignore[call-overload]
        for name, text in files.items():
            if isinstance(text, tarfile.TarInfo):
                made.addfile(text)
                continue
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid = len(text.encode()), 0o4777, 12345
            made.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "mine.yaml").write_text(
        "monkey: {kind: text, about: x, huggingface: me/monkey, files: '*.tar*', field: text}"
    )
    return {"name": "monkey", "registry": tmp_path / "mine.yaml", "out": tmp_path / "monkey"}


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_the_data_files_of_an_archive_arrive(
    hub: DataHubServer, get: Get, tmp_path: Path, keys: dict[str, object], ending: str
) -> None:
    folder = special("./web", tarfile.DIRTYPE)
    files = {"web": folder, "./web/a.jsonl": TEXTS, "b.jsonl": TEXTS, "run.sh": "rm -r ~"}
    mode = "w" if ending == "tar" else f"w:{ending.removeprefix('tar.')}"
    hub.sets["me/monkey"] = DataSet({f"m.{ending}": packed(files, mode)})
    got = get(**keys)
    out = tmp_path / "monkey"
    assert got.files == [out / "b.jsonl", out / "web/a.jsonl"]
    assert (out / "web/a.jsonl").read_text() == TEXTS
    assert (out / "web/a.jsonl").stat().st_mode & 0o7111 == 0  # no mode of the archive
    assert not [p for p in out.rglob("*") if p.name == "run.sh" or ".tar" in p.name]
    sent = hub.sent
    assert get(**keys).files == got.files and hub.sent == sent


def test_prepare_reads_it_by_name(
    hub: DataHubServer, tmp_path: Path, tokenizer_folder: Path, keys: dict[str, object]
) -> None:
    hub.sets["me/monkey"] = DataSet({"m.tar.bz2": packed({"a.jsonl": TEXTS})})
    config = {
        "out": tmp_path / "shards", "tokenizer": tokenizer_folder, "sources": "hub:monkey",
        "registry": keys["registry"],
    }  # fmt: skip
    prepare(PrepareConfig.model_validate(config))
    assert TokenShards(tmp_path / "shards").manifest["samples"] == 20


def test_hostile_archives(
    hub: DataHubServer,
    get: Get,
    tmp_path: Path,
    keys: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tar, "_SMALL", 1 << 20)
    (tmp_path / "secret.jsonl").write_text(TEXTS)
    secret = str(tmp_path / "secret.jsonl")
    good = packed({"a.jsonl": TEXTS})
    for data, message in (
        (packed({"../evil.jsonl": TEXTS}), "a name that leads elsewhere"),
        (packed({"/tmp/evil.jsonl": TEXTS}), "a name that leads elsewhere"),
        (packed({"a": special("a.jsonl", tarfile.SYMTYPE, secret)}), "as a link, not as a file"),
        (packed({"a": special("a.jsonl", tarfile.LNKTYPE, secret)}), "as a link, not as a file"),
        (packed({"a": special("a.jsonl", tarfile.FIFOTYPE)}), "as a link, not as a file"),
        (packed({"a.jsonl": TEXTS, "./a.jsonl": TEXTS}), "holds a.jsonl, which is there already"),
        (packed({"a.jsonl": "0" * (40 << 20)}), "unpacks to more than 1 MiB, 50 times"),
        (packed({"run.sh": "x"}), "holds no data file"),
        (good[: len(good) // 2], "cannot be unpacked"),
        (b"no archive", "cannot be unpacked"),
    ):
        hub.sets["me/monkey"] = DataSet({"m.tar.bz2": data}, commits=[f"{len(data):040d}"])
        with pytest.raises(UserError, match=message):
            get(**{**keys, "overwrite": True})
        assert not (tmp_path / "monkey").exists() and not list(tmp_path.rglob("evil.jsonl"))
    assert not Path("/tmp/evil.jsonl").exists()
    link = special(
        "web", tarfile.SYMTYPE, str(tmp_path)
    )  # a folder that leads elsewhere is not made
    hub.sets["me/monkey"] = DataSet({"m.tar.bz2": packed({"web": link, "web/b.jsonl": TEXTS})})
    assert get(**{**keys, "overwrite": True}).files == [tmp_path / "monkey/web/b.jsonl"]
    assert not (tmp_path / "b.jsonl").exists()
