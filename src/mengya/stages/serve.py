"""`mengya serve CHECKPOINT`: a model behind OpenAI's API, with a chat page at /."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt
from rich.console import Console

from mengya.errors import UserError
from mengya.generation.batch.request import EngineConfig
from mengya.models.hf.open_checkpoint import DtypeName, find_checkpoint
from mengya.runtime.device import DeviceName
from mengya.runtime.optional import require
from mengya.serving.settings import ServerSettings
from mengya.web.settings import KEY, read_api_key


class ServeConfig(ServerSettings):
    checkpoint: Path
    """Model folder, adapter folder (merged into its base), or run folder."""
    served_name: str | None = Field(default=None, min_length=1)
    """Name of the model in requests; null: that of its folder."""
    adapters: dict[str, Path] = {}
    """LoRA adapters over this base, {name: folder}: requests choose one by its name."""
    kind: Literal["auto", "chat", "base"] = "auto"
    """What /v1/models reports: chat or base. auto asks the model, and each adapter."""
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
    """The engine: how much runs at once, how much waits."""


def run(config: ServeConfig) -> None:
    from mengya.serving.runtime.served import adapter_folder, load_served, name_of
    from mengya.serving.vllm_command import run_vllm

    checkpoint = find_checkpoint(config.checkpoint)
    adapters = {
        name: adapter_folder(folder, checkpoint) for name, folder in config.adapters.items()
    }
    base = config.served_name or name_of(config.checkpoint)
    if base in adapters:
        raise UserError(
            f"adapters: {base!r} is the base's own name; write another or served_name=..."
        )
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
    run_server(load, base, config, key, console)


def _refuse_what_vllm_ignores(config: ServeConfig) -> None:
    passed_on = ("host", "port")
    ours = (
        *(n for n in ServerSettings.model_fields if n not in passed_on),
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
