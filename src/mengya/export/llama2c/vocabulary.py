"""A byte-level BPE vocabulary in the terms of llama2.c: pieces and scores in the order that run.c expects.

Takes our tokenizer; gives what tokenizer.bin holds and which of our ids each of its ids is. Knows no model.

run.c fixes ids that ours has elsewhere: 1 opens every text and ends every answer, and a character without
a token of its own becomes its bytes, byte b as id b + 3. So the ids of a file are ours in another order;
`VocabularyFile.ours` has it, and the rows of the embedding follow it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.tokenizer.load import document_token_id, stop_token_ids
from mengya.tokenizer.token_text import TokenText

BOS, EOS, FIRST_BYTE = 1, 2, 3  # ids that run.c counts on
NEVER_MERGED = -1e11  # run.c merges into tokens whose score is above -1e10
ORDER_FILE = "token_ids.json"


@dataclass(frozen=True)
class VocabularyFile:
    """What tokenizer.bin holds.

    Attributes:
        pieces: bytes of each id, as run.c compares and prints them.
        scores: run.c merges the neighbours whose joined piece has the highest.
        ours: our id of each id of the file, one for each row of the embedding.
    """

    pieces: list[bytes]
    scores: list[float]
    ours: list[int]


def llama2c_vocabulary(tokenizer: PreTrainedTokenizerFast, rows: int) -> VocabularyFile:
    """The vocabulary of a model with `rows` rows; those of no token come last.

    Raises:
        UserError: it is not byte-level BPE.
    """
    tokens = TokenText(tokenizer)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    byte_ids = _byte_ids(tokens, rows)
    if state["model"]["type"] != "BPE" or byte_ids is None:
        raise UserError(
            "to=llama2c writes byte-level BPE vocabularies, and this tokenizer is not one (every byte a "
            "token): write to=hf instead, or train a model with `mengya tokenizer`"
        )
    ours = _order(tokenizer, byte_ids, rows)
    merged = {"".join(pair): rank for rank, pair in enumerate(_merges(state))}
    written = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    pieces, scores = [], []
    for token in ours:
        rank = None if token >= len(written) else merged.get(str(written[token]))
        text = rank is not None and not tokens.is_added(token)
        pieces.append(_piece(tokens, token))
        single = token in byte_ids
        scores.append(
            -float(rank) if text and rank is not None else 0.0 if single else NEVER_MERGED
        )
    return VocabularyFile(pieces, scores, ours)


def write_vocabulary(vocabulary: VocabularyFile, directory: Path) -> None:
    """tokenizer.bin: the longest piece, then score, length and bytes of every id; and our id of each."""
    with (directory / "tokenizer.bin").open("wb") as file:
        file.write(struct.pack("<i", max(map(len, vocabulary.pieces))))
        for piece, score in zip(vocabulary.pieces, vocabulary.scores, strict=True):
            file.write(struct.pack("<fi", score, len(piece)) + piece)
    (directory / ORDER_FILE).write_text(json.dumps(vocabulary.ours) + "\n", encoding="utf-8")


def _byte_ids(tokens: TokenText, rows: int) -> list[int] | None:
    """Our id of each of the 256 bytes; None where one has no token."""
    if not tokens.byte_level:
        return None
    found: dict[bytes, int] = {}
    for token in range(rows):
        if not tokens.is_added(token) and len(raw := tokens.bytes(token)) == 1:
            found.setdefault(raw, token)
    singles = [bytes([value]) for value in range(256)]
    return [found[one] for one in singles] if all(one in found for one in singles) else None


def _merges(state: dict[str, Any]) -> list[list[str]]:
    merges = state["model"]["merges"]
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]


def _order(tokenizer: PreTrainedTokenizerFast, byte_ids: list[int], rows: int) -> list[int]:
    """Our ids in the order of the file: an unused one, the document token, a stop token, bytes, the rest."""
    document = document_token_id(tokenizer)
    stops = [token for token in stop_token_ids(tokenizer) if token != document]
    taken = {document, *byte_ids}
    rest = [token for token in range(rows) if token not in taken]
    stop = stops[0] if stops else rest[0]
    rest.remove(stop)
    # Whatever has id 0 is an ordinary token: run.c never makes it by itself.
    return [rest[0], document, stop, *byte_ids, *rest[1:]]


def _piece(tokens: TokenText, token: int) -> bytes:
    raw = tokens.bytes(token)
    if not raw:
        return f"<|unused_{token}|>".encode()
    # C strings end at a zero byte: run.c would take the token for another one, or for none.
    return raw.replace(b"\0", b"<0x00>")
