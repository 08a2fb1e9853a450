"""What is measured: an opened checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from mengya.models.causal_lm import CausalLM


@dataclass(frozen=True)
class Subject:
    """A model on its device, with its tokenizer.

    Attributes:
        folder: the checkpoint's folder (an adapter's, where it is one).
        chat: whether it answers turns in its chat template; False: it continues text.
    """

    model: CausalLM
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    chat: bool

    @property
    def context_length(self) -> int:
        return int(self.model.config.context_length)
