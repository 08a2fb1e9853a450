"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout of Llama.

Takes position ids; gives cosines and sines once per forward, and turns queries and keys by them.
Shapes: B rows, S positions, H heads, D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_angles(position_ids: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * theta^(-2i/head_dim) for i in [0, head_dim/2).

    Args:
        position_ids: [B, S] or [1, S] int64.

    Returns:
        (cos, sin), each [B, S, 1, D/2] float32, ready to broadcast over the heads.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=position_ids.device)
    frequencies = 1.0 / theta ** (pairs / head_dim)
    angles = position_ids[:, :, None, None].float() * frequencies
    return angles.cos(), angles.sin()


def rotate(x_BSHD: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn each pair (x[i], x[i + D/2]) by its position's angle, in fp32; same shape, in `dtype`."""
    first, second = x_BSHD.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(dtype)
