"""What an exam's model has answered so far, on disk, so that a crash costs one forward pass.

A line holds the answers of one pass; passes are planned over all questions of an exam, so a resumed run
computes the same batches and gives the same bytes. Lines of another model (its weights, dtype or device)
are not taken.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mengya.runtime.jsonl import json_line, read_jsonl, remove_cut_line


class Journal:
    """Answers by key, in memory and in a file.

    Attributes:
        path: None keeps nothing on disk.
        reused: passes that were not computed again.
    """

    def __init__(self, path: Path | None, model: str) -> None:
        """
        Args:
            model: `model_digest` of what answers.
        """
        self.path, self.reused = path, 0
        self._answers: dict[str, Any] = {}
        if path is None:
            return
        remove_cut_line(path)
        lines = list(read_jsonl(path))
        if lines and lines[0].get("model") == model:
            self._answers = {
                line["key"]: line["answers"]
                for line in lines[1:]
                if {"key", "answers"} <= line.keys()
            }
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json_line({"model": model}), "utf-8")

    def get(self, key: str) -> Any | None:
        answers = self._answers.get(key)
        self.reused += answers is not None
        return answers

    def put(self, key: str, answers: Any) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json_line({"key": key, "answers": answers}))

    def remove(self) -> None:
        """The exams are done and their results saved."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@torch.no_grad()
def model_digest(model: nn.Module) -> str:
    """64 bits of all weights, their dtype and device, and of torch."""
    digest = blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(
                f"{name} {tensor.dtype} {tensor.device.type} {tuple(tensor.shape)}".encode()
            )
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(data.numpy().tobytes())
    digest.update(json.dumps([torch.__version__, torch.get_num_threads()]).encode())
    return digest.hexdigest()


def questions_digest(sequences: Sequence[Sequence[int]], settings: str = "") -> str:
    """64 bits of lists of token ids, and of how they are asked."""
    digest = blake2b(settings.encode(), digest_size=8)
    digest.update(np.array([len(ids) for ids in sequences], np.int64).tobytes())
    for ids in sequences:
        digest.update(np.array(ids, np.int32).tobytes())
    return digest.hexdigest()
