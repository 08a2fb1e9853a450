"""Parquet and CSV files -> chunks of records (a dict by column)."""

from __future__ import annotations

import csv
import io
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from mengya.data.ingest.reading.compressed import DAMAGE
from mengya.data.ingest.reading.records import MAX_RECORD, Chunk, damage
from mengya.runtime.unicode import is_unicode

_PARQUET_ROWS = 1024
_BUFFER = 1 << 18  # bytes of a column


def csv_chunks(path: Path, stream: IO[bytes], encoding: str) -> Iterator[Chunk]:
    """Rows under the names in the first line; fields may span lines when quoted. Tabs separate in .tsv."""
    csv.field_size_limit(MAX_RECORD)
    # undecodable bytes pass as lone surrogates, so that one bad row does not end the file
    text = io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline="")
    rows = _Rows(text, "\t" if ".tsv" in path.suffixes else ",")
    chunk, header = Chunk(str(path), "value"), None
    try:
        for line, row, problem in rows:
            if header is None and not problem:
                header = [name.removeprefix("\ufeff").strip() for name in row]
                rows.fields = len(header)
                if doubled := _doubled(header):
                    chunk.bad.append((line, doubled))
                    break
            elif not problem and any(not is_unicode(value) for value in row):
                chunk.bad.append((line, f"not valid {encoding}"))
            elif problem:
                chunk.bad.append((line, problem))
            elif chunk.add(line, dict(zip(header or (), row, strict=True)), sum(map(len, row))):
                yield chunk
                chunk = Chunk(str(path), "value")
    except DAMAGE as error:
        chunk.bad.append((rows.line, damage(error)))
    text.detach()  # the caller closes the stream
    yield chunk


class _Rows:
    """Yields (line, fields, what is wrong with them).

    A quote that is never closed would make one field of all rows up to the next quote: where the lines in
    such a field are rows themselves, only the line with that quote is bad.

    Attributes:
        fields: that a row must have, once the header is read.
        line: number of the row that is being read.
    """

    def __init__(self, lines: Iterator[str], delimiter: str) -> None:
        self._lines, self._delimiter = lines, delimiter
        self._taken: list[str] = []
        self._again: deque[str] = deque()
        self._numbered = True  # all rows so far begin with a number
        self.fields = 0
        self.line = 1

    def __iter__(self) -> Iterator[tuple[int, list[str], str]]:
        while True:
            self._taken = []
            try:
                row = next(self._reader(self._next_lines()), None)
                problem = "" if row is None else self._problem(row)
            except csv.Error as error:
                row, problem = [], f"not CSV: {error}"
            if row is None:
                return
            taken = self._taken
            if len(taken) > 1 and self._is_unclosed(taken):
                problem = "a quote that is not closed"
                self._again.extendleft(reversed(taken[1:]))
                del taken[1:]
            elif self.fields and not problem:
                self._numbered = self._numbered and row[0].isdigit()
            yield self.line, row, problem
            self.line += len(taken)

    def _next_lines(self) -> Iterator[str]:
        while True:
            line = self._again.popleft() if self._again else next(self._lines, None)
            if line is None:
                return
            self._taken.append(line)
            yield line

    def _reader(self, lines: Iterable[str], strict: bool = False) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self._delimiter, strict=strict)

    def _problem(self, row: list[str]) -> str:
        if not self.fields or len(row) == self.fields:
            return ""
        return f"{len(row)} fields, the first line names {self.fields}" if row else "empty line"

    def _is_unclosed(self, taken: list[str]) -> bool:
        """Whether the lines of a row are rows: nearly all, where its quotes are well-formed."""
        if self.fields < 2:
            return False
        try:
            next(self._reader(taken, strict=True))
            least, share = 8, 0.9
        except csv.Error:
            least, share = 1, 0.8
        inner = taken[1:-1] or taken[1:]
        if len(inner) < least:
            return False
        return sum(map(self._is_row, inner)) >= share * len(inner)

    def _is_row(self, line: str) -> bool:
        try:
            row = next(self._reader([line]), [])
        except csv.Error:
            return False
        return len(row) == self.fields and (not self._numbered or row[0].isdigit())


def _doubled(names: list[str]) -> str:
    """That two columns have one name; empty when none have."""
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if not twice:
        return ""
    shown = " and ".join(map(repr, twice))
    return f"two columns are named {shown}; rename one. This file is not read"


def parquet_chunks(path: Path, stream: IO[bytes] | None = None, skip: int = 0) -> Iterator[Chunk]:
    """Rows of a parquet file, a thousand at a time, numbered from 1.

    Args:
        stream: where the bytes are; None: in the file.
        skip: rows at the beginning that are left out; row groups of nothing else are not even read.
    """
    import pyarrow
    from pyarrow import parquet

    chunk, row = Chunk(str(path), "value"), 1
    size = path.stat().st_size if stream is None else 0
    try:
        opened = (
            parquet.ParquetFile(path, memory_map=True)
            if stream
            is None  # a column is read in pieces, so that its first rows do not take all of it
            else parquet.ParquetFile(stream, buffer_size=_BUFFER, pre_buffer=False)
        )
        with opened as file:
            total = max(1, file.metadata.num_rows)
            doubled = _doubled(file.schema_arrow.names)
            if doubled:
                chunk.bad.append((row, doubled))
            groups, before = _row_groups(file.metadata, skip)
            row += before
            batches = file.iter_batches(_PARQUET_ROWS, row_groups=groups, use_threads=False)
            for batch in () if doubled else batches:
                for value, problem in _rows(batch):
                    if row <= skip:
                        pass
                    elif problem:
                        chunk.bad.append((row, problem))
                    elif chunk.add(row, value, _size(value)):
                        chunk.position = size * row // total
                        yield chunk
                        chunk = Chunk(str(path), "value")
                    row += 1
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        chunk.bad.append(
            (row, f"not a readable parquet file ({reason}); the rest of it is not read")
        )
    chunk.position = size
    yield chunk


def _row_groups(metadata: Any, skip: int) -> tuple[list[int], int]:
    """The row groups that are left when `skip` rows are, and the rows before them."""
    before = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if before + rows > skip:
            return list(range(group, metadata.num_row_groups)), before
        before += rows
    return [], before


def _rows(batch: Any) -> Iterator[tuple[dict[str, Any], str]]:
    try:
        yield from ((row, "") for row in batch.to_pylist())
    except UnicodeDecodeError:  # one row at a time, to find which
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0], ""
            except UnicodeDecodeError:
                yield {}, "not valid utf-8"


def _size(value: Any) -> int:
    """Characters in a value, roughly: what keeps chunks at about a megabyte."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 8
