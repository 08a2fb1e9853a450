"""A quantized folder as a model that computes with its small numbers, or with all of them made full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from mengya.kernels.quantized.op import pack
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import check_finite, fill, materialize, tensor_places
from mengya.models.hf.config import load_model_config
from mengya.models.moe import Experts
from mengya.models.quantized.folder import QuantizedFolder
from mengya.models.quantized.layers import QuantizedExperts, QuantizedLinear, merge_layers
from mengya.models.quantized.layouts.layout import Stored

# Latent attention multiplies by parts of this matrix, which must be full for that.
_MADE_FULL = "kv_b_proj"


@torch.no_grad()
def load_quantized(
    directory: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> CausalLM:
    """The model of a quantized folder, for inference.

    Args:
        dtype: of activations and of all that is not quantized.

    Raises:
        UserError: as `load_causal_lm`, and what `QuantizedFolder` raises.
    """
    folder, model = _open(directory)
    put_layers(model, folder.stored)
    materialize(model, device, dtype)
    fill(model, folder.tensors, done=folder.done())
    for name in folder.stored:
        weight = folder.weight(name).to(device)
        layer = model.get_submodule(name)
        if isinstance(layer, QuantizedLinear):
            layer.packed = pack(weight, dtype)
        else:
            _linear(model, name).weight.copy_(weight.dequantize(dtype))
    check_finite(model, directory)
    merge_layers(model)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def load_dequantized(
    directory: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> CausalLM:
    """The same with ordinary layers, whose weights are those that the small numbers stand for.

    Raises:
        UserError: as `load_quantized`.
    """
    folder, model = _open(directory)
    materialize(model, device, dtype)
    places = tensor_places(model)
    fill(model, folder.tensors, done=folder.done())
    for name in folder.stored:
        places[f"{name}.weight"].copy_(folder.weight(name).to(device).dequantize(dtype))
    check_finite(model, directory)
    return model.eval()


def put_layers(model: CausalLM, matrices: Mapping[str, Stored]) -> list[QuantizedLinear]:
    """Layers without weights in the places of those that are quantized."""
    _split_experts(model, matrices)
    layers = []
    for name, stored in matrices.items():
        if not name.endswith(_MADE_FULL):
            layers.append(QuantizedLinear(_linear(model, name), stored.scheme))
            _put(model, name, layers[-1])
    return layers


def _open(directory: Path | str) -> tuple[QuantizedFolder, CausalLM]:
    config = load_model_config(directory)
    folder = QuantizedFolder(Path(directory), config)
    return folder, CausalLM(config, device="meta").requires_grad_(False)


def _split_experts(model: CausalLM, names: Iterable[str]) -> None:
    """Give experts of which one matrix is quantized a layer for each matrix."""
    prefixes = {name.rsplit(".", 2)[0] for name in names}
    for name, module in list(model.named_modules()):
        if isinstance(module, Experts) and name in prefixes:
            E, H, width = module.down_proj.shape
            _put(model, name, QuantizedExperts(E, H, width))


def _linear(model: CausalLM, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module


def _put(model: CausalLM, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
