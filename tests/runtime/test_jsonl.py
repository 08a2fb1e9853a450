"""Our own JSONL survives every character and a crash in the middle of a line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mengya.errors import UserError
from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line, read_jsonl, read_metrics, remove_cut_line
from mengya.training.health import quarantine
from mengya.world.generate import handwritten

ODD = "一\u2028二\u2029三\x85四\x1c五\x0b\r\n😀"


def test_line_separators_in_texts_end_no_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    values = [{"step": 1, "text": ODD}, {"step": 2, "text": "half \ud83d"}]
    path.write_bytes("".join(map(json_line, values)).encode())
    assert list(read_jsonl(path)) == values


def test_quarantine_holds_any_text(tmp_path: Path) -> None:
    for step in (4, 2, 4):  # step 4 is noted again
        path = quarantine.note(tmp_path, [step], "skipped", lambda at: [{"text": ODD + str(at)}])
    assert [(line["step"], line["text"]) for line in read_jsonl(path)] == [
        (3, ODD + "2"),
        (5, ODD + "4"),
    ]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_cut_last_line_is_skipped_and_removed_before_more_is_added(
    tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mengya.runtime.jsonl._BLOCK", 4)
    path = tmp_path / "a.jsonl"
    lines = [json_line({"text": text}).encode() for text in ("上", "下")]
    path.write_bytes(lines[0] + lines[1][:-cut])  # also inside a character
    read = list(read_jsonl(path))
    assert read[0] == {"text": "上"} and len(read) == (2 if cut == 1 else 1)
    remove_cut_line(path)
    with path.open("ab") as file:
        file.write(lines[1])
    assert list(read_jsonl(path)) == [{"text": "上"}, {"text": "下"}]


def test_a_file_that_is_one_cut_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "' + b"x" * 100_000)
    assert list(read_jsonl(path)) == []
    remove_cut_line(path)
    assert path.read_bytes() == b""
    remove_cut_line(tmp_path / "no such file")
    assert list(read_jsonl(tmp_path / "no such file")) == []


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\xff\n{"a": 2}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2 is not JSON"):
        list(read_jsonl(path))


def test_the_handwritten_records_are_all_read() -> None:
    assert len(handwritten("documents.jsonl")) > 5 and len(handwritten("dialogues.jsonl")) > 5


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n5\n{"text": "b"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2 is no JSON object"):
        list(read_jsonl(path))


def test_a_write_never_takes_the_place_of_a_pipe_or_device(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (pipe, tmp_path / "link"):
        with pytest.raises(UserError, match="name a file"):
            write_text(path, "text")
    assert pipe.is_fifo() and (tmp_path / "link").is_symlink()


def test_metrics_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": "2.5"}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2 has '2\.5' as `loss`"):
        list(read_metrics(path))


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as refused:
        write_text(tmp_path / ("x" * 250), "text")
    assert refused.value.filename == str(tmp_path / ("x" * 250))
