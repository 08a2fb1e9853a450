"""What an export starts from: a checkpoint with its full weights in fp32, and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from mengya.export.sampling_advice import SamplingAdvice
from mengya.models.causal_lm import CausalLM


@dataclass(frozen=True)
class Source:
    """A checkpoint that is written in other formats.

    Attributes:
        model: fp32 on the CPU, in evaluation mode; an adapter is merged, quantized weights are made full.
        folder: config.json (or the adapter's), tokenizer files and, in a run, the run's folder above it.
        sampling: settings to write wherever a format has a place for them.
        name, license, languages: as the user gives them for the model card; None, (): not given.
    """

    model: CausalLM
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    sampling: SamplingAdvice = field(default_factory=SamplingAdvice)
    name: str | None = None
    license: str | None = None
    languages: tuple[str, ...] = ()
