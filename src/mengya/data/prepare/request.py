"""What a `prepare` run reads, the fingerprint of all that decides its result, and whether OUT has it already.

Takes a `PrepareConfig`; gives the files, their chunks in a fixed order, and a `request`: settings, tokenizer
and the SHA-256 of every file. Two equal requests make equal shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mengya.data.ingest.files import find_files
from mengya.data.ingest.read import read_chunks
from mengya.data.ingest.records import Chunk
from mengya.data.prepare.build import TRAIN, VALIDATION
from mengya.data.prepare.config import PrepareConfig, PrepareSource
from mengya.data.shards import TokenShards, rename_license
from mengya.errors import UserError, shown
from mengya.runtime.files import write_text
from mengya.tokenizer.chat_template import chat_template_hash
from mengya.tokenizer.load import load_tokenizer, tokenizer_hash

VERSION = 2  # raised when the same settings would give other shards than before
MAX_ROWS = 100  # of the table, for one folder or glob


@dataclass(frozen=True)
class SavedRequest:
    """prepare.json of a finished folder.

    Attributes:
        request: as `Inputs.request`.
        stamps: size and time of every file when it was hashed.
    """

    request: dict[str, Any]
    stamps: dict[str, list[int]]

    @staticmethod
    def read(path: Path) -> SavedRequest | None:
        """None when there is no such file."""
        if not path.is_file():
            return None
        saved = json.loads(path.read_text(encoding="utf-8"))
        rename_license(saved["request"]["sources"])
        return SavedRequest(saved["request"], saved["stamps"])

    def known_hash(self, path: str, stamp: list[int]) -> str | None:
        """The SHA-256 of a file that has not changed in size and time since."""
        if self.stamps.get(path) != stamp:
            return None
        files = (file for source in self.request["sources"] for file in source["files"])
        return next((file["sha256"] for file in files if file["path"] == path), None)


class Inputs:
    """The files of all sources, in order.

    Attributes:
        sources: of the configuration; those without a name that are several files are one source a file.
        request: all that decides the result, as JSON; digest: its SHA-256.
        total_bytes: of all files on disk; bytes_before: for every file, the bytes of those before it.

    Raises:
        UserError: a source has no files, the tokenizer cannot be read or lacks a chat template it needs.
    """

    def __init__(self, config: PrepareConfig, saved: SavedRequest | None = None) -> None:
        found = [part for source in config.sources for part in _by_file(source)]
        self.sources = [source for source, _ in found]
        self._files = [files for _, files in found]
        self._stamps: dict[str, list[int]] = {}
        self.bytes_before: dict[str, int] = {}
        self.total_bytes = 0
        described = [[self._describe(path, saved) for path in files] for files in self._files]
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
        """Name, license, format and files of every source, for the manifest."""
        facts = ("name", "license", "format", "files")
        return [{name: source[name] for name in facts} for source in self.request["sources"]]

    def save(self, path: Path) -> None:
        """Write the request and the files' stamps, for the next run to compare with."""
        text = json.dumps(
            {"request": self.request, "stamps": self._stamps}, ensure_ascii=False, indent=2
        )
        write_text(path, text + "\n")

    def _describe(self, path: Path, saved: SavedRequest | None) -> dict[str, Any]:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        digest = saved.known_hash(str(path), stamp) if saved else None
        if digest is None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._stamps[str(path)] = stamp
        self.bytes_before[str(path)] = self.total_bytes
        self.total_bytes += status.st_size
        return {"path": str(path), "bytes": status.st_size, "sha256": digest}


def is_up_to_date(
    config: PrepareConfig, saved: SavedRequest, inputs: Inputs, console: Console
) -> bool:
    """Whether OUT holds what would be made; with overwrite=true all its bytes are checked.

    Raises:
        UserError: overwrite is false, and it holds something else, or files are missing or have wrong sizes.
    """
    older = saved.request["version"] < VERSION
    if older and config.overwrite:
        return False
    before = _in_words_of_today(saved.request) if older else saved.request
    if changed := differences(before, inputs.request):
        if config.overwrite:
            return False
        lines = "\n".join(f"  - {line}" for line in changed[:20])
        raise UserError(
            f"{config.out} was made with other settings or files:\n{lines}\n"
            "write overwrite=true to make it again, or choose another out="
        )
    splits = (TRAIN, VALIDATION) if config.validation_fraction > 0 else (".",)
    try:
        for split in splits:
            shards = TokenShards(config.out / split)
            if config.overwrite:
                shards.verify()
    except UserError as error:
        if not config.overwrite:
            raise UserError(f"write overwrite=true to make {config.out} again: {error}") from error
        message = f"{error}\nmaking {config.out} again"
        console.print(message, markup=False, soft_wrap=True, highlight=False)
        return False
    if older:
        message = (
            f"{config.out} was made by an earlier version of mengya, which read some records in another "
            "way (docs/data_format.md); it can be used as it is, overwrite=true makes it again"
        )
        console.print(message, markup=False, soft_wrap=True, highlight=False)
    return True


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


def _in_words_of_today(request: dict[str, Any]) -> dict[str, Any]:
    """A request of version 1; a setting that did not exist then has its default."""
    clean = {"white_space": "indentation", **request["clean"]}
    return {"train_on": "all_turns", **request, "clean": clean, "version": VERSION}


def _entries(value: Any) -> str:
    return f"{len(value)} entries" if isinstance(value, list) else shown(value)


def _by_file(source: PrepareSource) -> list[tuple[PrepareSource, list[Path]]]:
    """A source with its files; one without a name as one source a file, so that the table lists each."""
    patterns = [source.path] if isinstance(source.path, str) else source.path
    found = [file for pattern in patterns for file in find_files(pattern)]
    files = list(dict.fromkeys(found))
    if source.name is not None or len(found) > MAX_ROWS:
        return [(source, files)]
    return [(source.model_copy(update={"path": str(file)}), [file]) for file in files]
