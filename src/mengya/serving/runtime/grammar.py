"""A JSON schema -> which tokens may come next, so that a reply is JSON of that schema.

Wraps llguidance as the engine's `TokenFilter`. Knows nothing of models or HTTP.
Shapes: V = vocabulary of the model, which may be larger than the tokenizer's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.runtime.optional import require
from mengya.serving.runtime.json_schema import ReplySchema, compile_schema


class Grammars:
    """Makes filters for one vocabulary.

    Args:
        stop_token_ids: what ends a reply; allowed once the JSON is complete.

    Raises:
        UserError: llguidance is not installed, or cannot read this tokenizer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        vocab_size: int,
        stop_token_ids: Iterable[int],
    ) -> None:
        require("llguidance", "serve")
        hf = require("llguidance.hf", "serve")
        self._tokenizer = tokenizer
        self._vocab_size, self._stop_token_ids = vocab_size, sorted(stop_token_ids)
        try:
            self._vocabulary = hf.from_tokenizer(
                tokenizer, n_vocab=vocab_size, eos_token=self._stop_token_ids
            )
        except ValueError as error:
            raise UserError(f"llguidance cannot read this tokenizer: {error}") from error

    def vocabulary_json(self) -> dict[str, Any]:
        """What another process needs to make the same vocabulary."""
        return {
            "tokenizer": self._tokenizer.backend_tokenizer.to_str(),
            "vocab_size": self._vocab_size,
            "stop_token_ids": self._stop_token_ids,
        }

    def json_schema(self, schema: ReplySchema) -> JsonFilter:
        """A filter for replies that are JSON of `schema`, which `SchemaCheck` has found harmless.

        Raises:
            ValueError: no JSON schema, or a keyword that cannot be enforced; says which.
        """
        matcher, ignored = compile_schema(self._vocabulary, schema.value, schema.strict)
        return JsonFilter(matcher, ignored)


class JsonFilter:
    """The state of one reply; used by the engine's thread alone.

    Attributes:
        ignored: what the schema asks for and this does not enforce.
        failure: why nothing can be enforced any more; None: all is well.
    """

    def __init__(self, matcher: Any, ignored: list[str]) -> None:
        self._matcher, self.ignored = matcher, ignored
        self.failure: str | None = None

    def copy(self) -> JsonFilter:
        """The same for another reply."""
        return JsonFilter(self._matcher.deep_copy(), self.ignored)

    def fill(self, allowed_V: Tensor) -> None:
        """Write into `allowed_V` ([V] bool, any device) which tokens may come next; none at a failure."""
        V = allowed_V.shape[0]
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._failed():
            allowed_V[:] = False
            return
        mask = np.unpackbits(bits, bitorder="little")[:V].astype(bool)
        allowed_V[: len(mask)] = torch.from_numpy(mask).to(allowed_V.device)
        allowed_V[len(mask) :] = False

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen."""
        self._matcher.consume_token(token)
        self._failed()

    @property
    def finished(self) -> bool:
        """Whether nothing may follow: the JSON is complete, or the filter has failed."""
        return self._matcher.is_stopped()

    def _failed(self) -> bool:
        if self._matcher.is_error() and self.failure is None:
            self.failure = " ".join(self._matcher.get_error().split())[:200]
        return self.failure is not None
