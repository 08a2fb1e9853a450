"""Long texts in pieces to tokenize: the ids of the pieces, end to end, are those of the text.

Takes texts and a tokenizer of the library; gives pieces in groups of bounded size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from tokenizers import Tokenizer

TOKENIZE_CHARACTERS = 1 << 16  # longer texts are tokenized in pieces where the ids allow it


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
