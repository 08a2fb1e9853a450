"""The dense feed-forward layer: hidden states in, hidden states out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.kernels import swiglu
from mengya.kernels.fp8.swiglu import fp8_swiglu
from mengya.kernels.linear import can_merge, merged_product


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv:2002.05202).

    Attributes:
        fp8: multiply in fp8 in training; see fp8_layers.use_fp8, which sets it.
    """

    def __init__(
        self, hidden_size: int, width: int, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, width, bias=False, device=device)
        self.up_proj = nn.Linear(hidden_size, width, bias=False, device=device)
        self.down_proj = nn.Linear(width, hidden_size, bias=False, device=device)
        self.fp8 = False

    def is_plain(self) -> bool:
        """Whether all three layers are what they were made as: no adapter, not quantized."""
        return all(type(m) is nn.Linear for m in (self.gate_proj, self.up_proj, self.down_proj))

    def forward(self, x: Tensor) -> Tensor:
        if self.fp8 and self.training:
            return fp8_swiglu(x, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)
        if can_merge(x, self.gate_proj, self.up_proj):
            gate_up = merged_product(x, self.gate_proj, self.up_proj)
            fused = swiglu.is_supported(gate_up)
            return self.down_proj((swiglu.swiglu if fused else swiglu.swiglu_plain)(gate_up))
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
