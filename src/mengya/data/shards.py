"""Token shards: documents as token ids in flat files, one numpy memmap each.

A shard folder is `manifest.json` and parts `00000`, `00001`, ... of three little-endian files:

    00000.tokens.bin     uint16 (uint32 above 65,536 ids), the documents end to end
    00000.doc_ends.bin   uint64, for every document where it ends in tokens.bin, counted in tokens
    00000.loss_mask.bin  uint8 per token, 1 where a loss is taken on it; conversations and preferences only

A document never spans two parts. In a preference folder document 2i is the chosen and 2i+1 the rejected
side of pair i. Knows nothing of text, tokenizers or batches.

The manifest has the CRC-32 (zlib) of every file. Its state is one number, so an interrupted run can save it
and resume, which no hash of hashlib can; it finds all damage within 32 bits in a row, and misses other
damage once in 2^32.
"""

from __future__ import annotations

import json
import os
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from mengya.errors import UserError
from mengya.runtime.files import write_text
from mengya.version import __version__, check_format

FORMAT = 1  # raised when an earlier mengya could not read the files
_FORMAT_NAME = "mengya-shards-"
MANIFEST = "manifest.json"
KINDS = ("text", "conversation", "preference")
PART_TOKENS = 1 << 28  # a part is closed at the first batch that reaches this many tokens
_FILES = ("tokens", "doc_ends", "loss_mask")
_READ_BYTES = 1 << 22


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id below `vocab_size`."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def part_file(directory: Path, part: int, name: str) -> Path:
    return directory / f"{part:05d}.{name}.bin"


class ShardWriter:
    """Appends documents to a shard folder, whose manifest `close` writes last.

    `state()` says, after a flush to disk, how much is written; a writer made with `resume=state` cuts the
    files back to exactly that, so that an interrupted run ends in the same bytes as an uninterrupted one.
    """

    def __init__(
        self,
        directory: Path,
        kind: str,
        vocab_size: int,
        *,
        part_tokens: int = PART_TOKENS,
        resume: list[list[int]] | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
        self.directory, self.kind, self.vocab_size = Path(directory), kind, vocab_size
        self.dtype = token_dtype(vocab_size)
        self.masked = kind != "text"
        # Of each part: documents, tokens, and the CRC-32 of each of its files so far.
        self.parts = [list(part) for part in resume or []]
        self._part_tokens = part_tokens
        self._files: dict[str, IO[bytes]] = {}
        self.directory.mkdir(parents=True, exist_ok=True)
        if resume is not None:
            self._cut_back()

    def add(
        self, tokens: np.ndarray, lengths: np.ndarray, loss_mask: np.ndarray | None = None
    ) -> None:
        """Append documents.

        Args:
            tokens: [sum of lengths] ids, the documents end to end.
            lengths: [documents] tokens of each.
            loss_mask: [sum of lengths] 1 where a loss is taken; not for text.
        """
        if len(lengths) == 0:
            return
        if int(lengths.sum()) != len(tokens) or (
            self.masked and (loss_mask is None or len(loss_mask) != len(tokens))
        ):
            raise ValueError("tokens, lengths and loss_mask do not describe the same documents")
        if len(tokens) and int(tokens.max()) >= self.vocab_size:
            raise ValueError(f"token id {int(tokens.max())} in a vocabulary of {self.vocab_size}")
        if not self.parts or self.parts[-1][1] >= self._part_tokens:
            self._open_part()
        part = self.parts[-1]
        ends = part[1] + np.cumsum(lengths, dtype=np.uint64)
        written = [tokens.astype(self.dtype), ends.astype("<u8")]
        if self.masked and loss_mask is not None:
            written.append(loss_mask.astype(np.uint8))
        for at, (name, values) in enumerate(zip(self._names(), written, strict=True), 2):
            data = values.tobytes()
            self._files[name].write(data)
            part[at] = zlib.crc32(data, part[at])
        part[0] += len(lengths)
        part[1] += len(tokens)

    def state(self) -> list[list[int]]:
        """Flush to disk and say [documents, tokens, CRC-32 of each file ...] of every part."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        return [list(part) for part in self.parts]

    def close(self, **facts: Any) -> dict[str, Any]:
        """Write the manifest (`facts` are added to it: tokenizer, characters, sources ...) and return it."""
        parts = self.state()
        for file in self._files.values():
            file.close()
        self._files = {}
        manifest = {
            "format": f"{_FORMAT_NAME}{FORMAT}",
            "mengya_version": __version__,
            "kind": self.kind,
            "vocab_size": self.vocab_size,
            "dtype": self.dtype.name,
            "documents": sum(documents for documents, *_ in parts),
            "tokens": sum(tokens for _, tokens, *_ in parts),
            "parts": [
                {
                    "documents": documents,
                    "tokens": tokens,
                    "crc32": {n: f"{c:08x}" for n, c in zip(self._names(), sums, strict=True)},
                }
                for documents, tokens, *sums in parts
            ],
            **facts,
        }
        text = json.dumps(manifest, ensure_ascii=False, indent=2)
        write_text(self.directory / MANIFEST, text + "\n")
        return manifest

    def _names(self) -> tuple[str, ...]:
        return _FILES if self.masked else _FILES[:2]

    def _open_part(self) -> None:
        self.state()
        for file in self._files.values():
            file.close()
        self.parts.append([0, 0, *(0 for _ in self._names())])
        number = len(self.parts) - 1
        self._files = {n: part_file(self.directory, number, n).open("wb") for n in self._names()}

    def _cut_back(self) -> None:
        """Remove what was written after the state that we resume from."""
        wanted = {
            part_file(self.directory, p, n) for p in range(len(self.parts)) for n in self._names()
        }
        for path in self.directory.glob("[0-9]*.bin"):
            if path not in wanted:
                path.unlink()
        for number, part in enumerate(self.parts):
            documents, tokens, *sums = part
            sizes = {
                "tokens": tokens * self.dtype.itemsize,
                "doc_ends": documents * 8,
                "loss_mask": tokens,
            }
            for name in self._names():
                os.truncate(part_file(self.directory, number, name), sizes[name])
            if not sums:  # the state of a version without checksums
                part += [_crc32(part_file(self.directory, number, n)) for n in self._names()]
        if self.parts:
            number = len(self.parts) - 1
            self._files = {
                n: part_file(self.directory, number, n).open("ab") for n in self._names()
            }


class TokenShards:
    """A shard folder, read through memory maps.

    Attributes:
        manifest: what `ShardWriter.close` wrote.
        kind: text, conversation or preference.
        lengths: [documents] int64, tokens of every document.

    Raises:
        UserError: no manifest, an unknown format, files shorter or longer than the manifest says (all are
            named), or ends of documents that do not rise to the end of their part. `verify` checks the rest.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.manifest = _read_manifest(self.directory)
        self.kind: str = self.manifest["kind"]
        self.vocab_size: int = self.manifest["vocab_size"]
        self._check_sizes()
        self._tokens: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []
        self._first_document = [0]  # of every part, and the total
        starts, lengths = [], []
        for number, part in enumerate(self.manifest["parts"]):
            documents, tokens = part["documents"], part["tokens"]
            ends = self._map(number, "doc_ends", "<u8", documents).astype(np.int64)
            begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
            if documents and ((ends < begins).any() or ends[-1] != tokens):
                raise UserError(
                    f"{part_file(self.directory, number, 'doc_ends')} is damaged: its numbers do not rise "
                    f"to the {tokens} tokens of the part; {_AGAIN}"
                )
            starts.append(begins)
            lengths.append(ends - begins)
            self._tokens.append(self._map(number, "tokens", self.manifest["dtype"], tokens))
            if self.kind != "text":
                self._masks.append(self._map(number, "loss_mask", "u1", tokens))
            self._first_document.append(self._first_document[-1] + documents)
        self._starts = np.concatenate(starts) if starts else np.zeros(0, np.int64)
        self.lengths = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Token ids of a document, or its positions [start, stop): a view of the file, uint16 or uint32."""
        return self._slice(self._tokens, document, start, stop)

    def loss_mask(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """uint8, 1 where a loss is taken on the token; all ones for text."""
        if self.kind == "text":
            stop = int(self.lengths[document]) if stop is None else stop
            return np.ones(max(0, min(stop, int(self.lengths[document])) - start), np.uint8)
        return self._slice(self._masks, document, start, stop)

    @property
    def labelled_share(self) -> float:
        """The part of all tokens that a loss is taken on, 0 to 1; reads all of the masks."""
        labelled = sum(int(mask.sum(dtype=np.int64)) for mask in self._masks)
        return labelled / max(1, int(self.lengths.sum())) if self._masks else 1.0

    @property
    def answers(self) -> np.ndarray:
        """[documents] int64, stretches of tokens that a loss is taken on: the answers; reads all masks."""
        counts = []
        for part, mask in enumerate(self._masks):
            documents = slice(self._first_document[part], self._first_document[part + 1])
            begins = self._starts[documents]
            ends = begins + self.lengths[documents]
            at = _stretches(mask, begins[begins < ends])
            counts.append(np.searchsorted(at, ends) - np.searchsorted(at, begins))
        return np.concatenate(counts) if counts else np.zeros(len(self), np.int64)

    def require(
        self,
        *kinds: str,
        tokenizer_sha256: str,
        chat_template_sha256: str | None = None,
        document_token_id: int | None = None,
    ) -> None:
        """Refuse shards of another kind, or made with another tokenizer than the model's.

        Args:
            chat_template_sha256: of the model; conversations and preferences rendered by another are refused.
            document_token_id: of the model; texts that begin with another are refused.

        Raises:
            UserError: naming both values and the command that fixes it.
        """
        if self.kind not in kinds:
            wanted = " or ".join(f"kind={kind}" for kind in kinds)
            raise UserError(f"{self.directory} holds {self.kind} shards, this stage takes {wanted}")
        tokenizer = self.manifest.get("tokenizer", {})
        template = tokenizer.get("chat_template_sha256")
        if tokenizer.get("sha256") != tokenizer_sha256:
            self._refuse("tokenizer", str(tokenizer.get("sha256"))[:12], tokenizer_sha256[:12])
        if chat_template_sha256 and template not in (None, chat_template_sha256):
            self._refuse("chat template", template[:12], chat_template_sha256[:12])
        if document_token_id is not None and self.kind == "text" and len(self):
            made = int(self.tokens(0, 0, 1)[0])
            if made != document_token_id:
                self._refuse("document token", str(made), str(document_token_id))

    def _refuse(self, what: str, made: str, model: str) -> NoReturn:
        raise UserError(
            f"{self.directory} was made with {what} {made}, the model has {model}; "
            "run `mengya prepare` again with the tokenizer folder of the model"
        )

    def verify(self, advance: Callable[[int], object] = lambda read: None) -> None:
        """Read all files and compare them with the checksums of the manifest.

        Args:
            advance: called with the number of bytes read since its last call; `file_bytes` in all.

        Raises:
            UserError: naming every file that is not what was written, or there are no checksums.
        """
        damaged = []
        for number, part in enumerate(self.manifest["parts"]):
            if "crc32" not in part:
                raise UserError(
                    f"{self.directory} has no checksums: an earlier version of mengya made it; "
                    f"to have them, {_AGAIN}"
                )
            for name in self._names():
                path = part_file(self.directory, number, name)
                found, wanted = f"{_crc32(path, advance):08x}", part["crc32"].get(name)
                if found != wanted:
                    damaged.append(f"{path} has CRC-32 {found}, {wanted} was written")
        if damaged:
            raise _damage(self.directory, damaged)

    @property
    def file_bytes(self) -> int:
        """Size of all files that `verify` reads."""
        return sum(wanted for _, wanted in self._sizes())

    def check_ids(self, document: int, start: int, stop: int) -> None:
        """Refuse positions [start, stop) of a document when an id among them is outside the vocabulary.

        Raises:
            UserError: naming the file, the position in it and the id.
        """
        ids = self.tokens(document, start, stop)
        outside = np.flatnonzero(ids >= self.vocab_size)
        if len(outside):
            part = bisect_right(self._first_document, document) - 1
            position = int(self._starts[document]) + start + int(outside[0])
            raise UserError(
                f"{part_file(self.directory, part, 'tokens')} is damaged: token {position} (document "
                f"{document}) has the id {int(ids[outside[0]])}, the vocabulary has {self.vocab_size} ids; "
                f"{_AGAIN}"
            )

    def _names(self) -> tuple[str, ...]:
        return _FILES[:2] if self.kind == "text" else _FILES

    def _sizes(self) -> Iterator[tuple[Path, int]]:
        """Every file, and the bytes that it must have."""
        for number, part in enumerate(self.manifest["parts"]):
            for name in self._names():
                size = {
                    "tokens": part["tokens"] * np.dtype(self.manifest["dtype"]).itemsize,
                    "doc_ends": part["documents"] * 8,
                    "loss_mask": part["tokens"],
                }
                yield part_file(self.directory, number, name), size[name]

    def _check_sizes(self) -> None:
        wrong = []
        for path, wanted in self._sizes():
            size = path.stat().st_size if path.exists() else -1
            if size != wanted:
                found = "is missing" if size < 0 else f"has {size} bytes"
                wrong.append(f"{path} {found}, the manifest says {wanted}")
        if wrong:
            raise _damage(self.directory, wrong)

    def _slice(
        self, parts: list[np.ndarray], document: int, start: int, stop: int | None
    ) -> np.ndarray:
        length = int(self.lengths[document])
        stop = length if stop is None else min(stop, length)
        begin = int(self._starts[document])
        return parts[bisect_right(self._first_document, document) - 1][begin + start : begin + stop]

    def _map(self, part: int, name: str, dtype: str, count: int) -> np.ndarray:
        path = part_file(self.directory, part, name)
        return np.memmap(path, dtype, mode="r") if count else np.zeros(0, dtype)


# With overwrite=true `prepare` checks shards that are up to date and makes them again where this is needed.
_AGAIN = "run its `mengya prepare` again with overwrite=true"


def _damage(directory: Path, files: list[str]) -> UserError:
    lines = "\n".join(f"  - {line}" for line in files)
    return UserError(f"{directory} is damaged:\n{lines}\n{_AGAIN}")


def _stretches(mask: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Positions where ones begin, after a zero or at `begins` of documents; in pieces, as parts are long."""
    found = [begins[mask[begins] > 0]]
    for start in range(0, len(mask), _READ_BYTES):
        piece = mask[max(0, start - 1) : start + _READ_BYTES] > 0
        if start == 0:
            piece = np.concatenate([[False], piece])
        found.append(start + np.flatnonzero(piece[1:] & ~piece[:-1]))
    return np.unique(np.concatenate(found))


def _crc32(path: Path, advance: Callable[[int], object] = lambda read: None) -> int:
    value = 0
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            value = zlib.crc32(data, value)
            advance(len(data))
    return value


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        inner = sorted(str(p.parent) for p in directory.glob(f"*/{MANIFEST}"))
        hint = f"did you mean {' or '.join(inner)}?" if inner else "make it with `mengya prepare`"
        what = f"is not a shard folder (no {MANIFEST})" if directory.exists() else "does not exist"
        raise UserError(f"{directory} {what}; {hint}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    format_ = str(manifest.get("format")) if isinstance(manifest, dict) else ""
    number = format_.removeprefix(_FORMAT_NAME)
    if number == format_ or not number.isdecimal():
        raise UserError(f"{path} is not the manifest of a mengya shard folder")
    check_format(path, int(number), FORMAT, manifest.get("mengya_version"))
    rename_license(manifest.get("sources", []))
    return manifest


def rename_license(sources: list[dict[str, Any]]) -> None:
    """Give the `licence` of sources, as versions up to 2026 wrote it, the name `license`, in place."""
    for source in sources:
        if "licence" in source:
            source["license"] = source.pop("licence")
