"""`mengya serve CHECKPOINT`: a model behind OpenAI's API, with a chat page at /."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt
from rich.console import Console

from mengya.errors import UserError
from mengya.generation.batch.request import EngineConfig
from mengya.models.hf.open_checkpoint import (
    DtypeName,
    checkpoint_on_meta,
    find_checkpoint,
    pick_dtype,
)
from mengya.runtime.device import DeviceName, init_device
from mengya.runtime.optional import require
from mengya.serving.settings import ServerSettings
from mengya.web.settings import KEY, read_api_key

if TYPE_CHECKING:
    from mengya.serving.runtime.model_source import ModelSource


class ServeConfig(ServerSettings):
    checkpoint: Path
    """Model folder, adapter folder (merged into its base), or run folder."""
    served_name: str | None = Field(default=None, min_length=1)
    """Name of the model in requests; null: that of its folder."""
    adapters: dict[str, Path] = {}
    """LoRA adapters over this base, {name: folder}: requests choose one by its name."""
    models: dict[str, Path] = {}
    """Further full models, {name: model, adapter or run folder}: each is loaded when a request names it."""
    kind: Literal["auto", "chat", "base"] = "auto"
    """What /v1/models reports: chat or base. auto asks each model, and each adapter."""
    device: DeviceName = "auto"
    """auto takes CUDA where there is one."""
    threads: PositiveInt | None = None
    """CPU threads that share a computation of torch; null: torch's own choice, OMP_NUM_THREADS or else one
    a core."""
    dtype: DtypeName = "auto"
    """dtype of the weights; auto: float32 on CPU, bfloat16 elsewhere."""
    engine: Literal["mengya", "vllm"] = "mengya"
    """vllm hands folder, names, address, key and dtype to vLLM's own server (pip install -e '.[vllm]')."""
    batch: EngineConfig = EngineConfig()
    """The engine of each model: how much runs at once, how much waits."""


def run(config: ServeConfig) -> None:
    from mengya.serving.runtime.served import adapter_folder, load_served, name_of
    from mengya.serving.vllm_command import run_vllm

    checkpoint = find_checkpoint(config.checkpoint)
    adapters = {
        name: adapter_folder(folder, checkpoint) for name, folder in config.adapters.items()
    }
    base = config.served_name or name_of(config.checkpoint)
    _check_names(base, config)
    key = read_api_key()
    console = Console(stderr=True)
    if key is None and not config.is_local:
        console.print(
            f"warning: {config.host} can be reached from other machines and {KEY} is not set: "
            "anyone who reaches it may use the model",
            style="yellow",
        )
    if config.engine == "vllm":
        _refuse_what_vllm_ignores(config)
        return run_vllm(checkpoint, base, adapters, config.host, config.port, key, config.dtype)
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, "serve")
    from mengya.serving.serve_command import run_server

    load = partial(
        load_served, config.checkpoint, base, adapters,
        kind=config.kind, device=config.device, threads=config.threads, dtype=config.dtype,
        batch=config.batch,
    )  # fmt: skip
    sources = _sources(config)
    if sources:
        _print_memory(base, config, sources, console)
    run_server(load, base, config, key, console, sources)


def _check_names(base: str, config: ServeConfig) -> None:
    """Every name means one model."""
    for name in config.adapters:
        if name == base:
            raise UserError(
                f"adapters: {base!r} is the base's own name; write another or served_name=..."
            )
    for name in config.models:
        if not name:
            raise UserError("models: a name is empty; write models.NAME=FOLDER")
        if name == base:
            raise UserError(
                f"models: {base!r} is the base's own name; write another or served_name=..."
            )
        if name in config.adapters:
            raise UserError(f"models: {name!r} is the name of an adapter; write another")


def _sources(config: ServeConfig) -> dict[str, ModelSource]:
    """What loads each of `models`."""
    from mengya.serving.runtime.model_source import model_source

    found = {}
    for name, folder in config.models.items():
        try:
            found[name] = model_source(
                folder, name,
                kind=config.kind, device=config.device, threads=config.threads, dtype=config.dtype,
                batch=config.batch,
            )  # fmt: skip
        except UserError as error:
            raise UserError(f"models: {name}: {error}") from error
    return found


def _print_memory(
    base: str, config: ServeConfig, sources: dict[str, ModelSource], console: Console
) -> None:
    from mengya.generation.batch.memory import engine_memory
    from mengya.serving.serve_command import memory_lines

    device = init_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    packs = config.batch.pack_weights and not config.adapters
    memory = engine_memory(
        checkpoint_on_meta(config.checkpoint, device, dtype),
        config.batch.model_copy(update={"pack_weights": packs}),
        dtype,
        device,
    )
    for line in memory_lines(base, memory, sources, config.max_loaded_models):
        console.print(line, markup=False, highlight=False)


def _refuse_what_vllm_ignores(config: ServeConfig) -> None:
    passed_on = ("host", "port")
    ours = (
        *(n for n in ServerSettings.model_fields if n not in passed_on),
        "models",
        "kind",
        "device",
        "threads",
        "batch",
    )
    defaults = {name: ServeConfig.model_fields[name].get_default() for name in ours}
    changed = [name for name in ours if getattr(config, name) != defaults[name]]
    if changed:
        raise UserError(
            f"engine=vllm does not support {', '.join(changed)}: take them out, or write "
            "engine=mengya; vLLM's own server has settings of its own"
        )
