"""Layers of a model whose matrices are quantized; for inference alone.

They stand where `nn.Linear` and `Experts` stood, under the same names; kernels.quantized multiplies.
Shapes: N tokens, k experts per token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mengya.kernels.quantized.experts import ExpertStack, stack_experts
from mengya.kernels.quantized.merged import merge_quantized
from mengya.kernels.quantized.op import PackedWeight
from mengya.kernels.quantized.weight import Scheme
from mengya.models.feed_forward import SwiGLU


class QuantizedLinear(nn.Module):
    """`nn.Linear` with a packed weight, which is put in after the layer is made.

    Attributes:
        packed: None before that.
    """

    def __init__(self, linear: nn.Linear, scheme: Scheme) -> None:
        super().__init__()
        self.scheme = scheme
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self.packed: PackedWeight | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert self.packed is not None
        out = self.packed(x)
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self.scheme}"
        )


class QuantizedExperts(nn.ModuleList):
    """`Experts` as one SwiGLU each, so that every matrix may have a scheme of its own.

    Attributes:
        stack: all of them for one kernel, after `merge_layers`; None where that is not possible.
    """

    def __init__(self, count: int, hidden_size: int, width: int) -> None:
        super().__init__(SwiGLU(hidden_size, width, "meta") for _ in range(count))
        self.stack: ExpertStack | None = None

    def forward(self, x_NH: Tensor, weights_Nk: Tensor, experts_Nk: Tensor) -> Tensor:
        """Weighted sum of each token's experts, [N, hidden]; only chosen experts are computed."""
        if self.stack is not None:
            return self.stack(x_NH, weights_Nk, experts_Nk)
        out_NH = torch.zeros_like(x_NH)
        for e in experts_Nk.unique().tolist():
            tokens, choices = (experts_Nk == e).nonzero(as_tuple=True)
            weights = weights_Nk[tokens, choices, None].to(x_NH.dtype)
            out_NH.index_add_(0, tokens, self[e](x_NH[tokens]) * weights)
        return out_NH

    def merge(self) -> None:
        """Make the stack."""
        names = ("gate_proj", "up_proj", "down_proj")
        self.stack = stack_experts(
            [[getattr(getattr(expert, name), "packed", None) for name in names] for expert in self]
        )


def merge_layers(model: nn.Module) -> None:
    """Make one product of quantized layers of the same input, and one of the experts, where kernels can.

    Values stay, and so does memory; after a move to another device it must be done again.
    """
    experts = [module for module in model.modules() if isinstance(module, QuantizedExperts)]
    for module in experts:
        module.merge()
    stacked = {inner for m in experts if m.stack is not None for inner in m.modules()}
    merge_quantized(module for module in model.modules() if module not in stacked)


def number_names(model: nn.Module) -> str:
    """What quantized layers hold, such as `int4` or `int4+int8`; "" without any."""
    schemes = {m.scheme for m in model.modules() if isinstance(m, QuantizedLinear)}
    return "+".join(sorted({_name(scheme) for scheme in schemes}))


def parameter_count(model: nn.Module) -> int:
    """Numbers that the model was trained with; tied ones count once, quantized ones as one each."""
    quantized = (m for m in model.modules() if isinstance(m, QuantizedLinear))
    inner = sum(m.in_features * m.out_features for m in quantized)
    return inner + sum(parameter.numel() for parameter in model.parameters())


def _name(scheme: Scheme) -> str:
    return f"int{scheme.bits}" if scheme.number == "int" else scheme.number
