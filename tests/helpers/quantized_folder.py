"""Quantized folders of tiny random models, by rounding to the nearest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import saved_tensors
from mengya.models.quantized.layouts import LAYOUTS
from mengya.models.quantized.matrices import matrix_shapes
from mengya.models.quantized.write import write_quantized_folder


def rounded(
    weight_OI: Tensor, scheme: Scheme, *, ordered: bool = False, dtype: torch.dtype = torch.float32
) -> QuantizedWeight:
    """The nearest numbers, with scales of `dtype`; `ordered`: columns of a group are not neighbours."""
    I = weight_OI.shape[1]
    G = scheme.groups(I)
    group_I = torch.arange(I, dtype=torch.int32) // (I // G)
    if ordered:
        group_I = group_I[torch.randperm(I, generator=torch.Generator().manual_seed(0))]
    inside = [weight_OI[:, group_I == g] for g in range(G)]
    high = torch.stack([part.amax(1) for part in inside], 1).clamp(min=0)
    low = torch.stack([part.amin(1) for part in inside], 1).clamp(max=0)
    columns = group_I.long()
    given = group_I if ordered else None
    if scheme.number == "float8":
        scale = (torch.maximum(high, -low) / 448).to(dtype).float()
        codes = (weight_OI / scale[:, columns]).to(torch.float8_e4m3fn)
        return QuantizedWeight(scheme, codes, scale, None, given)
    levels = 1 << scheme.bits
    if scheme.symmetric:
        # LLM.int8 has no -128
        scale = (torch.maximum(high, -low) / (levels // 2 - 1)).to(dtype).float()
        zero = torch.full_like(scale, levels // 2)
    else:
        scale = ((high - low) / (levels - 1)).to(dtype).float()
        zero = (-low / scale).round().clamp(0, levels - 1)
    codes = (weight_OI / scale[:, columns] + zero[:, columns]).round().clamp(0, levels - 1)
    return QuantizedWeight(scheme, codes.to(torch.uint8), scale, zero.to(torch.uint8), given)


def quantized_weights(
    model: CausalLM, scheme_of: Callable[[str], Scheme | None], **settings: object
) -> dict[str, QuantizedWeight]:
    """All matrices of a model, but those for which there is no scheme."""
    tensors = dict(saved_tensors(model, model.config, torch.float32))
    found = {}
    for name in matrix_shapes(model.config):
        if (scheme := scheme_of(name)) is not None:
            found[name] = rounded(tensors[f"{name}.weight"], scheme, **settings)  # type: ignore[arg-type]
    return found


def write_rounded(
    model: CausalLM,
    scheme: Scheme | Callable[[str], Scheme | None],
    layout: str,
    tokenizer: Path,
    directory: Path,
    *,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = 1 << 30,
    ordered: bool = False,
) -> dict[str, QuantizedWeight]:
    """A quantized folder of the model, and the matrices in it."""
    scheme_of = scheme if callable(scheme) else (lambda name: scheme)
    chosen = LAYOUTS[layout]
    weights = quantized_weights(model, scheme_of, ordered=ordered, dtype=chosen.scale_dtype(dtype))
    full = {
        name: tensor
        for name, tensor in saved_tensors(model, model.config, torch.float32)
        if name.removesuffix(".weight") not in weights
    }
    directory.mkdir(exist_ok=True)
    write_quantized_folder(
        model.config, full, weights, chosen, tokenizer, directory,
        dtype=dtype, shard_bytes=shard_bytes,
    )  # fmt: skip
    return weights


def copy_of(folder: Path, to: Path) -> Path:
    """A folder that may be damaged."""
    shutil.copytree(folder, to)
    return to
