"""`mengya serve CHECKPOINT`: a model behind OpenAI's API, with a chat page at /."""

from __future__ import annotations

import ipaddress
import logging
import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from rich.console import Console
from rich.logging import RichHandler

from mengya.errors import UserError
from mengya.generation.batch.engine import BatchEngine, EngineConfig
from mengya.generation.chat_detection import has_learnt_to_chat
from mengya.models.adapters.adapter_set import AdapterSet
from mengya.models.hf.open_checkpoint import (
    ADAPTER,
    DtypeName,
    find_checkpoint,
    open_checkpoint,
    pick_dtype,
)
from mengya.runtime.device import DeviceName, init_device
from mengya.runtime.optional import require
from mengya.serving.runtime.served import Served, ServedName
from mengya.serving.settings import ServerSettings
from mengya.stages.vllm import run_vllm
from mengya.tokenizer.load import TOKENIZER_FILES, tokenizer_hash

KEY = "MENGYA_API_KEY"


class ServeConfig(ServerSettings):
    checkpoint: Path
    """Model folder, adapter folder (merged into its base), or run folder."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in: set MENGYA_API_KEY then."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    served_name: str | None = Field(default=None, min_length=1)
    """Name of the model in requests; null: that of its folder."""
    adapters: dict[str, Path] = {}
    """LoRA adapters over this base, {name: folder}: requests choose one by its name."""
    kind: Literal["auto", "chat", "base"] = "auto"
    """What /v1/models tells: chat or base. auto asks the model, and each adapter."""
    device: DeviceName = "auto"
    """auto takes CUDA where there is one."""
    dtype: DtypeName = "auto"
    """dtype of the weights; auto: float32 on CPU, bfloat16 elsewhere."""
    engine: Literal["mengya", "vllm"] = "mengya"
    """vllm hands folder, names, address, key and dtype to vLLM's own server (pip install -e '.[vllm]')."""
    batch: EngineConfig = EngineConfig()
    """The engine: how much runs at once, how much waits."""


def run(config: ServeConfig) -> None:
    checkpoint = find_checkpoint(config.checkpoint)
    adapters = {name: _adapter(folder, checkpoint) for name, folder in config.adapters.items()}
    base = config.served_name or _name(config.checkpoint)
    if base in adapters:
        raise UserError(
            f"adapters: {base!r} is the base's own name; write another or served_name=..."
        )
    key = os.environ.get(KEY) or None
    if key is not None and not key.isascii():
        raise UserError(f"{KEY} holds characters that no HTTP header can carry; use ASCII")
    console = Console(stderr=True)
    if key is None and not _is_local(config.host):
        console.print(
            f"warning: {config.host} can be reached from other machines and {KEY} is not set: "
            "whoever reaches it may use the model",
            style="yellow",
        )
    if config.engine == "vllm":
        _refuse_what_vllm_ignores(config)
        return run_vllm(checkpoint, base, adapters, config.host, config.port, key, config.dtype)
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, "serve")
    _serve(config, base, adapters, key, console)


def _refuse_what_vllm_ignores(config: ServeConfig) -> None:
    ours = (*ServerSettings.model_fields, "kind", "device", "batch")
    defaults = {name: ServeConfig.model_fields[name].get_default() for name in ours}
    changed = [name for name in ours if getattr(config, name) != defaults[name]]
    if changed:
        raise UserError(
            f"engine=vllm knows nothing of {', '.join(changed)}: take them out, or write "
            "engine=mengya; vLLM's own server has settings of its own"
        )


def _serve(
    config: ServeConfig, base: str, adapters: dict[str, Path], key: str | None, console: Console
) -> None:
    from mengya.serving.app import create_app
    from mengya.serving.draining import DrainingServer
    from mengya.serving.runtime.worker import Worker

    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console)]
    )
    worker = Worker(lambda: load(config, base, adapters))
    settings = ServerSettings(
        **{name: getattr(config, name) for name in ServerSettings.model_fields}
    )
    app = create_app(worker, settings, key)

    def announce(url: str) -> None:
        console.print(
            f"{base} at {url} (API: {url}/v1); Ctrl-C ends", markup=False, highlight=False
        )

    server = DrainingServer(app, config.host, config.port, announce)
    try:
        server.run()
    except SystemExit as exit_:  # what uvicorn makes of an address that is taken
        raise UserError(
            f"cannot listen on {config.host}:{config.port}; is another server there? "
            "Write port=0 for a free one"
        ) from exit_
    if worker.error is not None:
        raise worker.error


def load(config: ServeConfig, base: str, adapters: dict[str, Path]) -> Served:
    """The model, its adapters and its engine; for the worker's thread."""
    device = init_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    model, tokenizer = open_checkpoint(config.checkpoint, device, dtype)
    switch = AdapterSet(model, adapters) if adapters else None

    def kind() -> Literal["chat", "base"]:
        if config.kind != "auto":
            return config.kind
        return "chat" if has_learnt_to_chat(model, tokenizer) else "base"

    names = {base: ServedName(kind())}
    for name in adapters:
        assert switch is not None
        switch.select(name)
        names[name] = ServedName(kind(), name)
    if switch is not None:
        switch.select(None)
    engine = BatchEngine(model, config.batch, switch.select if switch else None)
    return Served(engine, model, tokenizer, names, switch)


def _adapter(path: Path, base: Path) -> Path:
    """The adapter's folder, when its tokenizer, if it has one, is the base's."""
    folder = find_checkpoint(path)
    if not (folder / ADAPTER).is_file():
        raise UserError(f"adapters: {path} is a whole model, no LoRA adapter; serve it by itself")
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZER_FILES)
    if has_tokenizer and tokenizer_hash(folder) != tokenizer_hash(base):
        raise UserError(f"adapters: {path} was trained with another tokenizer than {base}")
    return folder


def _name(path: Path) -> str:
    """models/Qwen3-0.6B -> Qwen3-0.6B; runs/my/sft/checkpoints/latest -> sft."""
    parts = [p for p in path.absolute().parts if p not in ("checkpoints", "latest", "best", "/")]
    return parts[-1] if parts else "model"


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
