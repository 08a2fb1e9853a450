"""What a `prepare` run reads, and the fingerprint of all that decides its result.

Takes a `PrepareConfig`; gives the files, their chunks in a fixed order, and a `request`: settings, tokenizer
and the SHA-256 of every file. Two equal requests make equal shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mengya.data.ingest.reading.encoding import AUTO, detect_encoding
from mengya.data.ingest.reading.files import FoundFiles, find_data
from mengya.data.ingest.reading.notices import say_encodings, say_left_out
from mengya.data.ingest.reading.read import read_chunks
from mengya.data.ingest.reading.records import Chunk
from mengya.data.prepare.config import PrepareConfig, PrepareFilters, PrepareSource
from mengya.data.prepare.encoding.own_filters import find_own_filter
from mengya.data.prepare.encoding.plan import Kind, SourceForm
from mengya.data.prepare.exams.check import check_request
from mengya.data.prepare.request.moved import content
from mengya.data.prepare.request.preflight import refuse_unknown, unknown_form
from mengya.data.prepare.request.saved import SavedRequest
from mengya.runtime.files import write_text
from mengya.tokenizer.chat_template import chat_template_hash
from mengya.tokenizer.load import load_tokenizer, tokenizer_hash

VERSION = 2  # raised when the same settings would give other shards than before
REPEATED_TEXT_VERSION = 2  # the same for what repeated_text alone decides
MAX_ROWS = 100  # of the table, for one folder or glob


class Inputs:
    """The files of all sources, in order.

    Attributes:
        sources: of the configuration; those without a name that are several files are one source a file.
        request: all that decides the result, as JSON, and where the files lie; digest: SHA-256 of the former.
        own_filters: functions of the user's own.
        left_out: the files that a pattern of the configuration finds, and what it leaves out.
        encodings: of the files whose source names none.
        unknown: files that are left out since none of their first records fits, and why.
        total_bytes: of all files on disk; bytes_before: for every file, the bytes of those before it.

    Args:
        checkpoint_sha256: of the model of the filter by perplexity, where there is one.

    Raises:
        UserError: a source has no files, the tokenizer cannot be read or lacks a chat template it needs, or a
            filter of the user's own cannot be imported.
    """

    def __init__(
        self,
        config: PrepareConfig,
        saved: SavedRequest | None = None,
        checkpoint_sha256: str = "",
    ) -> None:
        self.left_out: dict[str, FoundFiles] = {}
        found = [part for source in config.sources for part in self._by_file(source, config.kind)]
        self.encodings = {
            path: detect_encoding(path)
            for source, files in found
            for path in files
            if source.encoding == AUTO
        }
        self._kind: Kind = config.kind
        self.unknown: dict[Path, str] = {}
        if config.skip_unknown_files:
            self.unknown = dict(self._unknown(found))
            kept = [(s, [p for p in files if p not in self.unknown]) for s, files in found]
            found = [(source, files) for source, files in kept if files]
            if not found:
                refuse_unknown(self.unknown.items(), len(self.unknown))
        self.sources = [source for source, _ in found]
        self._files = [files for _, files in found]
        self._stamps: dict[str, list[int]] = {}
        self.bytes_before: dict[str, int] = {}
        self.total_bytes = 0
        described = [
            [self._describe(path, source, saved) for path in files]
            for source, files in zip(self.sources, self._files, strict=True)
        ]
        tokenizer = {"sha256": tokenizer_hash(config.tokenizer)}
        if config.kind != "text":
            tokenizer["chat_template_sha256"] = chat_template_hash(load_tokenizer(config.tokenizer))
        self.request: dict[str, Any] = {
            "version": VERSION,
            "kind": config.kind,
            "tokenizer": tokenizer,
            "clean": config.clean.model_dump(mode="json"),
            "train_on": config.train_on,
            "dedup": config.dedup,
            "validation_fraction": config.validation_fraction,
            "sources": [
                {
                    "name": source.title,
                    "license": source.license,
                    "format": source.format,
                    "field": source.field,
                    "encoding": "utf-8" if source.encoding == AUTO else source.encoding,
                    "split_text": source.split_text,
                    "limit": source.limit,
                    "files": files,
                    **({"columns": source.columns} if source.columns else {}),
                    **({"hub": source.origin} if source.origin else {}),
                }
                for source, files in zip(self.sources, described, strict=True)
            ],
        }
        self.own_filters = [find_own_filter(path, Path.cwd()) for path in config.filters.own]
        if filters := self._filters(config.filters, checkpoint_sha256):
            self.request["filters"] = filters
        if config.contamination is not None:
            self.request["contamination"] = check_request(config.contamination)
        if config.fill:
            self.request["fill"] = config.fill
        if config.placeholders != "warn":
            self.request["placeholders"] = config.placeholders
        if config.near_duplicates.action == "drop" or config.validation_fraction > 0:
            self.request["near_duplicates"] = config.near_duplicates.settings()
        if config.repeated_text is not None:
            settings = config.repeated_text.model_dump(mode="json")
            self.request["repeated_text"] = {**settings, "version": REPEATED_TEXT_VERSION}
        if self.unknown:
            self.request["left_out"] = [str(path) for path in self.unknown]
        text = json.dumps(content(self.request), sort_keys=True, ensure_ascii=False)
        self.digest = hashlib.sha256(text.encode()).hexdigest()

    def chunks(self) -> Iterator[tuple[int, Chunk]]:
        """(number of the source, chunk) of all files, the same ones in the same order every time."""
        for number, (source, files) in enumerate(zip(self.sources, self._files, strict=True)):
            left = source.limit
            for path in files:
                for chunk in read_chunks(path, self._encoding(source, path), source.split_text):
                    if left is not None:
                        left -= chunk.cut(left)
                    yield number, chunk
                    if left == 0:
                        break
                if left == 0:
                    break

    def source_facts(self) -> list[dict[str, Any]]:
        """Name, license, format, files and hub of every source, for the manifest."""
        facts = ("name", "license", "format", "files", "hub")
        return [
            {name: source[name] for name in facts if name in source}
            for source in self.request["sources"]
        ]

    def save(self, path: Path) -> None:
        """Write the request and the files' stamps, for the next run to compare with."""
        text = json.dumps(
            {"request": self.request, "stamps": self._stamps}, ensure_ascii=False, indent=2
        )
        write_text(path, text + "\n")

    def check_forms(self) -> None:
        """Refuse files none of whose first records fits.

        Raises:
            UserError: with all of them.
        """
        found = list(zip(self.sources, self._files, strict=True))
        refuse_unknown(self._unknown(found), sum(map(len, self._files)))

    def _unknown(self, found: list[tuple[PrepareSource, list[Path]]]) -> Iterator[tuple[Path, str]]:
        for source, files in found:
            form = source_form(source)
            for path in files:
                encoding = self._encoding(source, path)
                reason = unknown_form(path, encoding, source.split_text, self._kind, form)
                if reason is not None:
                    yield path, reason

    def _encoding(self, source: PrepareSource, path: Path) -> str:
        return self.encodings[path] if source.encoding == AUTO else source.encoding

    def say_notices(self) -> None:
        """Print what is left out, and which files are not in UTF-8."""
        for pattern, found in self.left_out.items():
            say_left_out(pattern, found)
        say_encodings(self.encodings)

    def _filters(self, config: PrepareFilters, checkpoint_sha256: str) -> dict[str, Any]:
        """What decides their results; nothing when none is on. Models and functions count by content."""
        if config == PrepareFilters():
            return {}
        values = config.model_dump(mode="json", exclude_none=True, exclude={"own"})
        if self.own_filters:
            values["own"] = [f"{own.path} of SHA-256 {own.sha256}" for own in self.own_filters]
        if config.perplexity is not None:
            bounds = config.perplexity.model_dump(exclude={"checkpoint", "device"})
            values["perplexity"] = {**bounds, "checkpoint_sha256": checkpoint_sha256}
        return values

    def _describe(
        self, path: Path, source: PrepareSource, saved: SavedRequest | None
    ) -> dict[str, Any]:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        digest = saved.known_hash(str(path), stamp) if saved else None
        if digest is None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._stamps[str(path)] = stamp
        self.bytes_before[str(path)] = self.total_bytes
        self.total_bytes += status.st_size
        facts = {"path": str(path), "bytes": status.st_size, "sha256": digest}
        if source.encoding != AUTO:
            return facts
        other = self.encodings[path] != "utf-8"
        return facts | ({"encoding": self.encodings[path]} if other else {})

    def _by_file(self, source: PrepareSource, kind: str) -> list[tuple[PrepareSource, list[Path]]]:
        """A source with its files; one without a name as one source a file: the table lists each."""
        patterns = [source.path] if isinstance(source.path, str) else source.path
        found = {pattern: find_data(pattern, texts=kind == "text") for pattern in patterns}
        self.left_out |= found
        named = [file for part in found.values() for file in part.files]
        files = list(dict.fromkeys(named))
        if source.name is not None or len(named) > MAX_ROWS:
            return [(source, files)]
        return [(source.model_copy(update={"path": str(file)}), [file]) for file in files]


def source_form(source: PrepareSource) -> SourceForm:
    return SourceForm(source.format, source.field, tuple(source.columns.items()))
