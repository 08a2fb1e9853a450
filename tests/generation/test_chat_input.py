"""Piped messages in the encodings that people pipe, and the history of what was typed."""

from __future__ import annotations

import codecs
import os
import re
import stat
import sys
import termios
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mengya.errors import UserError
from mengya.generation.chat_input import piped_messages, plain_messages
from mengya.generation.input_history import (
    KEPT,
    LONGEST,
    InputHistory,
    history_file,
    open_history,
)
from mengya.runtime.jsonl import json_line
from tests.helpers.terminal import ENTER, Terminal, on_terminal

TEXT = "你好\r\n\r\n再见\n最后一行"
LINES = ["你好", "", "再见", "最后一行"]


def lines(data: bytes) -> list[str]:
    return list(piped_messages(data.splitlines(keepends=True)))


@pytest.mark.parametrize(
    "data",
    [TEXT.encode(), codecs.BOM_UTF8 + TEXT.encode(), TEXT.encode("utf-16"), TEXT.encode("utf-32"),
     codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be")],
)  # fmt: skip
def test_a_byte_order_mark_is_no_part_of_the_first_message(data: bytes) -> None:
    assert lines(data) == LINES


def test_an_empty_pipe_has_no_message() -> None:
    assert lines(b"") == [] and lines(codecs.BOM_UTF8) == []


def test_a_line_is_given_before_the_next_is_read() -> None:
    def pieces():
        yield "你好\n".encode()
        raise AssertionError("read on")

    assert next(iter(piped_messages(pieces()))) == "你好"


def test_other_encodings_are_refused_with_the_line_and_a_command() -> None:
    with pytest.raises(UserError, match=r"line 2 of .* not UTF-8.*iconv -f GB18030"):
        lines(b"hi\n" + "你好\n".encode("gb18030"))
    with pytest.raises(UserError, match=r"line 1 of .*zero byte.*iconv -f UTF-16LE"):
        lines("hi\n".encode("utf-16-le"))
    with pytest.raises(UserError, match="not UTF-8"):
        lines("你".encode()[:2])  # cut at the end


def test_the_history_is_in_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert history_file({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "mengya/chat_history.jsonl"
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ({}, {"XDG_STATE_HOME": "relative/is/invalid"}):
        expected = tmp_path / ".local/state/mengya/chat_history.jsonl"
        assert history_file(ignored) == expected


def strings(path: Path) -> list[str]:
    return list(InputHistory(path).load_history_strings())


def test_messages_come_back_newest_first_for_their_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "state/mengya/history.jsonl"
    for text in ("你好", "def f():\n    return 1"):
        InputHistory(path).append_string(text)
    assert strings(path) == ["def f():\n    return 1", "你好"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    strings(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_history_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json_line({"text": str(i)}) for i in range(KEPT + 5)), encoding="utf-8")
    assert strings(path)[-1] == "5" and len(strings(path)) == KEPT
    assert path.read_text("utf-8").count("\n") == KEPT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    InputHistory(path).append_string("长" * (LONGEST + 1))
    assert strings(path)[0] == str(KEPT + 4)


def test_a_crash_or_a_foreign_line_does_not_end_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path, said = history_file(), []
    path.parent.mkdir()
    path.write_text('{"text": "一"}\n[]\n{"text": 2}\n{"text": "cu', encoding="utf-8")
    history = open_history(said.append)
    history.append_string("二")
    assert strings(path) == ["二", "一"]
    assert said == [f"what you type is kept in {path}\n(history=false keeps nothing)"]
    path.write_text("not JSON\n", encoding="utf-8")
    open_history(said.append).append_string("三")
    assert "not kept" in said[-1] and f"{path}:1" in said[-1]
    assert path.read_text("utf-8") == "not JSON\n"
    path.unlink()
    path.mkdir()
    open_history(said.append).append_string("四")
    assert "not kept" in said[-1]


# A terminal program of these messages alone: it starts faster than one with a model.
ECHO = """
import sys
from contextlib import closing
from mengya.generation.chat_input import open_messages
with closing(open_messages(sys.argv[1] == "keep", print)) as messages:
    for message in messages:
        print("got", ascii(message))
        if message == "/exit":
            break
"""


def echo(keep: str, **more: str) -> AbstractContextManager[Terminal]:
    path = os.pathsep.join(sys.path)
    return on_terminal(
        [sys.executable, "-c", ECHO, keep], {**os.environ, "PYTHONPATH": path, **more}
    )


def test_nothing_is_kept_when_asked(tmp_path: Path) -> None:
    with echo("no", TERM="xterm", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.wait_for(">")
        start = terminal.type(f"secret{ENTER}")
        terminal.wait_for("got 'secret'", start)
        terminal.type(f"/exit{ENTER}")
        assert terminal.process.wait(30) == 0
        assert "kept" not in terminal.seen
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_without_a_cursor_will_do(tmp_path: Path) -> None:
    with echo("keep", TERM="dumb", LC_ALL="C", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.wait_for("> ")
        start = terminal.type(f"再见{ENTER}")
        terminal.wait_for(re.escape(f"got {'再见'!a}"), start)
        terminal.type(f"/exit{ENTER}")
        assert terminal.process.wait(30) == 0


def test_the_terminal_is_as_it_was_afterwards(tmp_path: Path) -> None:
    with echo("no", TERM="xterm") as terminal:
        before = termios.tcgetattr(terminal.descriptor)
        terminal.wait_for(">")
        start = terminal.type(f"/exit{ENTER}")
        terminal.wait_for("got '/exit'", start)
        assert terminal.process.wait(30) == 0
        assert termios.tcgetattr(terminal.descriptor) == before


def test_what_is_no_file_is_no_history(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "linked").symlink_to(tmp_path / "pipe")
    mode = (tmp_path / "pipe").stat().st_mode
    with pytest.raises(UserError, match="linked is no ordinary file"):
        InputHistory(tmp_path / "linked")
    assert (tmp_path / "pipe").stat().st_mode == mode


def test_text_of_a_terminal_with_another_encoding_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter([b"\xc4\xe3".decode("utf-8", "surrogateescape"), "你好"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert next(plain_messages()) == "你好"
    assert "not UTF-8" in capsys.readouterr().out
    history = InputHistory(tmp_path / "history")
    history.store_string("\udcc4")
    assert (tmp_path / "history").read_text() == ""
