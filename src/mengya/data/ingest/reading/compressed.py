"""Opens a file as bytes, uncompressed on the way when its name ends in .gz or .zst.

Gives a buffered stream and a function that says how many bytes of the file on disk are read (for a progress
bar).
A compressed file that ends early raises EOFError and is not taken for a short one.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import zstandard

from mengya.errors import UserError

DAMAGE = (EOFError, OSError, zlib.error, zstandard.ZstdError)
"""What reading a damaged file raises."""


@contextmanager
def open_stream(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
    """(stream of `path`, function that gives the bytes of the file read so far).

    Raises:
        UserError: it may not be read.
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}") from None
    with raw, unpacked(path, raw) as stream:
        yield stream, raw.tell


@contextmanager
def unpacked(path: Path, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """The bytes of an open file, uncompressed as the name of `path` says."""
    if path.suffix.lower() == ".gz":
        with gzip.GzipFile(fileobj=raw) as stream:
            yield cast(IO[bytes], stream)
    elif path.suffix.lower() == ".zst":
        with io.BufferedReader(_Zstd(raw), 1 << 17) as stream:
            yield cast(IO[bytes], stream)
    else:
        yield raw


class _Zstd(io.RawIOBase):
    """Frames of zstd one after the other. (zstandard's own reader accepts truncated frames.)"""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._ready = b""
        self._frame: zstandard.ZstdDecompressionObj | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            packed = self._frame.unused_data if self._frame and self._frame.eof else b""
            packed = packed or self._raw.read(1 << 16)
            if not packed:
                if self._frame and not self._frame.eof:
                    raise EOFError("the zstd data ends in the middle of a frame")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._ready = self._frame.decompress(packed)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
