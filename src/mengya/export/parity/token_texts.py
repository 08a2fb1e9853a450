"""A text for every token, also for those that hold parts of characters: in it the tokenizer needs the token.

So a tokenizer that lacks one merge, or has two in another order, cuts one of these texts differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from mengya.tokenizer.token_text import TokenText

_LEADS = b"\xe9\xe5\xe7\xe4\xe8\xe6"  # of characters of three bytes: nearly all Chinese ones
_CONTINUATIONS = b"\xbe\x80\x9a"


def token_texts(tokenizer: PreTrainedTokenizerFast, backend: Tokenizer) -> list[str]:
    """One a token that has such a text, added tokens left out, in the order of ids."""
    tokens = TokenText(tokenizer)
    texts = []
    for id_ in range(len(tokenizer)):
        if tokens.is_added(id_):
            continue
        found = (text for text in _texts_with(tokens.bytes(id_)) if _needs(backend, text, id_))
        texts.append(next(found, ""))
    return [text for text in texts if text and "\0" not in text]


def _needs(backend: Tokenizer, text: str, id_: int) -> bool:
    return id_ in backend.encode(text, add_special_tokens=False).ids


def _texts_with(raw: bytes) -> Iterator[str]:
    """Texts that hold these bytes, with what makes its first and last character complete."""
    for before, after in product(_before(raw), _after(raw)):
        try:
            yield (before + raw + after).decode()
        except UnicodeDecodeError:
            continue


def _before(raw: bytes) -> list[bytes]:
    """Beginnings of a character that `raw` may end."""
    missing = 3 - next((i for i, byte in enumerate(raw) if not 0x80 <= byte < 0xC0), len(raw))
    if missing == 3:
        return [b""]
    if missing == 1:
        return [bytes([lead]) for lead in _LEADS]
    if missing == 2:
        return [bytes(pair) for pair in product(_LEADS, _CONTINUATIONS)]
    return [b"\xf0", b"\xe9\xbe\x80"]


def _after(raw: bytes) -> list[bytes]:
    """Ends of a character that `raw` may begin."""
    for length in (1, 2, 3):
        lead = raw[-length] if length <= len(raw) else 0
        needed = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 0
        if needed > length:
            return [bytes([byte]) * (needed - length) for byte in _CONTINUATIONS]
    return [b""]
