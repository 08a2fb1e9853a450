"""The first records of the files of a repository -> local .jsonl.zst files, without the rest of them.

Lines of JSONL are kept byte for byte, so that our readers still name the bad ones; rows of parquet and CSV
and the elements of JSON arrays become a line each. What is done is noted after every few megabytes: a later
call with the same folder continues there. Records go to disk in complete frames of zstd, and what was not
noted is cut off.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import zstandard

from mengya.data.hub.data_hub import DataHub, RemoteFile, Snapshot, is_table
from mengya.data.hub.ranged import RangedFile
from mengya.data.ingest.reading.compressed import unpacked
from mengya.data.ingest.reading.encoding import AUTO, encoding_of
from mengya.data.ingest.reading.files import file_kind
from mengya.data.ingest.reading.read import TextSplit, stream_chunks
from mengya.data.ingest.reading.records import Chunk
from mengya.data.ingest.reading.tables import parquet_chunks
from mengya.errors import UserError
from mengya.runtime.files import write_text
from mengya.runtime.hub.failure import HubFailure

STATE = ".mengya-limited.json"
_COMMIT_BYTES = 4 << 20  # of lines: what an interruption may cost
_SAMPLE = 1 << 16  # bytes that an encoding is guessed from
_SHOWN = 3


@dataclass(frozen=True)
class Limits:
    """How much is wanted at most, each None without a limit; bytes are those of the lines, unpacked."""

    rows: int | None = None
    bytes: int | None = None
    tokens: int | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in asdict(self).values())

    def share(self, done: Progress) -> float:
        """How much of it is done, 1.0 when nothing more is wanted."""
        pairs = ((self.rows, done.rows), (self.bytes, done.bytes), (self.tokens, done.tokens))
        return max((made / most for most, made in pairs if most is not None), default=0.0)


@dataclass
class Progress:
    """What is on disk.

    Attributes:
        file: number of the file that is being read; skip: records of it that are done (rows, in
            parquet); offset: where the next one begins, where that is known.
        rows, bytes, tokens: so far, over all files.
        size: of the local file of `file`, up to which it is good.
        bad: records that could not be read, and the first of them.
    """

    file: int = 0
    skip: int = 0
    offset: int | None = None
    rows: int = 0
    bytes: int = 0
    tokens: int = 0
    size: int = 0
    bad: int = 0
    first_bad: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """How the files are to be read, and how the tokens of a record are counted (not at all: None)."""

    encoding: str = AUTO
    split_text: TextSplit = "file"
    count_tokens: Callable[[list[Any]], list[int]] | None = None


def local_name(path: str) -> str:
    """The file that the records of a remote one go to."""
    return f"{path}.zst" if path.endswith(".jsonl") else f"{path}.jsonl.zst"


def fetch_records(
    hub: DataHub,
    snapshot: Snapshot,
    files: tuple[RemoteFile, ...],
    limits: Limits,
    reading: Reading,
    folder: Path,
    show: Callable[[Progress], object] = lambda progress: None,
) -> Progress:
    """Read until a limit is reached or the files end; resumes in a folder where it was interrupted.

    Raises:
        UserError: a file is of no kind that can be read in part.
        HubFailure: the hub does not answer.
    """
    refuse_unreadable(files)
    done = _resume(folder)
    while done.file < len(files) and limits.share(done) < 1:
        file = files[done.file]
        url, headers = hub.address(snapshot.repo, snapshot.commit, file.path)
        with (
            RangedFile(url, headers, file.size) as remote,
            _Output(folder, file, done, limits, reading) as output,
        ):
            for chunk, offset in _chunks(remote, Path(file.path), done, reading):
                output.add(chunk, offset)
                show(done)
                if limits.share(done) >= 1:
                    break
        if limits.share(done) < 1:
            done.file, done.skip, done.offset, done.size = done.file + 1, 0, None, 0
            _note(folder, done)
    (folder / STATE).unlink(missing_ok=True)
    return done


def refuse_unreadable(files: tuple[RemoteFile, ...]) -> None:
    """Raise when a limit cannot be kept: what is in an archive is not known before all of it is there."""
    wrong = [file.path for file in files if not is_table(file.path)]
    if wrong:
        raise UserError(
            f"{wrong[0]} cannot be read in part: a limit works for .jsonl, .json, .parquet, .csv, .tsv, .txt "
            "and .md, also .gz and .zst. Leave the limit out to get the file, then unpack it"
        )


def _resume(folder: Path) -> Progress:
    try:
        return Progress(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Progress()


def _note(folder: Path, done: Progress) -> None:
    write_text(folder / STATE, json.dumps(asdict(done), ensure_ascii=False))


def _chunks(
    remote: RangedFile, path: Path, done: Progress, reading: Reading
) -> Iterator[tuple[Chunk, int | None]]:
    """(chunk, position behind it where reading can begin again) of what is not done."""
    if file_kind(path) == "parquet":
        with io.BufferedReader(remote, 1 << 16) as raw:
            for chunk in parquet_chunks(path, raw, done.skip):
                yield chunk, None
        return
    encoding = reading.encoding
    lines = file_kind(path) == "lines"
    if encoding == AUTO:
        encoding = "utf-8" if lines else _encoding(remote, path)
    plain = lines and path.suffix.lower() not in (".gz", ".zst")
    skip = done.skip
    if plain and done.offset is not None:
        remote.seek(done.offset)
        skip = 0
    with io.BufferedReader(remote, 1 << 16) as raw, unpacked(path, raw) as stream:
        for chunk in stream_chunks(path, stream, encoding, reading.split_text):
            skip -= _cut_front(chunk, skip)
            yield chunk, raw.tell() if plain else None


def _encoding(remote: RangedFile, path: Path) -> str:
    with unpacked(path, cast(Any, remote)) as stream:
        sample = stream.read(_SAMPLE)
    remote.seek(0)
    return encoding_of(sample)


def _cut_front(chunk: Chunk, skip: int) -> int:
    """Leave out the first `skip` records of a chunk; say how many there were."""
    cut = min(skip, len(chunk.items))
    if cut:
        chunk.bad = [bad for bad in chunk.bad if bad[0] > chunk.lines[cut - 1]]
        del chunk.items[:cut], chunk.lines[:cut]
    return cut


class _Output:
    """The local file of one remote file: complete frames, noted after each."""

    def __init__(
        self, folder: Path, file: RemoteFile, done: Progress, limits: Limits, reading: Reading
    ) -> None:
        self._folder, self._done, self._limits, self._reading = folder, done, limits, reading
        self._path = folder / local_name(file.path)
        self._name, self._by_row = file.path, file_kind(Path(file.path)) == "parquet"
        self._lines: list[bytes] = []
        self._waiting = 0

    def __enter__(self) -> _Output:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab")
        self._file.truncate(self._done.size)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind in (None, HubFailure):
            self._commit()
        self._file.close()
        if self._done.size == 0:
            self._path.unlink(missing_ok=True)

    def add(self, chunk: Chunk, offset: int | None) -> None:
        """Take the records of a chunk up to a limit."""
        done = self._done
        lines = [_line(chunk, item) for item in chunk.items]
        counts = [0] * len(lines)
        if self._reading.count_tokens is not None:
            counts = self._reading.count_tokens(lines)
        for number, line, count in zip(chunk.lines, lines, counts, strict=True):
            if self._limits.share(done) >= 1:
                break
            self._lines.append(line)
            self._waiting += len(line)
            done.rows, done.skip = done.rows + 1, number if self._by_row else done.skip + 1
            done.bytes, done.tokens = done.bytes + len(line), done.tokens + count
        done.bad += len(chunk.bad)
        for number, reason in chunk.bad[: _SHOWN - len(done.first_bad)]:
            done.first_bad.append(f"{self._name}:{number}: {reason}")
        done.offset = offset
        if self._waiting >= _COMMIT_BYTES:
            self._commit()

    def _commit(self) -> None:
        if self._lines:
            self._file.write(zstandard.ZstdCompressor().compress(b"".join(self._lines)))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._done.size = self._file.tell()
            self._lines, self._waiting = [], 0
        _note(self._folder, self._done)


def _line(chunk: Chunk, item: Any) -> bytes:
    """A record as a line of JSONL; what was a line stays what it was."""
    if chunk.form == "json":
        return item + b"\n"
    if chunk.form == "text":
        item = {"text": item.decode(chunk.encoding, errors="replace")}
    return json.dumps(item, ensure_ascii=False, default=str).encode(errors="replace") + b"\n"
