"""Token ids -> the exact bytes that they stand for, and their text. Knows nothing of models.

A token of byte-level BPE may hold part of a character; the tokenizer's own decoding would hide which.
"""

from __future__ import annotations

import json
import re

from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode


class TokenText:
    """Bytes and text of single tokens of one tokenizer.

    Attributes:
        byte_level: whether it is byte-level BPE: tokens are bytes, and joined they are the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
        decoder = json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder")
        self._byte_of: dict[str, int] | None = None
        self.byte_level = '"ByteLevel"' in json.dumps(decoder)
        if self.byte_level:
            self._byte_of = {character: byte for byte, character in bytes_to_unicode().items()}

    def is_added(self, token: int) -> bool:
        """Whether it stands outside the vocabulary of text: control tokens, tags."""
        return token in self._added

    def bytes(self, token: int) -> bytes:
        """What the token adds to a text; empty for ids that the tokenizer does not know."""
        if token in self._added:
            return self._added[token].encode()
        written = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(written, str):
            return b""
        if self._byte_of is not None:
            return bytes(self._byte_of[character] for character in written)
        if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", written):  # SentencePiece's bytes
            return bytes.fromhex(byte[1])
        return written.replace("\u2581", " ").encode()

    def text(self, token: int) -> str:
        """The same as text, U+FFFD for bytes that are not a complete character."""
        return self.bytes(token).decode(errors="replace")

    def named(self, token: int) -> str:
        """The same, but such bytes written `bytes:\\xe6`: no two tokens share a name by it."""
        raw = self.bytes(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
