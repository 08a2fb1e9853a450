"""The contract of the proof: how another program than ours reads what was written.

One class for each program (transformers, llama.cpp, onnxruntime, a published layout); `parity` compares
its answers with those of our own model. A reader that cannot answer a question gives None, and the proof
says that it was not asked. One that fails raises what its program raises: the proof reports it.
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

    def token_ids(self, text: str, parse_special: bool = False) -> list[int] | None:
        """Ids of a text, without tokens before or after it.

        Args:
            parse_special: names of special tokens become their ids, as in a rendered prompt; else they are
                text. Added tokens that are not special (`<think>`) become their ids in both.
        """
        ...

    def logits(self, ids: Sequence[int]) -> Tensor | None:
        """fp32 logits after every token, [S, V]; V may exceed the vocabulary where rows are padded."""
        ...

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        enable_thinking: bool | None = None,
    ) -> str | None:
        """The rendered conversation with the assistant's turn opened.

        Args:
            enable_thinking: given to the template unless it is None.
        """
        ...

    def stop_token_ids(self) -> set[int] | None:
        """Tokens that end an answer."""
        ...
