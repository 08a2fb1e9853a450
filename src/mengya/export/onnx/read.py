"""An ONNX file as onnxruntime computes it, with the tokenizer files next to it as transformers reads them.

The reader of the proof. The logits of a text are asked for in three pieces, each with the keys and values
that the piece before gave, so that the cache is proven as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from mengya.runtime.optional import require

Arrays = dict[str, np.ndarray]


class OnnxFolder:
    """A `Reader` of a folder in the layout of transformers.js.

    Args:
        name: of the file below onnx/.
    """

    def __init__(self, directory: Path, name: str) -> None:
        onnxruntime = require("onnxruntime", "onnx")
        self.program = f"onnxruntime {onnxruntime.__version__} ({name})"
        self._tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        self._generation = json.loads((directory / "generation_config.json").read_text("utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(directory / "onnx" / name), options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def token_ids(self, text: str, parse_special: bool = False) -> list[int] | None:
        """As `Reader.token_ids`."""
        return list(
            self._tokenizer.encode(
                text, add_special_tokens=False, split_special_tokens=not parse_special
            )
        )

    def logits(self, ids: Sequence[int]) -> Tensor | None:
        """As `Reader.logits`."""
        cache, parts, start = self._empty_cache(), [], 0
        half = len(ids) // 2
        for size in (half, 1, len(ids) - half - 1):
            if size > 0:
                logits, cache = self._step(np.array([ids[start : start + size]]), start, cache)
                parts.append(torch.from_numpy(logits[0]))
                start += size
        return torch.cat(parts)

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        enable_thinking: bool | None = None,
    ) -> str | None:
        """As `Reader.prompt`."""
        more = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        text = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=None if tools is None else [dict(tool) for tool in tools],
            add_generation_prompt=True,
            tokenize=False,
            **more,
        )
        return str(text)

    def stop_token_ids(self) -> set[int] | None:
        """Those of generation_config.json."""
        stop = self._generation.get("eos_token_id")
        return set() if stop is None else {stop} if isinstance(stop, int) else set(stop)

    def _empty_cache(self) -> Arrays:
        """No tokens yet, made as transformers.js makes it: by the names of the dimensions."""
        sizes = {"batch_size": 1, "past_sequence_length": 0}
        cache: Arrays = {}
        for value in self._session.get_inputs():
            if value.name.startswith("past_key_values."):
                shape: list[Any] = [sizes.get(str(size), size) for size in value.shape]
                cache[value.name] = np.zeros(shape, np.float32)
        return cache

    def _step(self, ids_BS: np.ndarray, past: int, cache: Arrays) -> tuple[np.ndarray, Arrays]:
        """Logits of the new tokens, and the longer cache."""
        total = past + ids_BS.shape[1]
        made = self._session.run(
            None,
            {
                "input_ids": ids_BS,
                "attention_mask": np.ones((1, total), np.int64),
                "position_ids": np.arange(past, total)[None],
                **cache,
            },
        )
        values = dict(zip(self._outputs, made, strict=True))
        present = {
            name.replace("present", "past_key_values"): values[name]
            for name in self._outputs
            if name.startswith("present.")
        }
        return values["logits"], present
