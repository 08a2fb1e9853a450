"""silu(gate) * up of the merged gate and up product, forward and backward in one pass over memory (Triton).

Takes the product [..., 2F], gate before up; gives [..., F]. The compiler alone reads gate, up and the
incoming gradient twice, once for each half of the gradient. `swiglu_plain` is the reference in PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.triton_available import has_triton
from mengya.runtime.integers import ceil_div

_HAS_TRITON = has_triton()
_ROWS, _COLUMNS = 8, 256  # of one program: rows of 2,432 or 1,408 leave few of its threads idle


def swiglu_plain(gate_up: Tensor) -> Tensor:
    """The reference of `swiglu`, in any dtype and on any device."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def swiglu(gate_up: Tensor) -> Tensor:
    """[..., 2F] -> [..., F], in fp32 inside, rounded once; contiguous, in the dtype of `gate_up`."""
    return torch.ops.mengya.swiglu(gate_up)


def is_supported(gate_up: Tensor) -> bool:
    """Whether there is a kernel and it pays: CUDA, half precision, gradients wanted."""
    half = gate_up.dtype in (torch.bfloat16, torch.float16)
    return _HAS_TRITON and gate_up.is_cuda and half and torch.is_grad_enabled()


@torch.library.custom_op("mengya::swiglu", mutates_args=())
def _forward(gate_up: Tensor) -> Tensor:
    from mengya.kernels import swiglu_triton

    gate_up, hidden = gate_up.contiguous(), _half(gate_up)
    _launch(swiglu_triton.forward, hidden.shape, gate_up, hidden)
    return hidden


@torch.library.custom_op("mengya::swiglu_backward", mutates_args=())
def _backward(d_hidden: Tensor, gate_up: Tensor) -> Tensor:
    from mengya.kernels import swiglu_triton

    d_hidden, gate_up = d_hidden.contiguous(), gate_up.contiguous()
    d_gate_up = torch.empty_like(gate_up)
    _launch(swiglu_triton.backward, d_hidden.shape, d_hidden, gate_up, d_gate_up)
    return d_gate_up


def _launch(kernel: Any, shape: torch.Size, *tensors: Tensor) -> None:
    """Over the elements of [..., F]."""
    N, width = shape[:-1].numel(), shape[-1]
    kernel[ceil_div(N, _ROWS), ceil_div(width, _COLUMNS)](*tensors, N, width, _ROWS, _COLUMNS)


def _half(gate_up: Tensor) -> Tensor:
    return gate_up.new_empty(*gate_up.shape[:-1], gate_up.shape[-1] // 2)


@_forward.register_fake
def _(gate_up: Tensor) -> Tensor:
    return _half(gate_up)


@_backward.register_fake
def _(d_hidden: Tensor, gate_up: Tensor) -> Tensor:
    return torch.empty_like(gate_up, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _autograd(ctx: Any, d_hidden: Tensor) -> Tensor:
    return torch.ops.mengya.swiglu_backward(d_hidden, *ctx.saved_tensors)


_forward.register_autograd(_autograd, setup_context=_keep)
