"""Exams by name: the CSV files of their archives, in the layout that `mengya evaluate` reads."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from mengya.data.exams.folders import find_exam
from mengya.data.hub import archive
from mengya.errors import UserError
from tests.data.hub.conftest import Get
from tests.helpers.data_hub_server import DataHubServer, DataSet

HEAD = "id,question,A,B,C,D,answer\n"
ROW = "0,一加一等于几？,一,二,三,四,B\n"


def packed(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files.items():
            made.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "mine.yaml").write_text(
        "quiz: {kind: exam, about: x, huggingface: me/quiz, files: q.zip}"
    )
    return {"name": "quiz", "registry": tmp_path / "mine.yaml", "out": tmp_path / "quiz"}


def test_an_exam_arrives_as_evaluate_reads_it(
    hub: DataHubServer, get: Get, tmp_path: Path, keys: dict[str, object]
) -> None:
    files = {"dev__law_dev.csv": HEAD + ROW, "val__law_val.csv": HEAD + ROW * 3, "README.md": "x"}
    hub.sets["me/quiz"] = DataSet({"q.zip": packed(**files)})
    got = get(**keys)
    assert [path.name for path in got.files] == ["law_dev.csv", "law_val.csv"]
    assert not list((tmp_path / "quiz").rglob("*.zip")) and not list(
        (tmp_path / "quiz").rglob("*.md")
    )
    assert find_exam(tmp_path / "quiz")
    sent = hub.sent
    assert get(**keys).files == got.files and hub.sent == sent


def test_hostile_archives(
    hub: DataHubServer,
    get: Get,
    tmp_path: Path,
    keys: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED", 1 << 20)
    for data, message in (
        (packed(**{"..__..__evil.csv": HEAD}), "a name that leads elsewhere"),
        (packed(**{"dev__a.csv": "0" * (2 << 20)}), "unpacks to more than 1 MiB"),
        (packed(**{"a.txt": "x"}), "holds no CSV file"),
        (b"PK no archive", "cannot be unpacked"),
    ):
        hub.sets["me/quiz"] = DataSet({"q.zip": data}, commits=[f"{len(data):040d}"])
        with pytest.raises(UserError, match=message):
            get(**{**keys, "overwrite": True})
        assert not (tmp_path / "quiz").exists() and not list(tmp_path.rglob("evil.csv"))
