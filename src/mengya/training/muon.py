"""Muon: momentum whose update is orthogonalized, for the matrices inside the layers.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon). The same update as torch.optim.Muon, but all
matrices of one shape are orthogonalized in one batch, and in fp32 where the device has no fast bf16:
on a CPU without bf16 instructions torch's own takes longer than the forward and backward pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_A, _B, _C = 3.4445, -4.7750, 2.0315  # steepest at zero, so that five steps are enough


def orthogonalize(x_NIO: Tensor, steps: int = 5) -> Tensor:
    """Nearly U V^T of each matrix U S V^T: singular values end between about 0.7 and 1.2.

    A quintic Newton-Schulz iteration, X <- aX + b(XX^T)X + c(XX^T)^2 X, on N matrices at once.
    """
    dtype = torch.bfloat16 if x_NIO.is_cuda else torch.float32
    x = x_NIO.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = _A * x + (_B * square + _C * square @ square) @ x
    return (x.mT if tall else x).to(x_NIO.dtype)


class Muon(Optimizer):
    """p <- (1 - lr wd) p - lr sqrt(max(1, rows/columns)) orthogonalize(Nesterov momentum)."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                self._step_shape(group, shape, parameters)

    def _step_shape(
        self, group: dict[str, Any], shape: torch.Size, parameters: list[nn.Parameter]
    ) -> None:
        momentum, lr = group["momentum"], group["lr"]
        ahead = []
        for parameter in parameters:
            assert parameter.grad is not None
            buffer = self._buffer(parameter)
            buffer.lerp_(parameter.grad, 1 - momentum)
            ahead.append(parameter.grad.lerp(buffer, momentum))
        scale = max(1.0, shape[0] / shape[1]) ** 0.5
        updates = orthogonalize(torch.stack(ahead)).unbind(0)
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - lr * group["weight_decay"]).add_(update, alpha=-lr * scale)

    def _buffer(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]
