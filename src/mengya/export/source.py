"""What an export starts from: a checkpoint with its full weights in fp32, and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from mengya.models.causal_lm import CausalLM


@dataclass(frozen=True)
class Source:
    """A checkpoint that is written in other formats.

    Attributes:
        model: fp32 on the CPU, in evaluation mode; an adapter is merged, quantized weights are made full.
        folder: config.json (or the adapter's), tokenizer files and, in a run, the run's folder above it.
    """

    model: CausalLM
    tokenizer: PreTrainedTokenizerFast
    folder: Path
