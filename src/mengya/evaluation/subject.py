"""What is measured: an opened checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from mengya.evaluation.progress import OnProgress, silent
from mengya.models.causal_lm import CausalLM


@dataclass(frozen=True)
class Subject:
    """A model on its device, with its tokenizer.

    Attributes:
        folder: the checkpoint's folder (an adapter's, where it is one).
        chat: whether it answers turns in its chat template; False: it continues text.
        on_progress: called with how many prompts or sentences of what is being measured are done.
    """

    model: CausalLM
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    chat: bool
    on_progress: OnProgress = silent

    @property
    def context_length(self) -> int:
        return int(self.model.config.context_length)
