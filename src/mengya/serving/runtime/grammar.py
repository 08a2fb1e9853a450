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

# Between the parts of the JSON a line break and an indent may stand, no more: a small model would
# else write white space until its tokens are used up.
_SPACE = r"\n?[ ]{0,8}"


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
        self._llguidance = require("llguidance", "serve")
        hf = require("llguidance.hf", "serve")
        try:
            self._vocabulary = hf.from_tokenizer(
                tokenizer, n_vocab=vocab_size, eos_token=sorted(stop_token_ids)
            )
        except ValueError as error:
            raise UserError(f"llguidance cannot read this tokenizer: {error}") from error

    def json_schema(self, schema: dict[str, Any]) -> JsonFilter:
        """A filter for replies that are JSON of `schema`.

        Raises:
            ValueError: no JSON schema, or a keyword that cannot be enforced; says which.
        """
        matcher = self._llguidance.LLMatcher
        try:
            grammar = matcher.grammar_from_json_schema(
                schema, overrides={"whitespace_pattern": _SPACE}
            )
        except (ValueError, RecursionError) as error:
            raise ValueError(str(error)) from None
        if problem := matcher.validate_grammar(grammar, self._vocabulary):
            raise ValueError(" ".join(problem.split())[:300])
        return JsonFilter(matcher(self._vocabulary, grammar, log_level=0))


class JsonFilter:
    """The state of one reply; used by the engine's thread alone."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill(self, allowed_V: Tensor) -> None:
        """Write into `allowed_V` ([V] bool, any device) which tokens may come next."""
        V = allowed_V.shape[0]
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.unpackbits(bits, bitorder="little")[:V].astype(bool)
        allowed_V[: len(mask)] = torch.from_numpy(mask).to(allowed_V.device)
        allowed_V[len(mask) :] = False

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen."""
        self._matcher.consume_token(token)

    @property
    def finished(self) -> bool:
        """Whether the JSON is complete, so that nothing but the end may follow."""
        return self._matcher.is_stopped()


def call_schema(functions: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema of the JSON inside <tool_call>, for a call of any of `functions`.

    Args:
        functions: {"name", "parameters"?}, as in the `function` of an API tool.
    """
    # References are to the root of a function's own schema, which stands deeper in this one.
    arguments = {
        str(i): _moved(function.get("parameters") or {"type": "object"}, f"#/$defs/{i}")
        for i, function in enumerate(functions)
    }
    return {
        "$defs": arguments,
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "name": {"const": function["name"]},
                    "arguments": {"$ref": f"#/$defs/{i}"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for i, function in enumerate(functions)
        ],
    }


def _moved(schema: Any, root: str) -> Any:
    """`schema` with its references to "#..." made to `root`."""
    if isinstance(schema, list):
        return [_moved(item, root) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: root + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, root)
        for key, value in schema.items()
    }
