"""Token shards: documents as token ids in flat files, one numpy memmap each.

A shard folder is `manifest.json` and parts `00000`, `00001`, ... of three little-endian files:

    00000.tokens.bin     uint16 (uint32 above 65,536 ids), the documents end to end
    00000.doc_ends.bin   uint64, for every document where it ends in tokens.bin, counted in tokens
    00000.loss_mask.bin  uint8 per token, 1 where the token is to be learnt; conversations and preferences only

A document never spans two parts. In a preference folder document 2i is the chosen and 2i+1 the rejected side of
pair i. Knows nothing of text, tokenizers or batches.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from pathlib import Path
from typing import IO, Any

import numpy as np

from mengya.errors import UserError
from mengya.version import __version__, check_format

FORMAT = 1  # raised when an earlier mengya could not read the files
_FORMAT_NAME = "mengya-shards-"
MANIFEST = "manifest.json"
KINDS = ("text", "conversation", "preference")
PART_TOKENS = 1 << 28  # a part is closed at the first batch that reaches this many tokens
_FILES = ("tokens", "doc_ends", "loss_mask")


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id below `vocab_size`."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def part_file(directory: Path, part: int, name: str) -> Path:
    return directory / f"{part:05d}.{name}.bin"


class ShardWriter:
    """Appends documents to a shard folder, whose manifest `close` writes last.

    `state()` says, after a flush to disk, how much is written; a writer made with `resume=state` cuts the files
    back to exactly that and goes on, so that an interrupted run ends in the same bytes as an uninterrupted one.
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
        self.parts = [list(part) for part in resume or []]  # [documents, tokens] of each part
        self._part_tokens = part_tokens
        self._files: dict[str, IO[bytes]] = {}
        self.directory.mkdir(parents=True, exist_ok=True)
        if resume is not None:
            self._cut_back()

    def add(
        self, tokens: np.ndarray, lengths: np.ndarray, loss_mask: np.ndarray | None = None
    ) -> None:
        """Append documents: `tokens` [sum of lengths] end to end, `lengths` [documents], `loss_mask` like tokens."""
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
        self._files["tokens"].write(tokens.astype(self.dtype).tobytes())
        self._files["doc_ends"].write(ends.astype("<u8").tobytes())
        if self.masked and loss_mask is not None:
            self._files["loss_mask"].write(loss_mask.astype(np.uint8).tobytes())
        part[0] += len(lengths)
        part[1] += len(tokens)

    def state(self) -> list[list[int]]:
        """Flush to disk and say [documents, tokens] of every part."""
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
            "documents": sum(documents for documents, _ in parts),
            "tokens": sum(tokens for _, tokens in parts),
            "parts": [{"documents": documents, "tokens": tokens} for documents, tokens in parts],
            **facts,
        }
        text = json.dumps(manifest, ensure_ascii=False, indent=2)
        temporary = self.directory / f"{MANIFEST}.tmp"
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(self.directory / MANIFEST)
        return manifest

    def _names(self) -> tuple[str, ...]:
        return _FILES if self.masked else _FILES[:2]

    def _open_part(self) -> None:
        self.state()
        for file in self._files.values():
            file.close()
        self.parts.append([0, 0])
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
        for number, (documents, tokens) in enumerate(self.parts):
            sizes = {
                "tokens": tokens * self.dtype.itemsize,
                "doc_ends": documents * 8,
                "loss_mask": tokens,
            }
            for name in self._names():
                os.truncate(part_file(self.directory, number, name), sizes[name])
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
        UserError: no manifest, an unknown format, or files shorter or longer than the manifest says.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.manifest = _read_manifest(self.directory)
        self.kind: str = self.manifest["kind"]
        self.vocab_size: int = self.manifest["vocab_size"]
        self._tokens: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []
        self._first_document = [0]  # of every part, and the total
        starts, lengths = [], []
        for number, part in enumerate(self.manifest["parts"]):
            documents, tokens = part["documents"], part["tokens"]
            ends = self._map(number, "doc_ends", "<u8", documents).astype(np.int64)
            begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
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
        """Token ids of a document, or of its positions [start, stop): a view of the file, uint16 or uint32."""
        return self._slice(self._tokens, document, start, stop)

    def loss_mask(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """uint8, 1 where the token is to be learnt; all ones for text."""
        if self.kind == "text":
            stop = int(self.lengths[document]) if stop is None else stop
            return np.ones(max(0, min(stop, int(self.lengths[document])) - start), np.uint8)
        return self._slice(self._masks, document, start, stop)

    @property
    def learnt_share(self) -> float:
        """The part of all tokens that is to be learnt, 0 to 1; reads the whole mask."""
        learnt = sum(int(mask.sum(dtype=np.int64)) for mask in self._masks)
        return learnt / max(1, int(self.lengths.sum())) if self._masks else 1.0

    def require(self, *kinds: str, tokenizer_sha256: str) -> None:
        """Refuse shards of another kind, or made with another tokenizer than the model's.

        Raises:
            UserError: naming both values and the command that mends it.
        """
        if self.kind not in kinds:
            wanted = " or ".join(f"kind={kind}" for kind in kinds)
            raise UserError(f"{self.directory} holds {self.kind} shards, this stage takes {wanted}")
        made = self.manifest.get("tokenizer", {}).get("sha256")
        if made != tokenizer_sha256:
            raise UserError(
                f"{self.directory} was made with tokenizer {str(made)[:12]}, the model has {tokenizer_sha256[:12]}; "
                "run `mengya prepare` again with the tokenizer of the model"
            )

    def _slice(
        self, parts: list[np.ndarray], document: int, start: int, stop: int | None
    ) -> np.ndarray:
        length = int(self.lengths[document])
        stop = length if stop is None else min(stop, length)
        begin = int(self._starts[document])
        return parts[bisect_right(self._first_document, document) - 1][begin + start : begin + stop]

    def _map(self, part: int, name: str, dtype: str, count: int) -> np.ndarray:
        path = part_file(self.directory, part, name)
        wanted = count * np.dtype(dtype).itemsize
        size = path.stat().st_size if path.exists() else -1
        if size != wanted:
            found = "is missing" if size < 0 else f"has {size} bytes"
            raise UserError(
                f"{path} {found}, the manifest says {wanted}; run `mengya prepare` with overwrite=true"
            )
        return np.memmap(path, dtype, mode="r") if count else np.zeros(0, dtype)


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        inner = sorted(str(p.parent) for p in directory.glob(f"*/{MANIFEST}"))
        hint = f"did you mean {' or '.join(inner)}?" if inner else "make it with `mengya prepare`"
        raise UserError(f"{directory} is not a shard folder (no {MANIFEST}); {hint}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    format_ = str(manifest.get("format")) if isinstance(manifest, dict) else ""
    number = format_.removeprefix(_FORMAT_NAME)
    if number == format_ or not number.isdecimal():
        raise UserError(f"{path} is not the manifest of a mengya shard folder")
    check_format(path, int(number), FORMAT, manifest.get("mengya_version"))
    return manifest
