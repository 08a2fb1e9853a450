"""CLEX: the scale of each rotary frequency is learned as a flow over the factor t.

Chen et al. 2023, arXiv:2310.16450. With z(t) the logarithms of the frequencies, z(1) those of plain RoPE:

    dz/dt = W_down silu(W_up z) + xi(t),   xi_i(t) = -(2i / (R - 2)) * 2 / (2t - 1)

xi is the flow of NTK scaling by 2t - 1; W_down starts at zero, so an untrained CLEX is that. Integrated
by the classical Runge-Kutta method. In training t is drawn between what the row needs and `factor`; else
it is the integer at or above length / original_max_position_embeddings. Shapes: R rotary width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mengya.errors import UserError
from mengya.models.config.model import ContextExtension, ModelConfig
from mengya.models.config.rope import RopeParameters
from mengya.models.rope import LearnedRope

_STEPS = 8  # of the integration from 1 to t
_WIDENING = 4  # inner width of the flow's network, in pairs


class Clex(LearnedRope):
    """The flow shared by all layers: 2 * 4 * (R/2)^2 parameters, computed in fp32."""

    def __init__(self, config: ModelConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self._partial = config.rope_parameters.partial_rotary_factor
        rope = config.rope_parameters
        assert rope.factor is not None and rope.original_max_position_embeddings is not None
        self.factor, self.trained = rope.factor, rope.original_max_position_embeddings
        self.width, self.theta = config.rotary_width, config.rope_theta
        pairs = self.width // 2
        self.up_proj = nn.Parameter(torch.empty(_WIDENING * pairs, pairs, device=device))
        self.down_proj = nn.Parameter(torch.empty(pairs, _WIDENING * pairs, device=device))
        if self.up_proj.device.type != "meta":
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """As `LearnedRope.reset_parameters`: plain NTK scaling."""
        nn.init.kaiming_uniform_(self.up_proj, a=math.sqrt(5))
        nn.init.zeros_(self.down_proj)

    def forward(self, lengths: Tensor) -> Tensor:
        """As `LearnedRope.forward`; in training one draw for all texts, as any t above their need will do."""
        needed = (lengths / self.trained).clamp(min=1, max=self.factor)
        if self.training:
            longest = needed.max()
            return self.frequencies(longest + (self.factor - longest) * torch.rand_like(longest))
        table = torch.arange(1, math.ceil(self.factor) + 1, device=lengths.device)
        frequencies = self.frequencies(table.float().clamp(max=self.factor))
        return frequencies[needed.ceil().long() - 1][..., None, :]

    def frequencies(self, t: Tensor) -> Tensor:
        """Angle per position of each pair at factors `t` (fp32, [...]), [..., R/2] fp32."""
        with torch.autocast(t.device.type, enabled=False):
            R = self.width
            pairs = torch.arange(R // 2, dtype=torch.float32, device=t.device)
            z = -math.log(self.theta) * 2 * pairs / R
            slope = -2 * pairs / (R - 2)

            def flow(time: Tensor, z: Tensor) -> Tensor:
                learned = F.linear(
                    F.silu(F.linear(z, self.up_proj.float())), self.down_proj.float()
                )
                return learned + slope * 2 / (2 * time - 1)

            t = t[..., None]
            h, time = (t - 1) / _STEPS, torch.ones_like(t)
            for _ in range(_STEPS):
                k1 = flow(time, z)
                k2 = flow(time + h / 2, z + h / 2 * k1)
                k3 = flow(time + h / 2, z + h / 2 * k2)
                k4 = flow(time + h, z + h * k3)
                z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
                time = time + h
            return z.exp()

    @torch.no_grad()
    def frozen(self, factor: float) -> ContextExtension:
        """As `LearnedRope.frozen`: rope_type longrope with the same numbers for texts of every length."""
        if not 1 <= factor <= self.factor:
            raise UserError(
                f"factor={factor} must be between 1 and {self.factor}, the factor of the model's "
                "rope_parameters"
            )
        device = self.up_proj.device
        now = self.frequencies(torch.tensor(float(factor), device=device)).double()
        exponents = torch.arange(0, self.width, 2, dtype=torch.float64, device=device) / self.width
        stretch = (1 / (self.theta**exponents * now)).tolist()
        return ContextExtension(
            max_position_embeddings=max(int(self.trained * factor), self.trained),
            rope_parameters=RopeParameters(
                rope_type="longrope", long_factor=stretch, short_factor=stretch, factor=factor,
                attention_factor=1.0, original_max_position_embeddings=self.trained,
                partial_rotary_factor=self._partial,
            ),
        )  # fmt: skip
