"""A file on an HTTP server, of which only the blocks that are read are asked for.

A failure is `HubFailure`, never an OSError: readers take that for a damaged file.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx2
from huggingface_hub.utils import get_session

from mengya.runtime.hub.failure import HubFailure, without
from mengya.runtime.hub.huggingface import as_failure

SMALLEST, LARGEST = 1 << 18, 8 << 20  # bytes of a block; reading on doubles it
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before asking again
T = TypeVar("T")
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class RangedFile(io.RawIOBase):
    """
    Attributes:
        size: of the file.
        fetched: bytes that came from the server.
    """

    def __init__(self, url: str, headers: dict[str, str], size: int) -> None:
        self._url, self._headers, self.size = url, headers, size
        self._position, self.fetched = 0, 0
        self._start, self._block = 0, b""
        self._next = SMALLEST

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self.size - self._position)
        if wanted <= 0:
            return 0
        at = self._position - self._start
        if not 0 <= at < len(self._block):
            self._load(wanted)
            at = 0
        part = self._block[at : at + wanted]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _load(self, wanted: int) -> None:
        """The block that begins at the position: larger than the last one where that was read to its end."""
        follows = self._position == self._start + len(self._block) and self._block
        self._next = min(2 * self._next, LARGEST) if follows else SMALLEST
        stop = min(self.size, self._position + max(self._next, min(wanted, LARGEST)))
        self._start, self._block = (
            self._position,
            _with_patience(lambda: self._ask(self._position, stop)),
        )
        self.fetched += len(self._block)

    def _ask(self, start: int, stop: int) -> bytes:
        headers = {
            **self._headers,
            "Range": f"bytes={start}-{stop - 1}",
            "Accept-Encoding": "identity",
        }
        with _answer(self._url, headers) as answer:
            complete = answer.status_code == 200 and start == 0 and stop == self.size
            if answer.status_code != 206 and not complete:
                raise HubFailure(
                    "the server does not give parts of files, which is needed; name another mirror",
                    400,
                )
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if total.isdigit() and int(total) != self.size:
                raise HubFailure(
                    f"the file has {total} bytes now, and {self.size} in the list of files", 400
                )
            body = answer.read()
        if len(body) != stop - start:
            raise HubFailure(f"{len(body)} bytes came of {stop - start}")
        return body


def get(url: str, headers: dict[str, str]) -> Any:
    """The JSON that a server answers. Raises HubFailure."""

    def ask() -> Any:
        with _answer(url, headers) as answer:
            answer.read()
            try:
                return answer.json()
            except ValueError:
                raise HubFailure("its answer is not JSON", 400) from None

    return _with_patience(ask)


def _with_patience(ask: Callable[[], T]) -> T:
    """Ask again, later and later, where the failure may pass."""
    for wait in WAITS:
        try:
            return ask()
        except HubFailure as failure:
            if failure.status is not None and failure.status not in _PASSING:
                raise
        time.sleep(wait)
    return ask()


@contextmanager
def _answer(url: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
    """A streamed answer of status below 400; other ones, and what happens on the way, are HubFailure."""
    secret = next(iter(headers.get("Authorization", "").split()[-1:]), None)
    try:
        with get_session().stream("GET", url, headers=headers, follow_redirects=True) as answer:
            if answer.status_code >= 400:
                said = answer.read().decode(errors="replace")
                raise HubFailure(without(said, secret), answer.status_code)
            yield answer
    except httpx2.HTTPError as error:
        raise as_failure(error) from None
