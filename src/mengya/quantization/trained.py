"""A checkpoint whose weights were trained rounded, packed as they are: nothing is chosen and nothing is lost.

Takes the settings of `mengya quantize` and the checkpoint; writes the folder. The scheme is the model's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mengya.errors import UserError
from mengya.kernels.quantized.weight import Scheme
from mengya.models.config.quantization import TrainedQuantization
from mengya.models.hf.checkpoint import load_causal_lm, weights_sha256
from mengya.models.hf.config import load_model_config
from mengya.models.quantized.in_training import scheme_of, trained_weights
from mengya.models.quantized.layouts import find_layout
from mengya.models.quantized.write import write_quantized_folder
from mengya.quantization.config import QuantizationConfig
from mengya.quantization.record import RECORD
from mengya.runtime.files import write_text
from mengya.version import __version__

# What decides numbers: here training did.
_DECIDED = (
    "bits", "group_size", "symmetric", "scales", "activations", "activation_order", "damping",
    "mean_bits", "calibration",
)  # fmt: skip


@dataclass(frozen=True)
class TrainedRecord:
    """What was packed.

    Attributes:
        save_dtype: of what is not quantized.
        weights_sha256: of the checkpoint.
    """

    scheme: Scheme
    layout: str
    save_dtype: str
    weights_sha256: str

    def values(self) -> dict[str, Any]:
        """The content of quantization.json."""
        return {
            "format": 1, "mengya_version": __version__, "method": "trained",
            "mean_bits": float(self.scheme.bits), **asdict(self),
        }  # fmt: skip


def trained_quantization(source: Path) -> TrainedQuantization | None:
    """What the weights of a checkpoint were rounded to while it was trained; None: to nothing."""
    if not (source / "config.json").is_file():  # an adapter
        return None
    return load_model_config(source).quantization


def write_trained(config: QuantizationConfig, source: Path, directory: Path) -> TrainedRecord:
    """Write the folder: codes and scales are those that the last training step had.

    Raises:
        UserError: a setting that training has decided, or a layout that does not hold the weights.
    """
    quantization = trained_quantization(source)
    assert quantization is not None  # the caller has asked
    if problems := list(_problems(config, quantization)):
        raise UserError(f"{source}: {'; '.join(problems)}")
    name = config.layout or ("bitnet" if quantization.number == "ternary" else "compressed-tensors")
    layout = find_layout(name)
    model = load_causal_lm(source).eval()
    weights = trained_weights(model)
    packed = {f"{matrix}.weight" for matrix in weights}
    full = {
        parameter: tensor
        for parameter, tensor in model.state_dict().items()
        if parameter not in packed and ".mlp.experts." not in parameter
    }
    shape = model.config.model_copy(update={"quantization": None})
    dtype = config.save_dtype or "float32"
    write_quantized_folder(
        shape, full, weights, layout, source, directory, dtype=getattr(torch, dtype)
    )
    record = TrainedRecord(scheme_of(quantization), name, dtype, weights_sha256(source))
    values = json.dumps(record.values(), indent=1) + "\n"
    write_text(directory / RECORD, values)
    return record


def _problems(config: QuantizationConfig, quantization: TrainedQuantization) -> Iterator[str]:
    what = "ternary" if quantization.number == "ternary" else f"in {quantization.bits} bits"
    if given := [name for name in _DECIDED if name in config.model_fields_set]:
        yield f"its weights were trained {what}, which decides {', '.join(given)}; leave that out"
    if config.method not in (None, "rtn"):
        yield (
            f"its weights were trained {what} and are packed as they are, without method={config.method}; "
            "leave method out"
        )
