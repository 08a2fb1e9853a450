"""Ids of text from tiktoken, several times as fast as tokenizers, where both are sure to give the same.

Takes a tokenizer without control tokens and single texts; says of every text whether it can be sure.

Both libraries split text into words by one pattern and merge inside of words. Merges: tiktoken joins the
neighbours whose joined text has the lowest rank, tokenizers the pair that stands first in its list. That is
the same when the list has the order of the ids and every token, as a word, becomes itself: what stands
between two cuts merges as it does alone, so a pair that the list does not have never meets its token's text.
Words: the libraries have Unicode tables of different versions, so every character is tried in both when it
is first met. The pattern knows letters, numbers, white space, line ends and the rest, and contractions.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from mengya.tokenizer.word_split import SPLIT_PATTERN, word_split

LONGEST = 1 << 17  # characters; tiktoken's engine gives up on a million spaces
_UNKNOWN, _SAME, _DIFFERENT = range(3)
# Around a character: each kind of them joins other neighbours; 'ſ may be a contraction and 'ſa a word.
_PROBES = (("a", ""), ("!", ""), ("", "a"), ("'", "a"))


def tiktoken_ranks(backend: Tokenizer) -> dict[bytes, int] | None:
    """The id of every token by its bytes; None where tiktoken may give other ids."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    state = json.loads(backend.to_str())
    model, expected = state["model"], Tokenizer(models.BPE())
    expected.pre_tokenizer = word_split()
    if (
        state["normalizer"] is not None
        or state["added_tokens"]
        or state["pre_tokenizer"] != json.loads(expected.to_str())["pre_tokenizer"]
        or not _merges_by_id(model)
    ):
        return None
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    tokens = [*byte_of, *(left + right for left, right in model["merges"])]
    return {bytes(map(byte_of.__getitem__, token)): model["vocab"][token] for token in tokens}


def _merges_by_id(model: dict[str, Any]) -> bool:
    """Whether the merges of BPE have the order of the ids, and every token becomes itself."""
    options = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    if model["type"] != "BPE" or any(model[option] is not None for option in options):
        return False
    vocabulary, merges = model["vocab"], [tuple(pair) for pair in model["merges"]]
    joined = [left + right for left, right in merges]
    ids = [vocabulary[token] for token in joined]
    if any(earlier >= later for earlier, later in pairwise(ids)):
        return False
    words = Tokenizer(models.BPE(vocabulary, merges))
    found = words.encode_batch_fast(joined, add_special_tokens=False)
    return all(word.ids == [i] for word, i in zip(found, ids, strict=True))


class TiktokenIds:
    """Ids of text by tiktoken.

    Args:
        ranks: of `tiktoken_ranks`; backend: the tokenizer that they are of.

    Raises:
        ModuleNotFoundError: tiktoken is not installed.
    """

    def __init__(self, ranks: dict[bytes, int], backend: Tokenizer) -> None:
        from tiktoken import Encoding

        self._backend = backend
        self._encoding = Encoding(
            "text", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={}
        )
        self._probe = Encoding(
            "probe", pat_str=SPLIT_PATTERN, mergeable_ranks=_probe_ranks(), special_tokens={}
        )
        self._characters = np.full(0x110000, _UNKNOWN, np.uint8)
        self._characters[0xD800:0xE000] = _DIFFERENT  # halves of surrogate pairs

    def __call__(self, text: str) -> np.ndarray:
        """[T] uint32."""
        return np.array(self._encoding.encode_ordinary(text), np.uint32)

    def is_sure(self, text: str) -> bool:
        """Whether the ids of a text are sure to be those of tokenizers."""
        if len(text) > LONGEST:
            return False
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        found = self._characters.take(codes)
        if not found.all():
            for code in np.unique(codes[found == _UNKNOWN]).tolist():
                same = self._splits_equally(chr(code))
                self._characters[code] = _SAME if same else _DIFFERENT
            found = self._characters.take(codes)
        return not (found == _DIFFERENT).any()

    def _splits_equally(self, character: str) -> bool:
        """Whether both libraries take a character for the same kind."""
        splitter = self._backend.pre_tokenizer
        for before, after in _PROBES:
            text = before + character + after
            cut = len(text) - 1
            words = splitter.pre_tokenize_str(text)
            joined = all(start != cut for _, (start, _) in words)
            if joined != (len(self._probe.encode_ordinary(text)) < len(text.encode())):
                return False
        return True


def _probe_ranks() -> dict[bytes, int]:
    """A vocabulary that joins bytes where the probes ask for a cut, and nowhere else."""
    pairs = [b"a%c" % byte for byte in range(256)] + [b"!%c" % byte for byte in range(256)]
    pairs += [b"%ca" % byte for byte in range(256)]
    tokens = dict.fromkeys([*(b"%c" % byte for byte in range(256)), *pairs])
    return {token: rank for rank, token in enumerate(tokens)}
