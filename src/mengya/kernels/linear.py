"""Linear layers made faster: several in one product, packed weights on a CPU, an fp32 router over bf16.

Parameters stay apart under their standard names, so checkpoints, optimizer and adapters see nothing of it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.kernels.quantized.merged import merged_layers
from mengya.kernels.quantized.packed import PackedWeight

M = TypeVar("M", bound=nn.Module)

_ALIGNED = 8  # outputs of the fp32 product, so that rows stay aligned
_PACKED_ROWS = (
    8  # the number of rows that the packed layout is chosen for; others are as fast with it
)


def can_merge(x: Tensor, *layers: nn.Module) -> bool:
    """Whether `merged_product` pays: on CUDA, and no adapter in the place of a layer.

    Without gradients only where `fuse_storage` was called: a copy of the weights costs more than
    decoding a few tokens gains. Quantized layers: where `merge_quantized` was.
    """
    if merged_layers(x, *layers) is not None:
        return True
    if not x.is_cuda or any(type(m) is not nn.Linear for m in layers):
        return False
    return torch.is_grad_enabled() or _fused_weight(*layers) is not None


def merged_product(x: Tensor, *layers: nn.Linear) -> Tensor:
    """The layers' outputs side by side, [..., sum of out_features]; all have a bias, or none.

    One wide product runs nearer to the peak of a GPU than several narrow ones.
    """
    merged = merged_layers(x, *layers)
    if merged is not None:
        return merged(x)
    weight = None if torch.is_grad_enabled() else _fused_weight(*layers)
    if weight is None:
        weight = torch.cat(tuple(layer.weight for layer in layers))
    biases = tuple(layer.bias for layer in layers if layer.bias is not None)
    return F.linear(x, weight, torch.cat(biases) if biases else None)


def merged_linear(x: Tensor, *layers: nn.Linear) -> Sequence[Tensor]:
    """`[layer(x) for layer in layers]`, each [..., out_features of the layer]."""
    merged = merged_layers(x, *layers)
    if merged is not None:
        return merged(x).split([layer.out_features for layer in layers], dim=-1)
    if not can_merge(x, *layers):
        return [layer(x) for layer in layers]
    return merged_product(x, *layers).split([layer.out_features for layer in layers], dim=-1)


@torch.no_grad()
def fuse_storage(model: nn.Module) -> None:
    """Move q, k and v weights, and gate and up weights, next to each other in memory.

    Parameters keep names and values. A later `.to()` drops the fused storage (correct, slower).
    """
    for module in model.modules():
        for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
            layers = [getattr(module, name, None) for name in names]
            if all(type(layer) is nn.Linear for layer in layers):
                weights = [cast(nn.Linear, layer).weight for layer in layers]
                parts = torch.cat(weights).split([len(weight) for weight in weights])
                for weight, part in zip(weights, parts, strict=True):
                    weight.data = part


def _fused_weight(*layers: nn.Module) -> Tensor | None:
    """The layers' weights as one, without a copy; None where their storage is not fused."""
    if torch.compiler.is_compiling():  # the compiler knows no addresses
        return None
    first = cast(nn.Linear, layers[0]).weight
    storage, rows, end = first.untyped_storage().data_ptr(), 0, first.storage_offset()
    for layer in layers:
        weight = cast(nn.Linear, layer).weight
        here = weight.storage_offset() == end and weight.untyped_storage().data_ptr() == storage
        if not here or not weight.is_contiguous():
            return None
        rows, end = rows + len(weight), end + weight.numel()
    return first.as_strided((rows, first.shape[1]), (first.shape[1], 1))


class PackedLinear(nn.Linear):
    """`linear` with a second copy of its weight in oneDNN's blocked layout, for inference in fp32 on a CPU.

    With a few rows (decoding) the plain layout runs at half the speed, and on one core only. The
    parameters are shared and must not change afterwards.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        weight = linear.weight.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_ROWS)

    def forward(self, input: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(input, self._packed, self.bias, "none", [], "")


def can_pack(model: nn.Module) -> bool:
    """Whether `pack_linears` works: fp32 on a CPU whose PyTorch has oneDNN."""
    weight = model.get_parameter("lm_head.weight")
    return packs_on(weight.device, weight.dtype)


def packs_on(device: torch.device, dtype: torch.dtype) -> bool:
    """`can_pack` for a model there, before there is one."""
    return (
        device.type == "cpu"
        and dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@torch.no_grad()
def pack_linears(model: M) -> M:
    """A copy that shares all parameters and has packed linear layers; `model` stays as it is.

    Experts of a mixture are no linear layers and stay plain. Needs `can_pack(model)`.
    """
    kept: list[Any] = [*model.parameters(), *model.buffers()]
    # Packed for their own kernels already, in forms that may not be copied.
    kept += [module for module in model.modules() if isinstance(module, PackedWeight)]
    shared = {id(one): one for one in kept}
    packed = copy.deepcopy(model, shared)
    for name, module in list(packed.named_modules()):
        if type(module) is nn.Linear:
            parent, _, child = name.rpartition(".")
            setattr(packed.get_submodule(parent), child, PackedLinear(module))
    return packed


def fp32_linear(x_NH: Tensor, weight_EH: Tensor) -> Tensor:
    """`F.linear(x.float(), weight.float())`, [N, E] fp32, without an fp32 copy of bf16 x on CUDA."""
    with torch.autocast(x_NH.device.type, enabled=False):
        if x_NH.is_cuda and x_NH.dtype == torch.bfloat16:
            return split_linear(x_NH, weight_EH)
        return F.linear(x_NH.float(), weight_EH.float())


def split_linear(x_NH: Tensor, weight_EH: Tensor) -> Tensor:
    """The same for bf16 x; the gradient of x is rounded to bf16, as x is.

    A product of two bf16 numbers is exact in fp32, and an fp32 weight is a sum of three bf16 numbers:
    tensor cores give the fp32 product in one pass over x, at the price of reading it.
    """
    padded = F.pad(weight_EH.float(), (0, 0, 0, -len(weight_EH) % _ALIGNED))
    out = _SplitLinear.apply(x_NH, padded)
    assert isinstance(out, Tensor)  # `apply` is untyped
    return out[:, : len(weight_EH)]


class _SplitLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NH: Tensor, weight_EH: Tensor) -> Tensor:
        ctx.save_for_backward(x_NH, weight_EH)
        parts = torch.cat(_split(weight_EH, 3))
        return _multiply(x_NH, parts.t()).unflatten(1, (3, -1)).sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x_NH, weight_EH = ctx.saved_tensors
        high, low = _split(gradients[0], 2)
        weight_high, weight_low = _split(weight_EH, 2)
        # (high + low) (weight_high + weight_low), but for the product of the two small parts
        dx = torch.cat([high, low, high], 1) @ torch.cat([weight_high, weight_high, weight_low])
        both = torch.cat([high, low], 1)
        return dx, _multiply(both.t(), x_NH).unflatten(0, (2, -1)).sum(0)


def _split(values: Tensor, parts: int) -> list[Tensor]:
    """bf16 tensors of 8 bits of `values` each: three hold all 24 of fp32.

    Cut off by a mask, as the compiler drops a rounding to bf16 that is at once undone.
    """
    found = []
    for _ in range(parts):
        high = (values.view(torch.int32) & -(1 << 16)).view(torch.float32)
        found.append(high.to(torch.bfloat16))
        values = values - high
    return found


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """bf16 times bf16, added up and given in fp32."""
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()
