"""The settings of `mengya quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, PositiveInt

from mengya.config import Config
from mengya.kernels.quantized.weight import Activations, Scheme
from mengya.quantization.calibration import CalibrationConfig
from mengya.quantization.grid import GridRule, ScaleRule
from mengya.quantization.methods.awq import Awq
from mengya.quantization.methods.gptq import ActivationOrder, Gptq
from mengya.quantization.methods.llm_int8 import LlmInt8
from mengya.quantization.methods.method import Method
from mengya.quantization.methods.rtn import Rtn
from mengya.runtime.device import DeviceName

MethodName = Literal["gptq", "awq", "rtn", "llm_int8"]
LayoutName = Literal["compressed-tensors", "gptq", "bitsandbytes"]
Bits = Literal[2, 3, 4, 8]
WIDTHS: tuple[Bits, ...] = (2, 3, 4, 8)
GROUP_SIZES = (128, 64, 32)


class QuantizationConfig(Config):
    checkpoint: Path
    """Model folder, or run folder (its best, else latest, checkpoint); an adapter is merged first."""
    out: Path
    """Folder to write."""
    overwrite: bool = False
    """Replace the folder that an earlier run of this verb wrote to `out`."""
    method: MethodName | None = None
    """gptq: rounds column by column and corrects the error in the columns after it. awq: scales the columns
    that matter before rounding. rtn: rounds to nearest, without calibration. llm_int8: rows in int8 for
    bitsandbytes. null: gptq; rtn for activations=float8."""
    bits: Bits | None = None
    """Bits of a weight; null: 4, and 8 for llm_int8 and with activations in 8 bits."""
    group_size: Literal[32, 64, 128, "row"] | None = None
    """Inputs that share a scale; row: all of them. null: 64, and row for llm_int8 and with activations in 8
    bits."""
    symmetric: bool = True
    """No zero points: what every reader knows and is fastest with; false gains a little at 2 and 3 bits."""
    scales: ScaleRule = "mse"
    """How scales are chosen. mse: those with the least squared error, outliers clipped. minmax: over the full
    range."""
    activations: Literal["full", "int8", "float8"] = "full"
    """What inputs are rounded to when the model runs, with a scale for each token: int8 (W8A8) and float8
    for servers; float8 also stores the weights in it."""
    activation_order: ActivationOrder | None = "static"
    """For gptq: columns with the largest inputs first. static: readers notice nothing. group: groups are
    made in this order too (desc_act of GPTQ's layout). null: from left to right."""
    damping: float = Field(default=0.01, gt=0, le=1)
    """For gptq: share of the mean of the Hessian's diagonal that is added to the diagonal."""
    propagation: float = Field(default=0.5, ge=0, le=1)
    """For gptq: the share of the errors in the layers before it that a matrix makes up for; 0: none, in half
    the time."""
    mean_bits: float | None = Field(default=None, gt=2, le=8)
    """Observe first: the layers with the largest error get the next larger width until the mean over all
    quantized weights is this (all experts have one width). null: all layers have `bits`."""
    layout: LayoutName | None = None
    """Layout of the files. null: compressed-tensors (transformers, vLLM); gptq with activation_order=group;
    bitsandbytes for llm_int8."""
    save_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """dtype of what is not quantized; null: that of the checkpoint."""
    calibration: CalibrationConfig = CalibrationConfig()
    """Text like that which the model will see; gptq and awq need it."""
    device: DeviceName = "auto"
    """auto: CUDA where there is a GPU, else the CPU."""
    threads: PositiveInt | None = None
    """CPU threads that share a computation of torch; null: torch's own choice, OMP_NUM_THREADS or else one
    a core."""

    @property
    def method_name(self) -> MethodName:
        return self.method or ("rtn" if self.activations == "float8" else "gptq")

    @property
    def layout_name(self) -> LayoutName:
        """What `layout` means."""
        if self.layout is not None:
            return self.layout
        if self.method_name == "llm_int8":
            return "bitsandbytes"
        by_group = self.method_name == "gptq" and self.activation_order == "group"
        return "gptq" if by_group else "compressed-tensors"

    @property
    def eight_bits(self) -> bool:
        """Whether activations are in 8 bits, which wants weights in 8 bits with a scale for each row."""
        return self.method_name == "llm_int8" or self.activations != "full"

    def scheme(self, bits: Bits | None = None) -> Scheme:
        """Of a layer; `bits` instead of the configured width."""
        group_size = self.group_size or ("row" if self.eight_bits else 64)
        activations: Activations = self.activations
        if self.method_name == "llm_int8":
            activations = "int8_outliers"
        return Scheme(
            bits=bits or self.bits or (8 if self.eight_bits else 4),
            group_size=None if group_size == "row" else group_size,
            symmetric=self.symmetric,
            number="float8" if self.activations == "float8" else "int",
            activations=activations,
        )

    def rule(self, scale_dtype: torch.dtype, bits: Bits | None = None) -> GridRule:
        return GridRule(self.scheme(bits), self.scales, scale_dtype)

    def make_method(self) -> Method:
        if self.method_name == "gptq":
            return Gptq(self.damping, self.activation_order, propagation=self.propagation)
        return {"awq": Awq, "rtn": Rtn, "llm_int8": LlmInt8}[self.method_name]()
