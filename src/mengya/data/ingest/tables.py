"""Parquet and CSV files -> chunks of records (a dict by column)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mengya.data.ingest.compressed import DAMAGE
from mengya.data.ingest.records import MAX_RECORD, Chunk, damage

_PARQUET_ROWS = 1024


def csv_chunks(path: Path, stream: IO[bytes], encoding: str) -> Iterator[Chunk]:
    """Rows under the names in the first line; fields may span lines when quoted. Tabs separate in .tsv."""
    csv.field_size_limit(MAX_RECORD)
    # undecodable bytes pass as lone surrogates, so that one bad row does not end the file
    text = io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline="")
    rows = csv.reader(text, delimiter="\t" if ".tsv" in path.suffixes else ",")
    chunk, header, line = Chunk(str(path), "value"), None, 1
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            chunk.bad.append((line, f"not CSV: {error}"))
            line = rows.line_num + 1
            continue
        except DAMAGE as error:
            chunk.bad.append((line, damage(error)))
            break
        if row is None:
            break
        if header is None:
            header = [name.removeprefix("\ufeff").strip() for name in row]
        elif len(row) != len(header):
            reason = (
                f"{len(row)} fields, the first line names {len(header)}" if row else "empty line"
            )
            chunk.bad.append((line, reason))
        elif any(not _is_text(value) for value in row):
            chunk.bad.append((line, f"not valid {encoding}"))
        elif chunk.add(line, dict(zip(header, row, strict=True)), sum(map(len, row))):
            yield chunk
            chunk = Chunk(str(path), "value")
        line = rows.line_num + 1
    text.detach()  # the caller closes the stream
    yield chunk


def parquet_chunks(path: Path) -> Iterator[Chunk]:
    """Rows of a parquet file, a thousand at a time, numbered from 1."""
    import pyarrow
    from pyarrow import parquet

    chunk, row = Chunk(str(path), "value"), 1
    size = path.stat().st_size
    try:
        with parquet.ParquetFile(path, memory_map=True) as file:
            total = max(1, file.metadata.num_rows)
            for batch in file.iter_batches(_PARQUET_ROWS, use_threads=False):
                for value, problem in _rows(batch):
                    if problem:
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


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
