"""Everything that is wrong with a configuration, found before any weight is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.config import load_model_config
from mengya.models.hf.open_checkpoint import ADAPTER, find_checkpoint
from mengya.models.quantized.layouts import find_layout
from mengya.models.quantized.layouts.layout import Stored
from mengya.quantization.config import GROUP_SIZES, QuantizationConfig
from mengya.quantization.groups import Matrix, model_groups

_MARGIN = 1.1  # of the disk space that is asked for


def check(config: QuantizationConfig) -> Path:
    """The checkpoint's folder.

    Raises:
        UserError: with every problem, one a line.
    """
    problems = list(_settings(config))
    folder = None
    try:
        folder = find_checkpoint(config.checkpoint)
        problems += _of_checkpoint(config, folder)
    except UserError as error:
        problems.append(str(error))
    if problems or folder is None:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        lines = "\n".join(f"  - {problem}" for problem in dict.fromkeys(problems))
        raise UserError(f"{count} with `mengya quantize {config.checkpoint}`:\n{lines}")
    return folder


def _settings(config: QuantizationConfig) -> Iterator[str]:
    """What cannot work with any model."""
    method, scheme = config.method_name, config.scheme()
    if config.eight_bits and scheme.bits != 8:
        which = "method=llm_int8" if method == "llm_int8" else f"activations={config.activations}"
        yield f"bits={config.bits}: {which} has weights of 8 bits; leave bits out"
    if config.eight_bits and scheme.group_size is not None:
        which = "method=llm_int8" if method == "llm_int8" else f"activations={config.activations}"
        yield f"group_size={config.group_size}: {which} has a scale for each row; leave group_size out"
    if method == "llm_int8" and config.activations != "full":
        yield (
            f"activations={config.activations}: method=llm_int8 has its own (int8 but for outliers); leave "
            "activations out, or choose method=gptq"
        )
    if config.activations == "float8" and method not in ("rtn", "llm_int8"):
        yield f"method={method}: float8 numbers are only rounded; write method=rtn"
    if config.eight_bits and not config.symmetric:
        yield "symmetric=false: weights for activations in 8 bits have no zero points; leave it out"
    if method in ("gptq", "awq") and not config.calibration.is_given:
        yield (
            f"method={method} needs text that the model is calibrated on: calibration.shards=SHARDS of "
            "`mengya prepare`, calibration.texts=FILE or calibration.conversations=FILE (method=rtn needs "
            "none)"
        )
    if method == "llm_int8" and config.calibration.is_given:
        yield "method=llm_int8 uses no calibration; leave calibration out"
    if config.mean_bits is not None:
        yield from _observing(config)


def _observing(config: QuantizationConfig) -> Iterator[str]:
    bits = config.scheme().bits
    if config.eight_bits:
        yield f"mean_bits={config.mean_bits:g}: all layers have 8 bits here; leave it out"
    elif config.mean_bits is not None and config.mean_bits <= bits:
        lower = [width for width in (3, 2) if width < config.mean_bits]
        remedy = f"write bits={lower[0]}" if lower else f"write mean_bits={bits + 0.5:g}"
        yield (
            f"mean_bits={config.mean_bits:g} must be above bits={bits}, which every layer has at least; "
            f"{remedy}"
        )
    if not config.calibration.is_given:
        yield "mean_bits observes errors on text: give calibration.texts=FILE (or shards, conversations)"


def _of_checkpoint(config: QuantizationConfig, folder: Path) -> Iterator[str]:
    """What cannot work with this model."""
    if (folder / ADAPTER).is_file():
        yield (
            f"{config.checkpoint} is a LoRA adapter; merge it first: mengya merge {config.checkpoint} "
            "out=FOLDER, then quantize FOLDER"
        )
        return
    if (known := _quantization(folder)) is not None:
        yield (
            f"{config.checkpoint} is quantized already ({known}); name the full model that it was made from"
        )
        return
    model_config = load_model_config(folder)
    rope = model_config.rope_parameters
    if rope.learned:
        yield (
            f"{config.checkpoint} has learned positions (rope_type={rope.rope_type}); freeze their factor "
            f"first: mengya merge {config.checkpoint} out=FOLDER factor={rope.factor:g}"
        )
    length = config.calibration.sequence_length
    if length is not None and length > model_config.context_length:
        yield (
            f"calibration.sequence_length={length} is above the model's context of "
            f"{model_config.context_length}; write calibration.sequence_length={model_config.context_length}"
        )
    matrices = [
        m for group in model_groups(CausalLM(model_config, "meta")) for m in group.matrices()
    ]
    undivided = list(_undivided(config, matrices))
    yield from undivided
    if not undivided:
        yield from _layout(config, matrices)
    yield from _disk_space(config, model_config, matrices)


def _quantization(folder: Path) -> str | None:
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        known = values.get("quantization_config")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None  # load_model_config says it better
    if known is None:
        return None
    return str(known.get("quant_method", "?")) if isinstance(known, dict) else "?"


def _undivided(config: QuantizationConfig, matrices: list[Matrix]) -> Iterator[str]:
    size = config.scheme().group_size
    wrong = [] if size is None else [m for m in matrices if m.weight_OI.shape[1] % size]
    if not wrong:
        return
    widths = sorted({matrix.weight_OI.shape[1] for matrix in matrices})
    fitting = [str(n) for n in GROUP_SIZES if all(width % n == 0 for width in widths)]
    named = ", ".join(f"{m.name} ({m.weight_OI.shape[1]} inputs)" for m in wrong[:3])
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    choice = " or ".join(f"group_size={n}" for n in (*fitting, "row"))
    yield f"group_size={size} does not divide the inputs of {named}{more}; write {choice}"


def _layout(config: QuantizationConfig, matrices: list[Matrix]) -> Iterator[str]:
    """Why the layout cannot hold a matrix; the first reason of each kind."""
    layout = find_layout(config.layout_name)
    by_group = config.method_name == "gptq" and config.activation_order == "group"
    scheme = config.scheme()
    stored = Stored(scheme, by_group and scheme.group_size is not None)
    seen = set[str]()
    for matrix in matrices:
        rows, columns = matrix.weight_OI.shape
        try:
            layout.check(stored, (rows, columns))
        except UserError as error:
            if str(error) not in seen and not seen:
                seen.add(str(error))
                yield f"layout={config.layout_name}: {matrix.name}: {error}"


def _disk_space(
    config: QuantizationConfig, model_config: ModelConfig, matrices: list[Matrix]
) -> Iterator[str]:
    """The folder, and the finished layers next to it while it is made."""
    model = CausalLM(model_config, device="meta")
    total = sum(parameter.numel() for parameter in model.parameters())
    small = sum(matrix.weight_OI.numel() for matrix in matrices)
    scheme = config.scheme()
    width = config.mean_bits or scheme.bits
    scales = sum(len(m.weight_OI) * scheme.groups(m.weight_OI.shape[1]) for m in matrices)
    written = small * width / 8 + scales * 2.5 + (total - small) * 4
    kept = small + scales * 5 + (total - small) * 4
    needed = int((written + kept) * _MARGIN)
    place = config.out.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        yield (
            f"out={config.out}: {needed / 1e6:,.1f} MB are needed while it is made, {free / 1e6:,.1f} MB are "
            "free there; free some space, or choose another out"
        )


def save_dtype(config: QuantizationConfig, folder: Path) -> torch.dtype:
    """dtype of what stays full: as configured, else that of the checkpoint."""
    if config.save_dtype is not None:
        return getattr(torch, config.save_dtype)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = str(values.get("dtype") or values.get("torch_dtype") or "bfloat16")
    known = ("float32", "bfloat16", "float16")
    return getattr(torch, name) if name in known else torch.bfloat16
