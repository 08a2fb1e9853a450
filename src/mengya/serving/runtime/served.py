"""What a server serves: one model, its engine and tokenizer, and the names it is asked for by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.generation.batch.engine import BatchEngine, EngineConfig
from mengya.generation.chat_detection import is_chat_model
from mengya.models.adapters.adapter_set import AdapterSet
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.open_checkpoint import (
    ADAPTER,
    DtypeName,
    find_checkpoint,
    open_checkpoint,
    pick_dtype,
)
from mengya.runtime.device import DeviceName, init_device
from mengya.serving.runtime.grammar import Grammars
from mengya.serving.runtime.model_facts import ModelFacts, facts_of
from mengya.tokenizer.load import TOKENIZER_FILES, stop_token_ids, tokenizer_hash
from mengya.tokenizer.token_text import TokenText

ModelKind = Literal["chat", "base"]


@dataclass(frozen=True, slots=True)
class ServedName:
    """One entry of /v1/models.

    Attributes:
        adapter: the LoRA adapter that the name means; None: the base alone.
        kind: chat when the model was trained on conversations.
    """

    kind: ModelKind
    adapter: str | None = None


@dataclass(frozen=True)
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
    def name(self) -> str:
        """Name of the full model, without adapters."""
        return next(iter(self.names))

    @cached_property
    def facts(self) -> ModelFacts:
        """Of the full model."""
        return facts_of(self.model, self.tokenizer)

    @property
    def context(self) -> int:
        """Most tokens of prompt and completion together."""
        return self.engine.context

    @cached_property
    def stop_token_ids(self) -> frozenset[int]:
        """Tokens that end a completion."""
        return frozenset(stop_token_ids(self.tokenizer))

    @cached_property
    def token_text(self) -> TokenText:
        """Texts of single tokens."""
        return TokenText(self.tokenizer)

    @cached_property
    def grammars(self) -> Grammars:
        """Maker of grammars for the model's vocabulary.

        Raises:
            UserError: the library for them is not installed, or cannot read the tokenizer.
        """
        return Grammars(self.tokenizer, self.model.config.vocab_size, self.stop_token_ids)


def load_served(
    checkpoint: Path,
    name: str,
    adapters: dict[str, Path],
    *,
    kind: Literal["auto", "chat", "base"],
    device: DeviceName,
    threads: int | None,
    dtype: DtypeName,
    batch: EngineConfig,
) -> Served:
    """The model, its adapters and its engine; slow: for the worker's thread.

    Args:
        name: of the base in requests.
        adapters: name in requests -> folder of a LoRA adapter, as `adapter_folder` gives it.
        kind: auto asks the model, and each adapter.

    Raises:
        UserError: whatever cannot be loaded.
    """
    chosen = init_device(device, threads)
    model, tokenizer = open_checkpoint(checkpoint, chosen, pick_dtype(dtype, chosen))
    switch = AdapterSet(model, adapters) if adapters else None

    def kind_now() -> ModelKind:
        if kind != "auto":
            return kind
        return "chat" if is_chat_model(model, tokenizer) else "base"

    names = {name: ServedName(kind_now())}
    if switch is not None:
        for adapter in adapters:
            switch.select(adapter)
            names[adapter] = ServedName(kind_now(), adapter)
        switch.select(None)
    engine = BatchEngine(model, batch, switch.select if switch else None)
    return Served(engine, model, tokenizer, names, switch)


def adapter_folder(path: Path, base: Path) -> Path:
    """The folder of the LoRA adapter at `path`, a run folder perhaps.

    Raises:
        UserError: it is no adapter, or its tokenizer, if it has one, is not that of `base`.
    """
    folder = find_checkpoint(path)
    if not (folder / ADAPTER).is_file():
        raise UserError(f"adapters: {path} is a full model, no LoRA adapter; serve it by itself")
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZER_FILES)
    if has_tokenizer and tokenizer_hash(folder) != tokenizer_hash(base):
        raise UserError(f"adapters: {path} was trained with another tokenizer than {base}")
    return folder


def name_of(path: Path) -> str:
    """models/Qwen3-0.6B -> Qwen3-0.6B; runs/my/sft/checkpoints/latest -> sft."""
    parts = [p for p in path.absolute().parts if p not in ("checkpoints", "latest", "best", "/")]
    return parts[-1] if parts else "model"
