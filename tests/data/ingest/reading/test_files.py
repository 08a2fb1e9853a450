"""No file is left out without a word, and every usual Chinese encoding is found by itself."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mengya.data.ingest.reading import read
from mengya.data.ingest.reading.encoding import detect_encoding
from mengya.data.ingest.reading.files import find_data, shown_counts
from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource, read_texts
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig, run
from tests.helpers.json_lines import write_lines

SIMPLIFIED = (
    "春天来了，小镇上的花都开了。老王在河边钓鱼，女儿坐在旁边看书。\n"
    "他们说起去年的雨，一共有三十二户人家。\n"
)
TRADITIONAL = (
    "春天來了，小鎮上的花都開了。老王在河邊釣魚，女兒坐在旁邊看書。\n"
    "他們說起去年的雨，一共有三十二戶人家。\n"
)
JAPANESE = "春が来て、町の花が咲いた。王さんは川で釣りをしている。\n"
KOREAN = "봄이 와서 마을의 꽃이 피었다. 왕 씨는 강가에서 낚시를 한다.\n"


def texts_of(path: Path, how: Any = "file") -> list[str]:
    return [r.value["text"] for r in read_records(str(path), BadLines(0), split_text=how)]


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        (SIMPLIFIED, "utf-8", "utf-8"),
        (SIMPLIFIED, "utf-8-sig", "utf-8"),
        (SIMPLIFIED, "gb18030", "gb18030"),
        (SIMPLIFIED, "gb2312", "gb18030"),
        (TRADITIONAL, "gb18030", "gb18030"),
        (TRADITIONAL, "big5", "big5"),
        (SIMPLIFIED, "utf-16", "utf-16"),
        (SIMPLIFIED, "utf-16-le", "utf-16-le"),
        (TRADITIONAL, "utf-16-be", "utf-16-be"),
        ('{"id": 1, "text": "花"}\n', "utf-16-be", "utf-16-be"),
        (SIMPLIFIED, "utf-32", "utf-32"),
        ("科室,问题\n内科,头疼\n", "gb18030", "gb18030"),
        (JAPANESE, "shift_jis", "utf-8"),
        (KOREAN, "euc_kr", "utf-8"),
        ("plain ASCII \x00 with a NUL", "ascii", "utf-8"),
        ("", "utf-8", "utf-8"),
    ],
)
def test_encodings_are_found(tmp_path: Path, text: str, encoding: str, found: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert detect_encoding(tmp_path / "a.txt") == found
    if text and found == encoding:
        assert texts_of(tmp_path / "a.txt") == [text]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode(encoding)))
    assert detect_encoding(tmp_path / "a.txt.gz") == found


def test_a_damaged_utf8_file_stays_utf8(tmp_path: Path) -> None:
    lines = [json.dumps({"text": SIMPLIFIED}, ensure_ascii=False).encode() for _ in range(9)]
    lines[3] = '{"text": "另一种编码的一行"}'.encode("gb18030")
    path = write_lines(tmp_path / "a.jsonl", lines)
    bad = BadLines(1)
    assert len(list(read_records(str(path), bad))) == 8
    assert bad.first[0].line == 4 and "not valid utf-8" in bad.first[0].reason


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
def test_utf16_is_read_as_lines_and_tables(tmp_path: Path, name: str, encoding: str) -> None:
    # the two bytes of 上 (4E0A) and of ਊ (0A0A) hold the byte of a line end
    records = [{"id": str(i), "text": f"第{i}行上ਊ\n的花开了"} for i in range(500)]
    body = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    if name == "a.csv":
        body = "id,text\r\n" + "".join(f'{r["id"]},"{r["text"]}"\r\n' for r in records)
    data = body.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    for given in ("auto", encoding):
        if given == "auto" and encoding == "utf-32":
            continue
        found = read_records(str(tmp_path / name), BadLines(0), encoding=given)
        assert [r.value for r in found] == records


def test_utf16_texts_are_split_as_asked(tmp_path: Path) -> None:
    text = "上一段\n的花\n\n下一段\n开了"
    (tmp_path / "a.txt").write_bytes(text.encode("utf-16"))
    assert texts_of(tmp_path / "a.txt", "blank_line") == ["上一段\n的花\n", "下一段\n开了"]
    assert texts_of(tmp_path / "a.txt", "line") == ["上一段", "的花", "下一段", "开了"]


def test_utf16_that_ends_inside_a_character_is_a_bad_line(tmp_path: Path) -> None:
    full = '{"text": "花开了"}\n{"text": "花开了"}'.encode("utf-16")
    (tmp_path / "a.jsonl").write_bytes(full[:-3])
    bad = BadLines(1)
    assert [r.value for r in read_records(str(tmp_path / "a.jsonl"), bad)] == [{"text": "花开了"}]
    assert bad.first[0].line == 2


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5", "utf-16"])
def test_a_long_line_is_cut_between_characters(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_TEXT", 1000)
    text = TRADITIONAL.replace("\n", "") * 200
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    pieces = texts_of(tmp_path / "a.txt")
    assert len(pieces) > 5 and "".join(pieces) == text


def test_a_mixed_folder_gives_all_that_can_be_read(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.txt", "sub/c.md", "README.md", "LICENSE.txt", ".hidden.txt",
                 "d.docx", "e.docx", "f.pdf", "g.zip", "sub/.git/index", "Makefile"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"")
    found = find_data(str(tmp_path))
    names = [p.relative_to(tmp_path).as_posix() for p in found.files]
    assert names == ["a.txt", "b.jsonl", "sub/c.md"]
    assert shown_counts(found.left_out) == (
        "2 .docx, 1 .pdf, 1 .zip, LICENSE.txt, README.md, without a suffix"
    )
    records = find_data(str(tmp_path), texts=False)
    assert [p.name for p in records.files] == ["b.jsonl"]
    assert records.left_out[".txt"] == 1 and records.left_out[".md"] == 1
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x.xlsx").write_bytes(b"")
    with pytest.raises(UserError, match=r"no data files found, only 1 \.xlsx$"):
        find_data(str(tmp_path / "only"))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: does not exist$"):
        find_data(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"\*\.jsonl: no data files found$"):
        find_data(str(tmp_path / "*.jsonl"))


def test_a_pipe_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jsonl")
    with pytest.raises(UserError, match=r"x.jsonl is a pipe.*write it to a file first"):
        find_data(str(tmp_path / "x.jsonl"))


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "\udcff.jsonl").write_text('{"text": "花"}')
    for place in (tmp_path, tmp_path / "\udcff.jsonl"):
        with pytest.raises(UserError, match=r"udcff.jsonl'.*UTF-8; rename it"):
            find_data(str(place))


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "elsewhere" / "a.jsonl", [{"text": "花"}])
    write_lines(tmp_path / "data" / "z" / "b.jsonl", [{"text": "花"}])
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data" / "z")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    found = [p.relative_to(tmp_path).as_posix() for p in find_data(str(tmp_path / "data")).files]
    assert found == ["data/linked/a.jsonl", "data/z/b.jsonl"]
    by_glob = find_data(str(tmp_path / "data" / "**" / "*.jsonl")).files
    assert [p.relative_to(tmp_path).as_posix() for p in by_glob] == found


def test_prepare_says_what_it_leaves_out_and_which_encodings_it_found(
    tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    write_lines(data / "a.jsonl", [{"text": SIMPLIFIED}])
    (data / "b.txt").write_bytes((SIMPLIFIED + "乙").encode("gb18030"))
    (data / "c.txt").write_bytes((TRADITIONAL + "丙").encode("big5"))
    (data / "d.docx").write_bytes(b"PK")
    out = tmp_path / "out"
    config = PrepareConfig.model_validate(
        {"out": str(out), "tokenizer": str(tokenizer_folder), "sources": str(data), "workers": 1}
    )
    run(config)
    said = capsys.readouterr().err
    assert f"{data}: left out 1 .docx" in said
    assert f"read as gb18030: {data}/b.txt" in said and f"read as big5: {data}/c.txt" in said
    shards = TokenShards(out)
    assert len(shards) == 3 and shards.manifest["bad_lines"] == 0
    files = [source["files"][0] for source in shards.manifest["sources"]]
    assert [file.get("encoding") for file in files] == [None, "gb18030", "big5"]
    run(config)
    assert "up to date" in capsys.readouterr().err
    found = find_data(str(tmp_path))  # the shards lie below it
    assert {p.name for p in found.files} == {"a.jsonl", "b.txt", "c.txt"}
    assert found.left_out == {".docx": 1, f"folder {out} of mengya's own files": 1}
    assert find_data(str(tmp_path / "**")) == found
    named = find_data(str(out / "*.json"))  # no wildcard found the folder
    assert [p.name for p in named.files] == ["data_report.json", "manifest.json", "prepare.json"]


def test_texts_of_the_tokenizer_are_read_the_same_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.txt").write_bytes(SIMPLIFIED.encode("gb18030"))
    write_lines(tmp_path / "a.jsonl", [{"text": "花"}])
    (tmp_path / "d.epub").write_bytes(b"PK")
    assert list(read_texts([TextSource(path=str(tmp_path))], BadLines(0))) == ["花", SIMPLIFIED]
    said = capsys.readouterr().err
    assert "left out 1 .epub" in said and f"read as gb18030: {tmp_path}/b.txt" in said
