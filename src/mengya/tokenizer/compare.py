"""What a tokenizer does with text of several domains, in numbers that compare vocabularies of any kind.

Takes a tokenizer, texts by domain and a function that names the script of every character; gives one
`Comparison`. The shares of all text are those of report.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerFast

from mengya.tokenizer.load import plain_backend
from mengya.tokenizer.report import TokenizerReport, report
from mengya.tokenizer.sentencepiece_model import SPACE
from mengya.tokenizer.token_text import TokenText

NUMBERS = ("1234567", "3.14159", "2026年12月31日")
INDENTATIONS = (4, 8, 16)
CODE = (
    "def mean(values: list[float]) -> float:\n    total = 0.0\n    for value in values:\n"
    "        if value is not None:\n            total += value\n    return total / max(1, len(values))\n"
)

Scripts = Callable[[str], np.ndarray]
"""A text -> [characters] integers, the position of each character's script in a list of names."""


@dataclass(frozen=True)
class Part:
    """Some of the text. tokens: a token of n characters counts as 1/n for each of them."""

    characters: int
    bytes: int
    tokens: float

    @property
    def characters_per_token(self) -> float:
        return self.characters / self.tokens if self.tokens else 0.0

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class Comparison:
    """One tokenizer on all texts.

    Attributes:
        embedding_parameters: rows times hidden size; twice that where the output has a matrix of its own.
        byte_tokens: share of the tokens that are bytes of characters that the vocabulary lacks.
        megabytes_per_second: of UTF-8, one core, ids only.
        numbers: of `NUMBERS`, what each token holds.
        indentation: tokens that so many spaces at the start of a line take.
        code: characters per token of a few lines of Python.
    """

    total: TokenizerReport
    embedding_parameters: int
    byte_tokens: float
    megabytes_per_second: float
    domains: dict[str, Part]
    scripts: dict[str, Part]
    numbers: dict[str, list[str]]
    indentation: dict[int, int]
    code: float


def compare(
    tokenizer: PreTrainedTokenizerFast,
    domains: Mapping[str, Sequence[str]],
    scripts: Scripts,
    names: Sequence[str],
    *,
    context: int = 2048,
    hidden_size: int = 512,
) -> Comparison:
    """Measure a tokenizer on texts, all held in memory.

    Args:
        domains: texts by the name of where they are from.
        scripts, names: of every character, and what its numbers mean.

    Raises:
        UserError: there is no text.
    """
    texts = [text for part in domains.values() for text in part if text]
    total = report(tokenizer, texts, context)  # refuses no text
    parts = {name: _encode(tokenizer, part) for name, part in domains.items() if any(part)}
    by_script = np.zeros((3, len(names)))
    for text, spread, _ in (one for part in parts.values() for one in part):
        codes = scripts(text)
        width = np.array(_utf8_widths(text))
        for row, weights in enumerate((None, width, spread)):
            by_script[row] += np.bincount(codes, weights, len(names))
    ids = np.concatenate([ids for part in parts.values() for _, _, ids in part])
    return Comparison(
        total=total,
        embedding_parameters=len(tokenizer) * hidden_size,
        byte_tokens=float(np.isin(ids, _byte_ids(tokenizer, np.unique(ids))).mean()),
        megabytes_per_second=_speed(tokenizer, texts),
        domains={name: _part(part) for name, part in parts.items()},
        scripts={
            name: Part(int(c), int(b), float(t))
            for name, c, b, t in zip(names, *by_script, strict=True)
            if c
        },
        numbers={number: _texts_of_tokens(tokenizer, number) for number in NUMBERS},
        indentation={n: _indentation(tokenizer, n) for n in INDENTATIONS},
        code=len(CODE) / _count(tokenizer, CODE),
    )


Encoded = tuple[str, np.ndarray, np.ndarray]  # a text; tokens that each character takes; ids


def _encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[Encoded]:
    backend = plain_backend(tokenizer)
    encodings = backend.encode_batch([t for t in texts if t], add_special_tokens=False)
    return [
        (text, _spread(len(text), encoding.offsets), np.array(encoding.ids, np.int64))
        for text, encoding in zip((t for t in texts if t), encodings, strict=True)
    ]


def _spread(characters: int, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """[characters] tokens that each takes; what no token covers (a space that is removed) takes none."""
    spans = np.array(offsets, np.int64).reshape(-1, 2)
    starts = np.minimum(spans[:, 0], characters - 1)
    ends = np.maximum(spans[:, 1], starts + 1)
    change = np.zeros(characters + 1)
    np.add.at(change, starts, 1 / (ends - starts))
    np.add.at(change, ends, -1 / (ends - starts))
    return np.cumsum(change)[:-1]


def _part(encoded: Sequence[Encoded]) -> Part:
    return Part(
        sum(len(text) for text, _, _ in encoded),
        sum(len(text.encode()) for text, _, _ in encoded),
        sum(len(ids) for _, _, ids in encoded),
    )


def _utf8_widths(text: str) -> np.ndarray:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)


def _byte_ids(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> list[int]:
    """Those of ids that hold a part of a character, or a byte of SentencePiece."""
    tokens = TokenText(tokenizer)
    written = tokenizer.convert_ids_to_tokens(ids.tolist())
    pairs = zip(ids.tolist(), written, strict=True)
    return [i for i, token in pairs if token[:3] == "<0x" or "\ufffd" in tokens.text(i)]


def _texts_of_tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    """Without the space that some vocabularies write before every text."""
    encoding = plain_backend(tokenizer).encode(text, add_special_tokens=False)
    pairs = zip(encoding.tokens, encoding.offsets, strict=True)
    return [text[start:end] for token, (start, end) in pairs if end > start and token != SPACE]


def _indentation(tokenizer: PreTrainedTokenizerFast, spaces: int) -> int:
    return _count(tokenizer, f"x:\n{' ' * spaces}y") - _count(tokenizer, "x:\ny")


def _count(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    return len(plain_backend(tokenizer).encode(text, add_special_tokens=False).ids)


def _speed(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> float:
    backend, size = plain_backend(tokenizer), sum(len(text.encode()) for text in texts)
    with _one_thread():
        start = time.perf_counter()
        backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return size / (time.perf_counter() - start) / 1e6


@contextmanager
def _one_thread() -> Iterator[None]:
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
