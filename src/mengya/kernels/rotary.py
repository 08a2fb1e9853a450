"""The rotation of rotary position embeddings (Su et al. 2021, arXiv:2104.09864), in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x_BSHD: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotate each pair (x[i], x[i + R/2]) by the angle of its position, in fp32; same shape, in `dtype`.

    Angles of fewer than D/2 pairs leave the rest of each head unchanged.
    """
    R = 2 * cos.shape[-1]
    first, second = x_BSHD[..., :R].chunk(2, dim=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    if x_BSHD.shape[-1] > R:
        rotated = (*rotated, x_BSHD[..., R:])
    return torch.cat(rotated, dim=-1).to(dtype)
