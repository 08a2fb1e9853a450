"""Passkey retrieval by length and depth: can a model use what is far back in its context?

A prompt of a given length holds a key of five digits at a given depth, among filler sentences; the model
is right when greedy decoding gives the full key. One forward pass decides it: each token of the key must
be the likeliest after the true ones before it. Held-out keys only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mengya.config import Config
from mengya.errors import UserError
from mengya.evaluation.likelihood.scoring import evaluating
from mengya.evaluation.long_context.idle_talk import IdleTalk
from mengya.measured.intervals import wilson
from mengya.models.causal_lm import CausalLM
from mengya.tokenizer.load import document_token_id, encode_texts
from mengya.world.passkey import QUESTION, draw_key, key_sentence

BATCH_TOKENS = 1 << 16  # of one forward pass


class PasskeyConfig(Config):
    """Passkey retrieval: a key among filler sentences, asked for at the end."""

    lengths: list[PositiveInt] = [512, 1024]
    """Lengths of the prompts in tokens; may exceed the model's context, to see it fail."""
    depths: list[float] = [0.0, 0.25, 0.5, 0.75, 1.0]
    """Position of the key: 0 at the start of the prompt, 1 at its end."""
    samples: int = Field(default=20, ge=1)
    """Prompts for each length and depth."""
    seed: int = 0
    """Seed of keys and filler sentences."""


@dataclass(frozen=True)
class PasskeyCell:
    """Share of keys found; `interval` is Wilson's at 95 %. length is the longest prompt in tokens."""

    length: int
    depth: float
    accuracy: float
    interval: tuple[float, float]
    samples: int


class PasskeyText:
    """Writes prompts as token ids, for tests and for training."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> None:
        self._tokenizer, self._rng = tokenizer, rng
        self._start = document_token_id(tokenizer)
        self._question = self._encode(QUESTION)
        self._idle = IdleTalk(tokenizer, rng)

    def ids(self, length: int, depth: float, held_out: bool) -> tuple[list[int], int]:
        """At most `length` ids, which end with the key, and how many of them are the key.

        Raises:
            UserError: `length` is too small for key and question, or the tokenizer joins the two.
        """
        key = draw_key(self._rng, held_out)
        statement = self._encode(key_sentence(key))
        # A tokenizer that splits like Qwen's has one token a digit; others may merge them, so the
        # answer is whatever ids follow those of the question.
        asked = self._encode(QUESTION + key)
        if asked[: len(self._question)] != self._question:
            raise UserError(
                "the tokenizer merges the key with the question before it: leave out passkey"
            )
        room = length - 1 - len(statement) - len(asked)
        if room < 0:
            raise UserError(
                f"passkey.lengths: {length} tokens are too few for key and question; "
                f"write at least {length - room}"
            )
        idle = [sentence.ids for sentence in self._idle.fill(room)]
        before = round(depth * len(idle))
        body = list(chain(*idle[:before], statement, *idle[before:]))
        return [self._start, *body, *asked], len(asked) - len(self._question)

    def _encode(self, text: str) -> list[int]:
        return encode_texts(self._tokenizer, [text])[0]


def passkey_retrieval(
    model: CausalLM, tokenizer: PreTrainedTokenizerFast, settings: PasskeyConfig
) -> list[PasskeyCell]:
    """Measure every length and depth, on the model's device and in its dtype."""
    text = PasskeyText(tokenizer, random.Random(settings.seed))
    cells = []
    for length in settings.lengths:
        for depth in settings.depths:
            prompts = [text.ids(length, depth, held_out=True) for _ in range(settings.samples)]
            size = max(BATCH_TOKENS // length, 1)
            found = sum(
                _count_found(model, prompts[i : i + size]) for i in range(0, len(prompts), size)
            )
            cells.append(
                PasskeyCell(
                    length, depth, found / len(prompts), wilson(found, len(prompts)), len(prompts)
                )
            )
    return cells


@torch.inference_mode()
def _count_found(model: CausalLM, prompts: Sequence[tuple[list[int], int]]) -> int:
    """How many full keys of a batch greedy decoding would give."""
    device = model.lm_head.weight.device
    S = max(len(ids) for ids, _ in prompts)
    ids_BS = torch.zeros(len(prompts), S, dtype=torch.int64)
    asked_at: list[int] = []
    owners: list[int] = []
    for row, (ids, answer) in enumerate(prompts):
        ids_BS[row, : len(ids)] = torch.tensor(
            ids
        )  # padded on the right, out of sight of causal attention
        asked_at += range(row * S + len(ids) - answer - 1, row * S + len(ids) - 1)
        owners += [row] * answer
    places = torch.tensor(asked_at)
    with evaluating(model):
        logits = model.decode(ids_BS.to(device), None, positions=places.to(device))[0]
    right: Tensor = logits.argmax(-1).cpu() == ids_BS.flatten()[places + 1]
    missed = {owner for owner, ok in zip(owners, right.tolist(), strict=True) if not ok}
    return len(prompts) - len(missed)
