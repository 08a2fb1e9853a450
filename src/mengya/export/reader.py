"""The contract of the proof: how another program than ours reads what was written.

One class for each program (transformers, llama.cpp, onnxruntime, a published layout); `parity` compares
its answers with those of our own model. A reader that cannot answer a question gives None, and the proof
says that it was not asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor


class Reader(Protocol):
    """An exported model, opened by another program.

    Attributes:
        program: name and version of the program, as "transformers 5.23.0".
    """

    program: str

    def token_ids(self, text: str) -> list[int] | None:
        """Ids of a plain text, without tokens before or after it; names of control tokens are text."""
        ...

    def logits(self, ids: Sequence[int]) -> Tensor | None:
        """fp32 logits after every token, [S, V]."""
        ...

    def prompt(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> str | None:
        """The rendered conversation with the assistant's turn opened."""
        ...

    def stop_token_ids(self) -> set[int] | None:
        """Tokens that end an answer."""
        ...
