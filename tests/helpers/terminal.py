"""A program on a real pseudo-terminal: keys in, what it shows out."""

from __future__ import annotations

import codecs
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

ENTER, CTRL_C, CTRL_D, CTRL_J, ALT_ENTER, UP = "\r", "\x03", "\x04", "\n", "\x1b\r", "\x1b[A"
_ROWS, _COLUMNS = 24, 80
_ASKS_POSITION = b"\x1b[6n"
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-B0-2]|[=>78])|\r")


def pasted(text: str) -> str:
    """As a terminal sends a paste (bracketed paste; line ends are those of the Enter key)."""
    return f"\x1b[200~{text}\x1b[201~".replace("\n", "\r")


@dataclass
class Terminal:
    """The terminal's side.

    Attributes:
        process: the program.
        seen: what it has shown, without escape sequences.
    """

    process: subprocess.Popen[bytes]
    descriptor: int
    seen: str = ""
    _utf8: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _raw: str = ""

    def type(self, keys: str) -> int:
        """Send keys; gives the place in `seen` from which on to look for what they do."""
        os.write(self.descriptor, keys.encode())
        return len(self.seen)

    def wait_for(self, pattern: str, start: int = 0, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not re.search(pattern, self.seen[start:]):
            assert time.monotonic() < end, f"{pattern!r} not in {self.seen[start:]!r}"
            if select.select([self.descriptor], [], [], 0.2)[0]:
                try:
                    self._take(os.read(self.descriptor, 65536))
                except OSError as error:  # Linux's answer when the program has ended
                    raise AssertionError(f"it ended: {self.seen[start:]!r}") from error

    def _take(self, data: bytes) -> None:
        for _ in range(data.count(_ASKS_POSITION)):  # as every terminal answers
            os.write(self.descriptor, f"\x1b[{_ROWS};1R".encode())
        self._raw += self._utf8.decode(data)
        self.seen = _ESCAPES.sub("", self._raw)


@contextmanager
def on_terminal(command: list[str], environment: Mapping[str, str]) -> Iterator[Terminal]:
    """The program with the terminal as its controlling one, so that Ctrl-C is a signal."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (_ROWS, _COLUMNS))
    process = subprocess.Popen(
        command, env=dict(environment), preexec_fn=lambda: os.login_tty(child), pass_fds=[child]
    )
    os.close(child)
    try:
        yield Terminal(process, parent)
    finally:
        process.kill()
        process.wait()
        os.close(parent)
