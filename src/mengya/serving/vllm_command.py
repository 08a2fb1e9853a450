"""`mengya serve engine=vllm`: the checkpoint behind vLLM's own server, where that is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mengya.errors import UserError
from mengya.models.hf.config import load_model_config, load_quantization
from mengya.models.hf.open_checkpoint import ADAPTER, DtypeName, standard_folder
from mengya.models.quantized.folder import read_quantization
from mengya.models.quantized.layouts import LAYOUTS
from mengya.runtime.optional import require

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank may be


def run_vllm(
    checkpoint: Path,
    name: str,
    adapters: dict[str, Path],
    host: str,
    port: int,
    key: str | None,
    dtype: DtypeName,
) -> None:
    """Run vLLM's OpenAI server until it ends.

    Raises:
        UserError: vLLM is not installed, or it ended with an error.
    """
    require("vllm", "vllm")
    # The key travels in the environment: arguments can be read by everybody on the machine.
    environment = {**os.environ, **({"VLLM_API_KEY": key} if key else {})}
    with standard_folder(checkpoint, quantized=True) as folder:
        check_layout(folder)
        arguments = vllm_arguments(folder, name, adapters, host, port, dtype)
        process = subprocess.Popen([sys.executable, *arguments], env=environment)
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt:
                continue  # the terminal has signalled vLLM as well; it ends by itself
    if status:
        raise UserError(f"vLLM ended with status {status}; its own messages above say why")


def check_layout(folder: Path) -> None:
    """Refuse a quantized folder of ours that vLLM does not read; it says itself what it thinks of others.

    Raises:
        UserError: such a folder.
    """
    values = load_quantization(folder)
    if values is None or values.get("quant_method") not in LAYOUTS:
        return
    layout, stored, _ = read_quantization(folder, load_model_config(folder))
    bits = {one.scheme.bits for one in stored.values()}
    if layout.name == "bitnet":
        raise UserError(
            f"{folder} has ternary weights, which vLLM does not read; leave engine=vllm out"
        )
    if layout.name == "compressed-tensors" and not bits <= {4, 8}:
        raise UserError(
            f"{folder} has weights of {min(bits)} bits, and vLLM reads 4 and 8 in the compressed-tensors "
            "layout; quantize in the gptq layout, which it reads with 2 and 3 bits, or leave engine=vllm out"
        )


def vllm_arguments(
    folder: Path, name: str, adapters: dict[str, Path], host: str, port: int, dtype: DtypeName
) -> list[str]:
    """What comes after `python`.

    Raises:
        UserError: an adapter with trained token rows, which vLLM does not load (vllm-project/vllm#36501).
    """
    found = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    found += ["--served-model-name", name, "--host", host, "--port", str(port)]
    found += ["--dtype", dtype]  # auto: vLLM goes by the checkpoint's own
    if adapters:
        configs = [json.loads((path / ADAPTER).read_text("utf-8")) for path in adapters.values()]
        for path, config in zip(adapters.values(), configs, strict=True):
            if config.get("trainable_token_indices"):
                raise UserError(
                    f"{path} has trained token rows, which vLLM cannot load with an adapter; merge it: "
                    f"mengya merge {path} out=FOLDER, then serve FOLDER, or leave engine=vllm out"
                )
        rank = max(int(config["r"]) for config in configs)
        allowed = next((r for r in _RANKS if r >= rank), rank)
        found += ["--enable-lora", "--max-lora-rank", str(allowed), "--lora-modules"]
        found += [f"{name}={path}" for name, path in adapters.items()]
    return found
