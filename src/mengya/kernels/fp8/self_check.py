"""Whether this machine computes fp8 layers correctly: some GPUs, builds of torch and compilers do not.

Gives the fault as the rest of a sentence, or None.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mengya.kernels.fp8.swiglu import (
    fp8_swiglu,
    quantize,
    quantize_plain,
    swiglu,
    swiglu_backward,
    swiglu_backward_plain,
    swiglu_plain,
)
from mengya.kernels.triton_available import has_triton

FP8_CAPABILITY = (8, 9)  # CUDA's number of Ada; Hopper is 9.0
_MAX_ERROR = 0.1  # two correct machines differ where a number lies between two of fp8


def find_fault(device: torch.device) -> str | None:
    """What forbids fp8 layers on `device`; runs a small layer on it."""
    if device.type != "cuda":
        return f"needs an NVIDIA GPU, and the device is {device}"
    if torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        return f"needs a GPU that multiplies fp8 (Ada, Hopper or later), which {name} does not"
    if not has_triton():
        return "needs Triton, which is not installed here"
    if not kernels_are_correct(device):  # such compilers exist: see swiglu_triton.py
        return (
            "cannot be used: the Triton of this machine compiles our kernels to wrong numbers; "
            "another version of torch may do better"
        )
    return find_product_fault(device)


def kernels_are_correct(device: torch.device) -> bool:
    """Whether they give what PyTorch gives, except for numbers between two of fp8."""
    scale_N = torch.linspace(0.003, 0.02, 256, device=device)
    pairs = []
    for dtype in (torch.float32, torch.bfloat16):
        x_NG = torch.linspace(-1, 1, 256 * 384, device=device, dtype=dtype).view(256, 384)
        for scale in (scale_N, scale_N[0]):
            pairs.append((quantize([x_NG], scale), quantize_plain([x_NG], scale)))
        inputs = x_NG, 100 * scale_N, scale_N
        pairs.append((swiglu(*inputs), swiglu_plain(*inputs)))
        gradient = 1000 * x_NG[:, :192].contiguous(), *inputs
        pairs.append((swiglu_backward(*gradient), swiglu_backward_plain(*gradient)))
    return all(
        torch.allclose(a.float(), b.float(), rtol=0.26, atol=0.01)
        for ours, plain in pairs
        for a, b in zip(ours, plain, strict=True)
    )


def find_product_fault(device: torch.device) -> str | None:
    """Compare a layer's output and gradients with those on the CPU."""
    random = torch.Generator().manual_seed(0)
    shapes = (256, 64), (192, 64), (192, 64), (64, 192)
    drawn = [torch.randn(*shape, generator=random, device="cpu") for shape in shapes]

    def results(where: torch.device | str) -> list[Tensor]:
        inputs = [tensor.detach().to(where).requires_grad_() for tensor in drawn]
        y_NH = fp8_swiglu(*inputs)
        found = y_NH.detach(), *torch.autograd.grad(y_NH, inputs, inputs[0].detach())
        return [tensor.float().cpu() for tensor in found]

    try:
        ours = results(device)
    except RuntimeError as error:
        return f"cannot be used: torch cannot multiply fp8 here: {error}"
    pairs = zip(ours, results("cpu"), strict=True)
    off = float(torch.stack([(a - b).norm() / b.norm() for a, b in pairs]).max())
    if off < _MAX_ERROR:
        return None
    return f"cannot be used: a layer on {device} is off by {off:.0%} of its result on the CPU"
