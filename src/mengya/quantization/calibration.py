"""The rows that a model is calibrated on, out of token shards or of files of text and conversations.

Takes a `CalibrationConfig`; gives rows of ids in which documents follow one another without seeing each
other. Equal inputs and seed give equal rows. Knows nothing of matrices.
Shapes: R rows, S positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mengya.config import Config, OneOrMany
from mengya.data.ingest.reading.encoding import AUTO
from mengya.data.ingest.reading.files import find_data
from mengya.data.ingest.reading.read import read_chunks
from mengya.data.ingest.reading.records import BadLine, BadLines
from mengya.data.prepare.config import PrepareSource
from mengya.data.prepare.encoding.encode import Encoder
from mengya.data.prepare.encoding.plan import Kind, SourceForm, plan_encoding
from mengya.data.rows.order import row_permutation
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.text.clean import CleanConfig
from mengya.tokenizer.chat_template import chat_template_hash
from mengya.tokenizer.load import document_token_id, tokenizer_hash

_AHEAD = 8  # a file is read until it gave so many times the tokens that are wanted of all
_DEFAULT_LENGTH = 512


class CalibrationConfig(Config):
    shards: OneOrMany[Path] = []
    """Shard folders of `mengya prepare` made with this model's tokenizer, text or conversations, such as
    those that it was trained on."""
    texts: OneOrMany[PrepareSource] = []
    """Files of text (JSONL, JSON, parquet, CSV, plain text); a plain path stands for {path: ...}."""
    conversations: OneOrMany[PrepareSource] = []
    """Files of conversations, rendered by the model's chat template."""
    num_sequences: int = Field(default=128, ge=1)
    """Rows to calibrate on; documents are packed end to end into them."""
    sequence_length: int | None = Field(default=None, ge=16)
    """Tokens of a row; null: the longest row that the model was trained on, 512 at most."""
    max_bad_lines: int = Field(default=100, ge=0)
    """Skip up to so many lines of a file that cannot be read or do not fit, then refuse."""
    seed: int = Field(default=0, ge=0)
    """Chooses the documents among those that were read."""

    @property
    def is_given(self) -> bool:
        return bool(self.shards or self.texts or self.conversations)


@dataclass(frozen=True)
class CalibrationRows:
    """
    Attributes:
        input_ids_RS, position_ids_RS, document_ids_RS: int64, as in `mengya.batch.Batch`.
        facts: where they come from, for the record.
    """

    input_ids_RS: Tensor
    position_ids_RS: Tensor
    document_ids_RS: Tensor
    facts: dict[str, Any]

    @property
    def tokens(self) -> int:
        return int((self.document_ids_RS >= 0).sum())

    def digest(self) -> str:
        """SHA-256 of the rows."""
        digest = hashlib.sha256()
        for tensor in (self.input_ids_RS, self.position_ids_RS, self.document_ids_RS):
            digest.update(str(tuple(tensor.shape)).encode() + tensor.numpy().tobytes())
        return digest.hexdigest()


def read_calibration(
    config: CalibrationConfig, folder: Path, tokenizer: PreTrainedTokenizerFast, length: int
) -> CalibrationRows:
    """The rows that `config` describes, for the model in `folder`.

    Args:
        length: of a row.

    Raises:
        UserError: files or shards cannot be read, are of another tokenizer, or hold no tokens.
    """
    wanted = config.num_sequences * length
    documents = [*_of_shards(config, folder, tokenizer, wanted), *_of_files(config, folder, wanted)]
    order = row_permutation(config.seed, 0, len(documents)) if documents else []
    rows, used = _pack([documents[i] for i in order], config.num_sequences, length)
    if not used:
        named = [*map(str, config.shards), *(_shown(s) for s in _sources(config))]
        raise UserError(
            f"calibration: no text in {', '.join(named)}; name files with text in them, a few hundred "
            "kilobytes: calibration.texts=FILE"
        )
    facts = {
        "shards": [path.name for path in config.shards],
        "texts": [_names(source) for source in config.texts],
        "conversations": [_names(source) for source in config.conversations],
        "seed": config.seed,
        "sequences": len(rows[0]),
        "sequence_length": length,
        "documents": used,
        "tokens": int((rows[2] >= 0).sum()),
        "tokens_wanted": wanted,
    }
    ids, positions, numbers = map(torch.from_numpy, rows)
    result = CalibrationRows(ids, positions, numbers, facts)
    facts["sha256"] = result.digest()
    return result


def default_length(context: int, trained: int | None) -> int:
    """Tokens of a row where the configuration leaves it open."""
    return min(context, trained or context, _DEFAULT_LENGTH)


def _pack(
    documents: list[np.ndarray], rows: int, length: int
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int]:
    """(ids, positions, document numbers), each [R, length], and how many documents they hold.

    Documents lie end to end; what a row cannot hold begins the next one, at position 0.
    """
    ids, positions, numbers, used, at = [], [], [], 0, 0
    for number, document in enumerate(documents):
        document = document[: rows * length - at]
        if not len(document):
            break
        places = np.arange(at, at + len(document))
        first = np.maximum(at, places - places % length)  # where the document began in this row
        ids.append(document.astype(np.int64))
        positions.append(places - first)
        numbers.append(np.full(len(document), number))
        at, used = at + len(document), used + 1
    rest = -at % length
    ids.append(np.zeros(rest, np.int64))
    positions.append(np.arange(rest))
    numbers.append(np.full(rest, -1))
    shaped = tuple(np.concatenate(parts).reshape(-1, length) for parts in (ids, positions, numbers))
    return (shaped[0], shaped[1], shaped[2]), used


def _of_shards(
    config: CalibrationConfig, folder: Path, tokenizer: PreTrainedTokenizerFast, wanted: int
) -> Iterator[np.ndarray]:
    """Documents of shards in a random order, as many tokens of each folder as are wanted of all."""
    for path in config.shards:
        shards = TokenShards(path)
        template = chat_template_hash(tokenizer) if shards.kind == "conversation" else None
        shards.require(
            "text", "conversation",
            tokenizer_sha256=tokenizer_hash(folder),
            chat_template_sha256=template,
            document_token_id=document_token_id(tokenizer),
        )  # fmt: skip
        tokens = 0
        for document in row_permutation(config.seed, 0, len(shards)) if len(shards) else []:
            if tokens >= wanted:
                break
            shards.check_ids(int(document), 0, int(shards.lengths[document]))
            yield np.asarray(shards.tokens(int(document)))
            tokens += int(shards.lengths[document])


def _of_files(config: CalibrationConfig, folder: Path, wanted: int) -> Iterator[np.ndarray]:
    kinds: tuple[tuple[Kind, list[PrepareSource]], ...] = (
        ("text", config.texts),
        ("conversation", config.conversations),
    )
    for kind, sources in kinds:
        for source in sources:
            yield from _of_source(kind, source, folder, wanted, config.max_bad_lines)


def _of_source(
    kind: Kind, source: PrepareSource, folder: Path, wanted: int, max_bad_lines: int
) -> Iterator[np.ndarray]:
    """Documents from the beginning of every file of a source."""
    form = SourceForm(source.format, source.field, tuple(source.columns.items()))
    encode = Encoder(plan_encoding(kind, str(folder), [form], CleanConfig(min_characters=1)))
    paths = [source.path] if isinstance(source.path, str) else source.path
    for file in (file for path in paths for file in find_data(path).files):
        tokens = read = 0
        bad = BadLines(max_bad_lines)
        for chunk in read_chunks(file, source.encoding or AUTO, source.split_text):
            if source.limit is not None:
                read += chunk.cut(source.limit - read)
            encoded = encode(0, chunk)
            _count(bad, encoded.bad)
            ends = np.cumsum(encoded.lengths)
            if len(ends):
                yield from np.split(encoded.tokens, ends[:-1])
            tokens += len(encoded.tokens)
            if tokens >= _AHEAD * wanted or read == source.limit:
                break


def _count(bad: BadLines, lines: list[BadLine]) -> None:
    """
    Raises:
        UserError: too many; with the key to type here.
    """
    try:
        bad.add(*lines)
    except UserError as error:
        text = str(error).replace("with max_bad_lines=", "with calibration.max_bad_lines=")
        raise UserError(f"calibration: {text}") from None


def _sources(config: CalibrationConfig) -> list[PrepareSource]:
    return [*config.texts, *config.conversations]


def _shown(source: PrepareSource) -> str:
    return source.path if isinstance(source.path, str) else ", ".join(source.path)


def _names(source: PrepareSource) -> str:
    """Without the folders, for the record, which may become public."""
    paths = [source.path] if isinstance(source.path, str) else source.path
    return ", ".join(Path(path).name for path in paths)
