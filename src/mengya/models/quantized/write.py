"""Writing a quantized folder: what stays full, the matrices, configuration, tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mengya.errors import UserError
from mengya.kernels.quantized.weight import QuantizedWeight
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import (
    copy_tokenizer_files,
    saved_tensors,
    write_configs,
    write_json,
)
from mengya.models.quantized.layouts.layout import Layout, Stored
from mengya.models.quantized.matrices import full_layers, matrix_shapes

SHARD_BYTES = 1 << 30
"""About the most that is in memory at once; more is written as several files."""


def write_quantized_folder(
    config: ModelConfig,
    full: Mapping[str, Tensor],
    weights: Mapping[str, QuantizedWeight],
    layout: Layout,
    source: Path,
    directory: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a folder that `layout`'s readers load.

    Args:
        full: what is not quantized, named as in the state dict of `CausalLM`; an expert alone as on disk.
        weights: by names of `matrices.matrix_shapes`; read twice, one at a time, so a mapping that loads
            each from disk keeps memory bounded.
        source: folder of the tokenizer.
        directory: must exist; is not made complete at once (`runtime.output_folder`).
        dtype: of `full` on disk, and of scales where the layout follows the model's.

    Raises:
        UserError: a scheme or shape that the layout does not hold, with the layer's name; a folder
            without tokenizer.
    """
    shapes = matrix_shapes(config)
    stored = {
        name: _checked(name, weight, layout, shapes[name]) for name, weight in weights.items()
    }
    left = [name for name in shapes if name not in stored]
    quantization = layout.to_config(stored, [*full_layers(config), *left])
    # Read back, for what the layout decides from all of them, and as a proof that it can be.
    stored = layout.from_config(quantization, list(shapes))
    write_configs(config, dtype, source, directory, {"quantization_config": quantization})
    _write_shards(_tensors(config, full, weights, layout, stored, dtype), directory, shard_bytes)
    copy_tokenizer_files(source, directory)


def stored_as(weight: QuantizedWeight) -> Stored:
    """How a matrix is going to be stored, for `Layout.check`."""
    return Stored(weight.scheme, ordered=weight.group_I is not None)


def _checked(name: str, weight: QuantizedWeight, layout: Layout, shape: tuple[int, int]) -> Stored:
    if tuple(weight.shape) != shape:
        raise ValueError(f"{name} has shape {list(weight.shape)}, the model has {list(shape)}")
    stored = stored_as(weight)
    try:
        layout.check(stored, shape)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    return stored


def _tensors(
    config: ModelConfig,
    full: Mapping[str, Tensor],
    weights: Mapping[str, QuantizedWeight],
    layout: Layout,
    stored: Mapping[str, Stored],
    dtype: torch.dtype,
) -> Iterator[tuple[str, Tensor]]:
    """All tensors of the folder under their names on disk."""
    yield from saved_tensors(full, config, dtype)
    for name, weight in weights.items():
        for part, tensor in layout.to_tensors(weight.to("cpu"), stored[name], dtype).items():
            yield f"{name}.{part}", tensor.contiguous()


def _write_shards(tensors: Iterator[tuple[str, Tensor]], directory: Path, shard_bytes: int) -> None:
    """model.safetensors, or files of about `shard_bytes` and their index."""
    shards: list[list[str]] = []
    pending: dict[str, Tensor] = {}
    size = total = 0

    def flush() -> None:
        save_file(pending, directory / _shard(len(shards) + 1), metadata={"format": "pt"})
        shards.append(list(pending))
        pending.clear()

    for name, tensor in tensors:
        if pending and size + tensor.nbytes > shard_bytes:
            flush()
            size = 0
        pending[name] = tensor
        size, total = size + tensor.nbytes, total + tensor.nbytes
    flush()
    if len(shards) == 1:
        (directory / _shard(1)).rename(directory / "model.safetensors")
        return
    places = {}
    for number, names in enumerate(shards, 1):
        final = f"model-{number:05}-of-{len(shards):05}.safetensors"
        (directory / _shard(number)).rename(directory / final)
        places |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    write_json(directory / "model.safetensors.index.json", index)


def _shard(number: int) -> str:
    return f"model-{number:05}.safetensors"
