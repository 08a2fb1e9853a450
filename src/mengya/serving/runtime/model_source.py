"""A checkpoint that can be loaded later: what is known of it without reading its weights.

Takes a folder; gives what loads it, and an estimate of its memory. Knows nothing of when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mengya.generation.batch.engine import EngineConfig, check_supported
from mengya.generation.batch.memory import EngineMemory, engine_memory
from mengya.models.hf.open_checkpoint import (
    DtypeName,
    checkpoint_config,
    checkpoint_on_meta,
    find_checkpoint,
    pick_dtype,
)
from mengya.runtime.device import DeviceName, init_device
from mengya.serving.runtime.model_facts import ModelFacts, facts_of
from mengya.serving.runtime.served import ModelKind, Served, load_served
from mengya.tokenizer.load import load_tokenizer


@dataclass(frozen=True, slots=True)
class ModelSource:
    """
    Attributes:
        folder: as the server's owner wrote it.
        load: makes the model; runs in the thread of its engine.
        memory: an estimate.
        facts: of the checkpoint that was there when the server was started.
        kind: None: only the loaded model says.
    """

    folder: Path
    load: Callable[[], Served]
    memory: EngineMemory
    facts: ModelFacts
    kind: ModelKind | None = None


def model_source(
    folder: Path,
    name: str,
    *,
    kind: Literal["auto", "chat", "base"],
    device: DeviceName,
    threads: int | None,
    dtype: DtypeName,
    batch: EngineConfig,
) -> ModelSource:
    """The model of a model, adapter or run folder; a run's best checkpoint is looked up at each load.

    Args:
        name: of the model in requests.
        kind, device, threads, dtype, batch: as those of `load_served`.

    Raises:
        UserError: what can be known to fail without the weights.
    """
    checkpoint = find_checkpoint(folder)
    check_supported(checkpoint_config(checkpoint))
    tokenizer = load_tokenizer(checkpoint)
    chosen = init_device(device)
    number_type = pick_dtype(dtype, chosen)
    model = checkpoint_on_meta(checkpoint, chosen, number_type)
    memory = engine_memory(model, batch, number_type, chosen)
    facts = facts_of(model, tokenizer)
    load = partial(
        load_served, folder, name, {},
        kind=kind, device=device, threads=threads, dtype=dtype, batch=batch,
    )  # fmt: skip
    return ModelSource(folder, load, memory, facts, None if kind == "auto" else kind)
