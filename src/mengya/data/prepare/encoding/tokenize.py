"""Texts -> token ids, in groups of bounded size.

Long texts are tokenized in pieces, whose ids are, end to end, those of the text. tiktoken makes the ids where
it is installed and sure to give the same as tokenizers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice

import numpy as np
from tokenizers import Tokenizer

from mengya.tokenizer.tiktoken_ids import TiktokenIds

TOKENIZE_CHARACTERS = 1 << 16  # longer texts are tokenized in pieces where the ids allow it


class TextIds:
    """Token ids of documents.

    Args:
        tokenizer: without control tokens, as JSON: a typed control token stays text.
        edge: the id that opens and closes a document.
        ranks: of `tiktoken_ranks`; None where only tokenizers will do.
    """

    def __init__(self, tokenizer: str, edge: int, ranks: dict[bytes, int] | None) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._edge = np.array([edge], np.uint32)
        self._tiktoken = None
        if ranks is not None and find_spec("tiktoken") is not None:
            self._tiktoken = TiktokenIds(ranks, self._tokenizer)

    def __call__(self, texts: list[str]) -> list[np.ndarray]:
        """uint32 ids of every text, the edge at both ends."""
        parts = [[self._edge] for _ in texts]
        for group in groups(texts, self._tokenizer):
            ids = self._ids([piece for _, piece in group])
            for (number, _), of_piece in zip(group, ids, strict=True):
                parts[number].append(of_piece)
        return [np.concatenate([*part, self._edge]) for part in parts]

    def _ids(self, pieces: list[str]) -> list[np.ndarray]:
        tiktoken = self._tiktoken
        if tiktoken is None:
            return self._by_tokenizers(pieces)
        sure = [tiktoken.is_sure(piece) for piece in pieces]
        unsure = [piece for piece, one in zip(pieces, sure, strict=True) if not one]
        others = iter(self._by_tokenizers(unsure))
        return [
            tiktoken(piece) if one else next(others)
            for piece, one in zip(pieces, sure, strict=True)
        ]

    def _by_tokenizers(self, pieces: list[str]) -> list[np.ndarray]:
        encodings = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]


def groups(texts: list[str], tokenizer: Tokenizer) -> Iterator[list[tuple[int, str]]]:
    """(number of the text, piece of it), in groups of about a million characters to tokenize at once."""
    group: list[tuple[int, str]] = []
    size = 0
    for number, text in enumerate(texts):
        for piece in cut_for_tokenizing(text, tokenizer):
            group.append((number, piece))
            size += len(piece)
            if size >= 1 << 20:
                yield group
                group, size = [], 0
    yield group


def cut_for_tokenizing(text: str, tokenizer: Tokenizer) -> list[str]:
    """A long text in pieces whose ids are, end to end, those of the uncut text; a shorter one uncut.

    Tokenizers hold some hundred bytes per token while they work. The usual split rules (GPT-2, Qwen2,
    Llama 3) never join a line end with a following letter, nor a letter with following punctuation. A
    tokenizer that does, or that writes something at the start of every text (the "prepend" normalizers of
    SentencePiece vocabularies), gives other ids around every such place: it gets the text uncut.
    """
    pieces, begin = [], 0
    while len(text) - begin > TOKENIZE_CHARACTERS:
        places = _places(text, begin + TOKENIZE_CHARACTERS, begin + 2 * TOKENIZE_CHARACTERS)
        at = next((at for at in places if _is_safe_cut(text, at, tokenizer)), None)
        if at is None:
            break
        pieces.append(text[begin:at])
        begin = at
    return [*pieces, text[begin:]]


_LINE_START = re.compile(r"(?<=\n)(?=[^\W\d_])")
_WORD_END = re.compile(r"(?<=[^\W\d_])(?=[，。；：、！？,.;:!?])")
_TRIES, _AROUND = 8, 64


def _places(text: str, first: int, last: int) -> Iterator[int]:
    """Where words end in [first, last): some beginnings of lines, then some ends of words."""
    for pattern in (_LINE_START, _WORD_END):
        for found in islice(pattern.finditer(text, first, last), _TRIES):
            yield found.start()


def _is_safe_cut(text: str, at: int, tokenizer: Tokenizer) -> bool:
    """Whether the ids around a place do not change when the text is cut there."""
    left, right = text[at - _AROUND : at], text[at : at + _AROUND]
    uncut, *halves = (
        tokenizer.encode(part, add_special_tokens=False).ids for part in (left + right, left, right)
    )
    return uncut == [i for ids in halves for i in ids]
