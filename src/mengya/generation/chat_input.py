"""Messages from standard input: typed on a terminal, or a line each from a pipe or a file.

On a terminal prompt_toolkit edits them: a paste of several lines is one message, whatever the locale says.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import TextIOWrapper
from itertools import chain
from typing import TYPE_CHECKING

from mengya.data.ingest.reading.encoding import marked_encoding
from mengya.errors import UserError
from mengya.runtime.unicode import is_unicode

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.output import Output

PROMPT = "> "
LEAVE = "(/exit or Ctrl-D leaves)"
NOT_UTF8 = "(not sent: the terminal's text is not UTF-8; set its encoding to UTF-8)"


Messages = Generator[str, None, None]


def open_messages(keep_history: bool, say: Callable[[str], None]) -> Messages:
    """The messages, in the order in which they come; ends with the input. Close it: it changes the terminal.

    Args:
        keep_history: whether what is typed on a terminal is kept between sessions.
        say: shows a note.

    Raises:
        UserError: piped text is not in UTF-8 or UTF-16.
    """
    if sys.stdin is None:  # closed by whoever started the program
        return piped_messages(())
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        _speak_chinese(stream)
    if not sys.stdin.isatty():
        return piped_messages(iter(sys.stdin.buffer.readline, b""))
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown") and sys.platform != "win32":
        return plain_messages()  # no cursor to move: the terminal edits the line
    if find_spec("prompt_toolkit") is None:  # a clone that was updated and not installed again
        say("each line is a message, until you type: pip install prompt_toolkit")
        return plain_messages()
    return _edited_messages(keep_history, say)


def piped_messages(pieces: Iterable[bytes]) -> Messages:
    """Lines, as soon as they are complete; a byte order mark at the start is no part of the first.

    Raises:
        UserError: the text is not in UTF-8, or UTF-16 with a mark; names the line.
    """
    pieces = iter(pieces)
    first = next(pieces, b"")
    encoding = marked_encoding(first) or "utf-8"
    decoder = codecs.getincrementaldecoder(encoding)()
    count, pending = 0, ""
    for raw in chain([first], pieces, [b""]):
        try:
            pending += decoder.decode(raw, final=not raw)
        except UnicodeDecodeError:
            raise UserError(
                f"line {count + 1} of standard input is not {encoding.upper()}; convert the text first, "
                "for example from GB18030: iconv -f GB18030 -t UTF-8 FILE | mengya chat ..."
            ) from None
        if "\0" in pending:
            raise UserError(
                f"line {count + 1} of standard input holds a zero byte, as UTF-16 without a byte order "
                "mark does; convert the text first: iconv -f UTF-16LE -t UTF-8 FILE | mengya chat ..."
            )
        *lines, pending = pending.split("\n")
        for line in lines:
            yield _without_ends(line, count)
            count += 1
    if last := _without_ends(pending, count):
        yield last


def _without_ends(line: str, number: int) -> str:
    line = line.removesuffix("\r")
    return line if number else line.removeprefix("\ufeff")


def plain_messages() -> Messages:
    while True:
        try:
            text = input(PROMPT)
        except KeyboardInterrupt:
            print(f"\n{LEAVE}", flush=True)  # noqa: T201
            continue
        except EOFError:
            print(flush=True)  # noqa: T201
            return
        if is_unicode(text):
            yield text
        else:
            print(NOT_UTF8, flush=True)  # noqa: T201


def _edited_messages(keep_history: bool, say: Callable[[str], None]) -> Messages:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.output import create_output

    from mengya.generation.input_history import open_history

    session: PromptSession[str] = PromptSession(
        PROMPT,
        multiline=True,
        prompt_continuation="  ",
        key_bindings=_keys(),
        history=open_history(say) if keep_history else InMemoryHistory(),
        enable_suspend=True,
        output=create_output(always_prefer_tty=True),  # replies may go to a file
    )
    with _typing_ahead(session.output):
        while True:
            try:
                text = session.prompt()
            except KeyboardInterrupt:
                say(LEAVE)
                continue
            except EOFError:
                return
            if not is_unicode(text):
                say(NOT_UTF8)
                continue
            session.output.enable_bracketed_paste()  # for the time of the reply as well
            session.output.flush()
            yield text


@contextmanager
def _typing_ahead(output: Output) -> Iterator[None]:
    """Between prompts, while a reply is written, keys wait for the next prompt as they are.

    They are not shown inside the reply, an Enter is no line feed, a Ctrl-D is not lost and a paste is one
    message. Ctrl-C is still a signal, and discards none of them.
    """
    if sys.platform == "win32":  # whose console does none of that
        yield
        return
    import termios

    before = termios.tcgetattr(sys.stdin)
    quiet = termios.tcgetattr(sys.stdin)
    quiet[0] &= ~termios.ICRNL
    quiet[3] = quiet[3] & ~(termios.ECHO | termios.ICANON) | termios.NOFLSH
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        output.disable_bracketed_paste()
        output.flush()
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def _keys() -> KeyBindings:
    """Enter sends; Alt-Enter and Ctrl-J begin a new line."""
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # not while Ctrl-R searches the history

    @keys.add("enter", filter=typing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=typing)
    @keys.add("c-j", filter=typing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _speak_chinese(stream: object) -> None:
    """UTF-8, unless it is a terminal of a locale whose encoding has Chinese: LC_ALL=C has none."""
    if not isinstance(stream, TextIOWrapper):
        return
    if stream.isatty():
        try:
            "萌芽".encode(stream.encoding)
            return
        except UnicodeEncodeError:
            pass
    stream.reconfigure(encoding="utf-8", errors="replace")
