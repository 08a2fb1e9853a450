"""A GGUF file as llama.cpp reads it: an `export.reader.Reader`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mengya.export.gguf.llama_cpp_process import LlamaCppProcess


class LlamaCppReader:
    """llama.cpp with the file, on the CPU. Close it, or leave it as a context manager.

    Args:
        python: one with llama-cpp-python (llama_cpp_process.llama_python).
    """

    def __init__(self, path: Path, python: str) -> None:
        self._process = LlamaCppProcess(python)
        try:
            opened = self._process.ask("open", path=str(path))
        except BaseException:
            self._process.close()
            raise
        self.program: str = opened["program"]
        self._stop = set(opened["stop"])

    def __enter__(self) -> LlamaCppReader:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """End its process."""
        self._process.close()

    def token_ids(self, text: str, parse_special: bool = False) -> list[int]:
        return self._process.ask("tokens", text=text, special=parse_special)["ids"]

    def logits(self, ids: Sequence[int]) -> Tensor:
        return torch.from_numpy(self._process.ask("logits", ids=list(ids)).copy())

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        enable_thinking: bool | None = None,
    ) -> str | None:
        options = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        asked = self._process.ask(
            "prompt", messages=list(messages), tools=tools and list(tools), options=options
        )
        return asked["text"]

    def stop_token_ids(self) -> set[int]:
        return self._stop
