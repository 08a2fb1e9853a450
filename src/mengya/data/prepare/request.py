"""What a `prepare` run reads, and the fingerprint of all that decides its result.

Takes the settings of the run (any object with the attributes of `PrepareConfig`), gives the files, their chunks in a
fixed order, and a `request`: settings, tokenizer and the SHA-256 of every file. Two equal requests make equal shards.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from mengya.data.ingest.clean import CleanConfig
from mengya.data.ingest.files import find_files
from mengya.data.ingest.read import TextSplit, read_chunks
from mengya.data.ingest.records import Chunk
from mengya.errors import shown
from mengya.runtime.files import write_text
from mengya.tokenizer.chat_template import chat_template_of
from mengya.tokenizer.load import load_tokenizer, tokenizer_hash

VERSION = 1  # raised when the same settings would give other shards than before


class SourceSettings(Protocol):
    @property
    def path(self) -> str | list[str]: ...
    @property
    def format(self) -> str | None: ...
    @property
    def field(self) -> str | list[str]: ...
    @property
    def encoding(self) -> str: ...
    @property
    def split_text(self) -> TextSplit: ...
    @property
    def licence(self) -> str | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def title(self) -> str: ...


class Settings(Protocol):
    kind: Any
    tokenizer: Path
    clean: CleanConfig
    dedup: bool
    validation_fraction: float


class RequestFile:
    """prepare.json of a finished folder: its request, and size and time of every file when it was hashed."""

    def __init__(self, path: Path) -> None:
        self.request: dict[str, Any] | None = None
        self.stamps: dict[str, list[int]] = {}
        if path.is_file():
            saved = json.loads(path.read_text(encoding="utf-8"))
            self.request, self.stamps = saved["request"], saved["stamps"]

    def known_hash(self, path: str, stamp: list[int]) -> str | None:
        """The hash of a file that has not changed in size and time since."""
        if self.request is None or self.stamps.get(path) != stamp:
            return None
        files = (file for source in self.request["sources"] for file in source["files"])
        return next((file["sha256"] for file in files if file["path"] == path), None)


S = TypeVar("S", bound=SourceSettings)


class Inputs(Generic[S]):
    """The files of all sources, in order.

    Attributes:
        sources: as given.
        request: all that decides the result, as JSON; digest: its SHA-256.
        total_bytes: of all files on disk; bytes_before: for every file, the bytes of those before it.

    Raises:
        UserError: a source has no files, the tokenizer cannot be read, or has no chat template where one is needed.
    """

    def __init__(self, settings: Settings, sources: list[S], made: RequestFile) -> None:
        self.sources = sources
        self._files = [_files_of(source) for source in self.sources]
        self._stamps: dict[str, list[int]] = {}
        self.bytes_before: dict[str, int] = {}
        self.total_bytes = 0
        described = [[self._describe(path, made) for path in files] for files in self._files]
        tokenizer = {"sha256": tokenizer_hash(settings.tokenizer)}
        if settings.kind != "text":
            template = chat_template_of(load_tokenizer(settings.tokenizer))
            tokenizer["chat_template_sha256"] = hashlib.sha256(template.encode()).hexdigest()
        self.request: dict[str, Any] = {
            "version": VERSION,
            "kind": settings.kind,
            "tokenizer": tokenizer,
            "clean": settings.clean.model_dump(mode="json"),
            "dedup": settings.dedup,
            "validation_fraction": settings.validation_fraction,
            "sources": [
                {
                    "name": source.title,
                    "licence": source.licence,
                    "format": source.format,
                    "field": source.field,
                    "encoding": source.encoding,
                    "split_text": source.split_text,
                    "limit": source.limit,
                    "files": files,
                }
                for source, files in zip(self.sources, described, strict=True)
            ],
        }
        text = json.dumps(self.request, sort_keys=True, ensure_ascii=False)
        self.digest = hashlib.sha256(text.encode()).hexdigest()

    def chunks(self) -> Iterator[tuple[int, Chunk]]:
        """(number of the source, chunk) of all files, the same ones in the same order every time."""
        for number, (source, files) in enumerate(zip(self.sources, self._files, strict=True)):
            left = source.limit
            for path in files:
                for chunk in read_chunks(path, source.encoding, source.split_text):
                    if left is not None:
                        left -= chunk.cut(left)
                    yield number, chunk
                    if left == 0:
                        break
                if left == 0:
                    break

    def source_facts(self) -> list[dict[str, Any]]:
        """Name, licence, format and files of every source, for the manifest."""
        facts = ("name", "licence", "format", "files")
        return [{name: source[name] for name in facts} for source in self.request["sources"]]

    def save(self, path: Path) -> None:
        """Write the request and the files' stamps, for the next run to compare with."""
        text = json.dumps(
            {"request": self.request, "stamps": self._stamps}, ensure_ascii=False, indent=2
        )
        write_text(path, text + "\n")

    @staticmethod
    def processors() -> int:
        """How many processors this process may use."""
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )

    def _describe(self, path: Path, made: RequestFile) -> dict[str, Any]:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        digest = made.known_hash(str(path), stamp)
        if digest is None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._stamps[str(path)] = stamp
        self.bytes_before[str(path)] = self.total_bytes
        self.total_bytes += status.st_size
        return {"path": str(path), "bytes": status.st_size, "sha256": digest}


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Where two requests differ, one line each: "clean.min_characters: 5 -> 10"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            line
            for k in keys
            for line in differences(old.get(k), new.get(k), f"{key}.{k}" if key else k)
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for i, pair in enumerate(zip(old, new, strict=True))
            for line in differences(*pair, f"{key}.{i}")
        ]
    if old == new:
        return []
    return [f"{key}: {_entries(old)} -> {_entries(new)}"]


def _entries(value: Any) -> str:
    return f"{len(value)} entries" if isinstance(value, list) else shown(value)


def _files_of(source: SourceSettings) -> list[Path]:
    patterns = [source.path] if isinstance(source.path, str) else source.path
    found = [path for pattern in patterns for path in find_files(pattern)]
    return list(dict.fromkeys(found))
