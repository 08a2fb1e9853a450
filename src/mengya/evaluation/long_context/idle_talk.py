"""Sentences of no importance that fill a given number of tokens."""

from __future__ import annotations

import random
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from mengya.tokenizer.load import encode_texts
from mengya.world.passkey import idle_sentence

SENTENCES = 2000  # encoded once, then drawn from


class Sentence(NamedTuple):
    text: str
    ids: list[int]


class IdleTalk:
    """Draws with the random numbers that it is given."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> None:
        texts = [idle_sentence(rng) for _ in range(SENTENCES)]
        self._sentences = list(map(Sentence, texts, encode_texts(tokenizer, texts)))
        self._rng = rng

    def fill(self, room: int) -> list[Sentence]:
        """Sentences of at most `room` tokens together, until one does not fit."""
        chosen: list[Sentence] = []
        while True:
            sentence = self._rng.choice(self._sentences)
            if len(sentence.ids) > room:
                return chosen
            chosen.append(sentence)
            room -= len(sentence.ids)
