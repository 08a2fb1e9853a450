"""Which layers of a model multiply in fp8, and whether this machine can.

Takes a model; changes how its SwiGLU layers compute in training. Parameters, their dtype and what is
saved stay as they are, and outside of training the products are those of any other run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mengya.errors import UserError
from mengya.kernels.fp8.swiglu import (
    MULTIPLE,
    fp8_swiglu,
    quantize,
    quantize_plain,
    swiglu,
    swiglu_backward,
    swiglu_backward_plain,
    swiglu_plain,
)
from mengya.kernels.triton_available import has_triton
from mengya.models.feed_forward import SwiGLU

_REMEDY = "write precision=bf16 or precision=auto"
_MOST_ERROR = 0.1  # two right machines differ where a number lies between two of fp8
FP8_CAPABILITY = (8, 9)  # CUDA's number of Ada; Hopper is 9.0


def use_fp8(model: nn.Module, device: torch.device) -> None:
    """Let the SwiGLU layers of a model compute in fp8 while it is trained on `device`.

    Raises:
        UserError: the device or its software cannot; or as `fp8_layers`.
    """
    _check_machine(device)
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
            "precision=fp8 is of feed-forward layers with weights of their own, and this model has "
            f"none: they are experts, adapted or quantized; {_REMEDY}"
        )
    for width in {width for layer in layers for width in layer.down_proj.weight.shape}:
        if width % MULTIPLE:
            raise UserError(
                f"precision=fp8 needs widths that {MULTIPLE} divides, and a feed-forward layer has "
                f"{width}; {_REMEDY}"
            )
    return layers


def _check_machine(device: torch.device) -> None:
    if device.type != "cuda":
        raise UserError(f"precision=fp8 needs an NVIDIA GPU, and the device is {device}; {_REMEDY}")
    if torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise UserError(
            f"precision=fp8 needs a GPU that multiplies fp8 (Ada, Hopper or later), which "
            f"{torch.cuda.get_device_name(device)} does not; {_REMEDY}"
        )
    if not has_triton():
        raise UserError(f"precision=fp8 needs Triton, which is not installed here; {_REMEDY}")
    if not _kernels_are_right(device):  # such compilers exist: see fp8_kernels.py
        raise UserError(
            "precision=fp8: the Triton of this machine compiles our kernels to wrong numbers; "
            f"another version of torch may do better, or {_REMEDY}"
        )
    _check_products(device)


def _kernels_are_right(device: torch.device) -> bool:
    """Whether they give what PyTorch gives, but for numbers between two of fp8."""
    scale_N = torch.linspace(0.003, 0.02, 256, device=device)
    pairs = []
    for dtype in (torch.float32, torch.bfloat16):
        x_NG = torch.linspace(-1, 1, 256 * 384, device=device, dtype=dtype).view(256, 384)
        for scale in (scale_N, scale_N[0]):
            pairs.append((quantize([x_NG], scale), quantize_plain([x_NG], scale)))
        made = x_NG, 100 * scale_N, scale_N
        pairs.append((swiglu(*made), swiglu_plain(*made)))
        gradient = 1000 * x_NG[:, :192].contiguous(), *made
        pairs.append((swiglu_backward(*gradient), swiglu_backward_plain(*gradient)))
    return all(
        torch.allclose(a.float(), b.float(), rtol=0.26, atol=0.01)
        for ours, plain in pairs
        for a, b in zip(ours, plain, strict=True)
    )


def _check_products(device: torch.device) -> None:
    """Compare a layer's output and gradients with those on the CPU."""
    random = torch.Generator().manual_seed(0)
    shapes = (256, 64), (192, 64), (192, 64), (64, 192)
    drawn = [torch.randn(*shape, generator=random, device="cpu") for shape in shapes]

    def results(where: torch.device | str) -> list[Tensor]:
        inputs = [tensor.detach().to(where).requires_grad_() for tensor in drawn]
        y_NH = fp8_swiglu(*inputs)
        made = y_NH.detach(), *torch.autograd.grad(y_NH, inputs, inputs[0].detach())
        return [tensor.float().cpu() for tensor in made]

    try:
        ours = results(device)
    except RuntimeError as error:
        raise UserError(
            f"precision=fp8: torch cannot multiply fp8 here: {error}; {_REMEDY}"
        ) from error
    pairs = zip(ours, results("cpu"), strict=True)
    off = float(torch.stack([(a - b).norm() / b.norm() for a, b in pairs]).max())
    if not off < _MOST_ERROR:  # NaN is not
        raise UserError(
            f"precision=fp8: a layer on {device} is off by {off:.0%} of what it is on the CPU; {_REMEDY}"
        )
