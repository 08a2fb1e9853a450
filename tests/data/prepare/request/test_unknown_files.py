"""A file of an unknown form is named before any work, and bad lines are limited source by source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mengya.config import load_config
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig, run
from tests.helpers.json_lines import write_lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight good files, and one whose records have no answer."""
    data = tmp_path / "data"
    for number in range(8):
        write_lines(data / f"{number}.jsonl", [{"prompt": f"问{number}", "response": "答"}])
    write_lines(data / "odd.jsonl", [{"instruction": f"问{i}", "reply": "答"} for i in range(500)])
    return data


def prepare(tmp_path: Path, tokenizer: Path, data: Path, *overrides: str) -> TokenShards:
    settings = [f"out={tmp_path / 'out'}", f"tokenizer={tokenizer}", f"sources={data}", "workers=1"]
    run(load_config(PrepareConfig, None, [*settings, "kind=conversation", *overrides]))
    return TokenShards(tmp_path / "out")


def test_a_file_of_an_unknown_form_is_named_and_can_be_left_out(
    tmp_path: Path, tokenizer_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError) as refused:
        prepare(tmp_path, tokenizer_folder, folder, "max_bad_lines=1000")
    said = str(refused.value)
    assert "1 of 9 files" in said and f"{folder / 'odd.jsonl'}: line 1: no known" in said
    assert "nearest is {instruction, output}" in said
    assert not (tmp_path / ".out.mengya-partial").exists()  # before any work
    remedy = said.rsplit("leave these files out with ", 1)[1]
    capsys.readouterr()
    shards = prepare(tmp_path, tokenizer_folder, folder, remedy)
    assert len(shards) == 8 and shards.manifest["left_out"] == [str(folder / "odd.jsonl")]
    table = capsys.readouterr().err
    assert "odd.jsonl" in table and "unknown form" in " ".join(table.split())
    prepare(tmp_path, tokenizer_folder, folder, remedy)
    assert "up to date" in capsys.readouterr().err


def test_nothing_but_unknown_files_is_refused(tmp_path: Path, tokenizer_folder: Path) -> None:
    data = write_lines(tmp_path / "a.jsonl", [{"x": 1}])
    for override in ("skip_unknown_files=true", "dedup=true"):
        with pytest.raises(UserError, match="1 of 1 files fits") as refused:
            prepare(tmp_path, tokenizer_folder, data, override)
        assert "skip_unknown_files" not in str(refused.value)


def test_bad_lines_are_limited_by_source(tmp_path: Path, tokenizer_folder: Path) -> None:
    good = [{"prompt": f"问{i}", "response": f"答{i}"} for i in range(10)]
    for number in range(3):
        write_lines(tmp_path / "data" / f"{number}.jsonl", [*good, b"a", b"b", b"c"])
    with pytest.raises(
        UserError, match=r"max_bad_lines=2 bad lines in one source.*\n.*0\.jsonl:11"
    ):
        prepare(tmp_path, tokenizer_folder, tmp_path / "data", "max_bad_lines=2")
    shards = prepare(tmp_path, tokenizer_folder, tmp_path / "data", "max_bad_lines=3")
    assert shards.manifest["bad_lines"] == 9


def test_bad_lines_are_limited_as_a_share(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mengya.data.ingest.reading.records.CHUNK_RECORDS", 10)
    good = [{"prompt": f"问{i}", "response": f"答{i}"} for i in range(80)]
    write_lines(tmp_path / "data" / "a.jsonl", [good[0], *[b"bad"] * 20, *good[1:]])
    write_lines(tmp_path / "data" / "b.jsonl", [{"prompt": "别的", "response": "答"}])
    settings = ["max_bad_lines=0"]
    with pytest.raises(UserError, match=r"max_bad_share=0\.1"):
        prepare(tmp_path, tokenizer_folder, tmp_path / "data", *settings)
    with pytest.raises(UserError, match=r"a\.jsonl:2"):
        prepare(tmp_path, tokenizer_folder, tmp_path / "data", *settings, "max_bad_share=0.19")
    shards = prepare(tmp_path, tokenizer_folder, tmp_path / "data", *settings, "max_bad_share=0.2")
    assert len(shards) == 81  # the bad ones stand close together and are a fifth of all
    lines = (tmp_path / "out" / "bad_lines.jsonl").read_text("utf-8").split("\n")
    assert len([json.loads(line) for line in lines if line]) == 20


def test_a_damaged_record_of_the_request_is_a_message(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    data = write_lines(tmp_path / "data" / "a.jsonl", [{"prompt": "问", "response": "答"}])
    prepare(tmp_path, tokenizer_folder, data)
    no_version = b'{"request": {"clean": {}, "sources": []}, "stamps": {}}'
    no_hash = (
        b'{"request": {"version": 2, "clean": {}, "sources": [{"name": "a", "license": null, '
        b'"files": [{"path": "a.jsonl"}]}]}, "stamps": {}}'
    )
    for damaged in (b"", b"[]", b'{"request": {}}', b"\xff", b'"x"', no_version, no_hash):
        (tmp_path / "out" / "prepare.json").write_bytes(damaged)
        with pytest.raises(UserError, match=r"prepare\.json is damaged.*write overwrite=true"):
            prepare(tmp_path, tokenizer_folder, data)
    prepare(tmp_path, tokenizer_folder, data, "overwrite=true")
    prepare(tmp_path, tokenizer_folder, data)
