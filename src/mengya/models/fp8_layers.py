"""Which layers of a model multiply in fp8 in training.

Takes a model; changes how its SwiGLU layers compute in training. Parameters, their dtype and what is
saved stay as they are; outside of training the products are those of any other run.
"""

from __future__ import annotations

import torch
from torch import nn

from mengya.errors import UserError
from mengya.kernels.fp8.self_check import find_fault
from mengya.kernels.fp8.swiglu import MULTIPLE
from mengya.models.feed_forward import SwiGLU

_REMEDY = "write precision=bf16 or precision=auto"


def use_fp8(model: nn.Module, device: torch.device, reference: bool = False) -> None:
    """Let the SwiGLU layers of a model compute in fp8 while it is trained on `device`.

    Args:
        reference: on any device, by the plain PyTorch functions where it has no kernels (slow).

    Raises:
        UserError: the device or its software cannot; or as `fp8_layers`.
    """
    if not reference and (fault := find_fault(device)):
        raise UserError(f"precision=fp8 {fault}; {_REMEDY}")
    for layer in fp8_layers(model):
        layer.fp8 = True


def fp8_layers(model: nn.Module) -> list[SwiGLU]:
    """The layers that would compute in fp8: those with weights of their own, and not of routed experts.

    Raises:
        UserError: there is none, or its widths do not suit.
    """
    layers = [m for m in model.modules() if isinstance(m, SwiGLU) and m.is_plain()]
    if not layers:
        raise UserError(
            "precision=fp8 is for feed-forward layers with weights of their own, and this model has "
            f"none: they are experts, adapted or quantized; {_REMEDY}"
        )
    for width in {width for layer in layers for width in layer.down_proj.weight.shape}:
        if width % MULTIPLE:
            raise UserError(
                f"precision=fp8 needs widths that {MULTIPLE} divides, and a feed-forward layer has "
                f"{width}; {_REMEDY}"
            )
    return layers
