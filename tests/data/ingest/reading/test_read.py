"""Every kind of file is read to the same records, and damage is reported with file, line and reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from mengya.data.ingest.reading import json_values, read
from mengya.data.ingest.reading.files import find_files
from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLines
from mengya.errors import UserError

RECORDS = [{"id": str(i), "text": f'第{i}行，"引号"\n和换行 😀'} for i in range(2500)]


def lines(records: list[dict[str, str]]) -> bytes:
    return b"".join(
        json.dumps(r, ensure_ascii=i % 2 == 0).encode() + b"\n" for i, r in enumerate(records)
    )


def as_csv(records: list[dict[str, str]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["id", "text"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode("utf-8-sig")


def as_parquet(records: list[dict[str, str]]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(records), buffer, row_group_size=700)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[], bytes]] = {
    "a.jsonl": lambda: lines(RECORDS),
    "a.ndjson": lambda: b"\xef\xbb\xbf" + lines(RECORDS).replace(b"\n", b"\r\n"),
    "a.jsonl.gz": lambda: gzip.compress(lines(RECORDS)),
    "a.jsonl.zst": lambda: (
        zstandard.compress(lines(RECORDS[:900])) + zstandard.compress(lines(RECORDS[900:]))
    ),
    "array.json": lambda: json.dumps(RECORDS, ensure_ascii=False, indent=1).encode(),
    "array.json.gz": lambda: gzip.compress(json.dumps(RECORDS).encode()),
    "lines.json": lambda: lines(RECORDS),
    "values.json": lambda: "\n".join(json.dumps(r, indent=2) for r in RECORDS).encode(),
    "a.csv": lambda: as_csv(RECORDS),
    "a.csv.gz": lambda: gzip.compress(as_csv(RECORDS)),
    "a.tsv": lambda: as_csv(RECORDS, "\t"),
    "a.parquet": lambda: as_parquet(RECORDS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_the_same_records(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_values, "BLOCK", 1000)  # values lie across blocks
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_BYTES", 5000)
    (tmp_path / name).write_bytes(WRITERS[name]())
    bad = BadLines(0)
    records = list(read_records(str(tmp_path / name), bad))
    assert [record.value for record in records] == RECORDS
    numbers = [record.line for record in records]
    assert numbers == sorted(numbers)
    if name.startswith("a.js") or name in ("lines.json", "a.parquet"):
        assert numbers == list(range(1, 2501))


def test_line_numbers_of_arrays_and_csv_are_those_of_an_editor(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n {"a": 1},\n\n {"a":\n 2}, {"a": 3}\n]')
    (tmp_path / "a.csv").write_text('a,b\n1,"x\ny"\n2,z\n')
    assert [r.line for r in read_records(str(tmp_path / "a.json"), BadLines(0))] == [2, 4, 5]
    assert [r.line for r in read_records(str(tmp_path / "a.csv"), BadLines(0))] == [2, 4]


def test_text_files_are_split_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("一\n二\n\n \n三\n四", encoding="utf-8")

    def texts(how: Any) -> list[tuple[int, str]]:
        return [
            (r.line, r.value["text"]) for r in read_records(str(path), BadLines(0), split_text=how)
        ]

    assert texts("file") == [(1, "一\n二\n\n \n三\n四")]
    assert texts("line") == [(1, "一"), (2, "二"), (5, "三"), (6, "四")]
    assert texts("blank_line") == [(1, "一\n二\n"), (5, "三\n四")]
    (tmp_path / "b.md.gz").write_bytes(gzip.compress("# 标题".encode()))
    assert [r.value["text"] for r in read_records(str(tmp_path / "b.md.gz"), BadLines(0))] == [
        "# 标题"
    ]


def test_a_huge_text_file_becomes_several_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_TEXT", 100)
    text = "".join(f"第{i}行的文字\n" for i in range(50))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    records = list(read_records(str(tmp_path / "a.txt"), BadLines(0)))
    assert len(records) > 5 and "".join(r.value["text"] for r in records) == text
    assert [r.line for r in records] == [1 + "".join(
        r.value["text"] for r in records[:i]).count("\n") for i in range(len(records))]  # fmt: skip


def test_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("科室,问题\n内科,头疼\n".encode("gb18030"))
    (tmp_path / "a.jsonl").write_bytes('{"text": "头疼"}\n'.encode("gb18030"))
    assert [
        r.value for r in read_records(str(tmp_path / "a.csv"), BadLines(0), encoding="gb18030")
    ] == [{"科室": "内科", "问题": "头疼"}]
    bad = BadLines(5)
    assert list(read_records(str(tmp_path / "*.*"), bad, encoding="utf-8")) == []
    assert [(b.line, b.reason.split(" at ")[0]) for b in bad.first] == [
        (2, "not valid utf-8"),
        (1, "not valid utf-8"),
    ]


@pytest.mark.parametrize("name", [n for n in WRITERS if n.endswith((".gz", ".zst", ".parquet"))])
def test_truncated_files_end_with_a_bad_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_values, "BLOCK", 1000)
    data = WRITERS[name]()
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    bad = BadLines(1)
    records = list(read_records(str(tmp_path / name), bad))
    assert bad.count == 1 and "not read" in bad.first[0].reason
    assert [r.value for r in records] == RECORDS[: len(records)]
    if "parquet" not in name:  # its index is at the end, so nothing of it can be read
        assert len(records) > 500
        assert bad.first[0].line == records[-1].line + 1 or "json" in name or "csv" in name


@pytest.mark.parametrize(
    "name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.csv.gz", "array.json.gz"]
)
def test_files_that_are_something_else_are_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404 not found</html>" * 20)
    bad = BadLines(1)
    assert list(read_records(str(tmp_path / name), bad)) == []
    assert bad.count == 1 and bad.first[0].line == 1 and bad.first[0].file.endswith(name)


def test_damage_in_the_middle_of_a_gzip_file(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(lines(RECORDS)))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    bad = BadLines(10_000)
    records = list(read_records(str(tmp_path / "a.jsonl.gz"), bad))
    assert 0 < len(records) < 2500 and bad.count >= 1


def test_an_array_that_is_not_closed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('[{"a": 1}')
    bad = BadLines(1)
    assert len(list(read_records(str(tmp_path / "b.json"), bad))) == 1
    assert "not closed" in bad.first[0].reason


def test_csv_rows_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n1\n1,2,3\n\n\xff\xfe,2\n3,4\n")
    bad = BadLines(10)
    assert [r.value["a"] for r in read_records(str(tmp_path / "a.csv"), bad)] == ["1", "3"]
    assert [b.line for b in bad.first] == [3, 4, 5, 6]


def test_a_line_without_end_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_RECORD", 1000)
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{"a": "' + b"x" * 5000 + b'"}\n{"a": 3}\n')
    bad = BadLines(1)
    assert [r.value for r in read_records(str(tmp_path / "a.jsonl"), bad)] == [{"a": 1}, {"a": 3}]
    assert bad.first[0].line == 2 and "longer than" in bad.first[0].reason


def test_files_folders_and_globs(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.csv", "sub/c.parquet", "README.md", ".hidden.jsonl", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    def names(pattern: str) -> list[str]:
        return [str(p.relative_to(tmp_path)) for p in find_files(pattern)]

    assert names(str(tmp_path)) == ["a.csv", "b.jsonl", "sub/c.parquet"]  # a README is not data
    assert names(str(tmp_path / "*.jsonl")) == ["b.jsonl"]
    assert names(str(tmp_path / "**" / "*.parquet")) == ["sub/c.parquet"]
    assert names(str(tmp_path / "README.md")) == ["README.md"]
    for name in ("a.csv", "b.jsonl", "sub/c.parquet"):
        (tmp_path / name).unlink()
    assert names(str(tmp_path)) == ["README.md"]


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "news.jsonl").write_bytes(b"")
    (tmp_path / "picture.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"did you mean .*news\.jsonl"):
        find_files(str(tmp_path / "new.jsonl"))
    with pytest.raises(UserError, match="unknown kind"):
        find_files(str(tmp_path / "picture.png"))
    with pytest.raises(UserError, match="no data files"):
        find_files(str(tmp_path / "*.parquet"))
