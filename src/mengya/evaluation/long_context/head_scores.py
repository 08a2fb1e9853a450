"""Bits per character of the beginnings of many texts: what a filter by perplexity goes by.

As `bits_per_char`, for each text alone, and of a long one only its first tokens. Takes a checkpoint, gives a
callable; it is small until it is called, so that it can be sent to other processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from mengya.evaluation.likelihood.scoring import sequence_nlls
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import checkpoint_sha256
from mengya.models.hf.open_checkpoint import open_checkpoint, pick_dtype
from mengya.runtime.device import DeviceName, init_device
from mengya.tokenizer.load import document_token_id, plain_backend

_CHARACTERS = 16  # of a token at most, in what is tokenized: long documents need not be


@dataclass(frozen=True)
class HeadScores:
    """Called, it loads the model and gives texts -> bits per character.

    Attributes:
        checkpoint: a folder that `open_checkpoint` takes.
        max_tokens: that are predicted of each text, cut to the model's context.
    """

    checkpoint: Path
    max_tokens: int
    device: DeviceName = "auto"

    def sha256(self) -> str:
        """Of the tokenizer, configuration and weights."""
        return checkpoint_sha256(self.checkpoint)

    def __call__(self) -> Callable[[list[str]], list[float]]:
        """Raises:
        UserError: the checkpoint or the device cannot be used.
        """
        device = init_device(self.device)
        model, tokenizer = open_checkpoint(self.checkpoint, device, pick_dtype("auto", device))
        tokens = min(self.max_tokens, int(model.config.context_length))
        return _Scorer(model, plain_backend(tokenizer), document_token_id(tokenizer), tokens)


class _Scorer:
    def __init__(
        self, model: CausalLM, tokenizer: Tokenizer, document_token: int, max_tokens: int
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._document_token, self._max_tokens = document_token, max_tokens

    def __call__(self, texts: list[str]) -> list[float]:
        heads = [text[: self._max_tokens * _CHARACTERS] for text in texts]
        encodings = self._tokenizer.encode_batch(heads, add_special_tokens=False)
        sequences, characters = [], []
        for text, encoding in zip(texts, encodings, strict=True):
            ids = encoding.ids[: self._max_tokens]
            end = encoding.offsets[len(ids) - 1][1] if ids else 0
            closing = (
                [self._document_token] if end == len(text) and len(ids) < self._max_tokens else []
            )
            sequences.append([self._document_token, *ids, *closing])
            characters.append(max(end, 1))
        with _one_thread():
            nlls = sequence_nlls(self._model, sequences)
        bits = (nll.double().sum().item() / math.log(2) for nll in nlls)
        return [value / count for value, count in zip(bits, characters, strict=True)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Of torch: processes are the parallelism, and sums do not depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
