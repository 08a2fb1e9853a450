"""What a server serves: one model, its engine and tokenizer, and the names it is asked for by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerFast

from mengya.generation.batch.engine import BatchEngine
from mengya.models.adapters.adapter_set import AdapterSet
from mengya.models.causal_lm import CausalLM


@dataclass(frozen=True, slots=True)
class ServedName:
    """One entry of /v1/models.

    Attributes:
        adapter: the LoRA adapter that the name means; None: the base alone.
        kind: chat when the model has learnt to converse.
    """

    kind: Literal["chat", "base"]
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """Everything that the worker's thread owns, and what others may read of it.

    Attributes:
        names: model name -> what it means; the first one is the base.
        adapters: the switch between them, None without any; for the worker's thread only.
    """

    engine: BatchEngine
    model: CausalLM
    tokenizer: PreTrainedTokenizerFast
    names: dict[str, ServedName]
    adapters: AdapterSet | None = None

    @property
    def context(self) -> int:
        """Most tokens of prompt and completion together."""
        return self.engine.context
