"""The orthogonal factor of many matrices at once, by matrix products alone.

Takes a stack of matrices; gives for each M = U S V^T an approximation of U V^T. Knows no optimizer.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Polar Express (Amsel et al. 2025, arXiv:2505.16932, algorithm 1): the odd quintic polynomial of each
# step is the best one for what the steps before it left. On spectra like those of gradients, five of
# them end half as far from U V^T as five of the fixed quintic that Muon began with (docs/optimizers.md).
# bf16 rounding must not push a singular value out of the interval that they hold for.
_MARGIN = 1.02
_POLYNOMIALS = [
    (a / _MARGIN, b / _MARGIN**3, c / _MARGIN**5)
    for a, b, c in (
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
        (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    )
]


def orthogonalize(x_NIO: Tensor) -> Tensor:
    """Nearly U V^T of each of N matrices U S V^T: X <- aX + (b XX^T + c (XX^T)^2) X, five times.

    Returns:
        [N, I, O], contiguous, in the dtype of the products: bf16 on CUDA, fp32 elsewhere, since a CPU
        without bf16 instructions is many times slower in it. A matrix of zeros stays zero.
    """
    tall = x_NIO.shape[-2] > x_NIO.shape[-1]
    x = x_NIO.mT if tall else x_NIO
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * _MARGIN + 1e-7)
    x = x.to(torch.bfloat16 if x.is_cuda else torch.float32)
    for a, b, c in _POLYNOMIALS:
        # baddbmm adds within the product's kernel, so nothing is left for a compiler to fuse.
        square = x @ x.mT
        square = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, square, x, beta=a)
    return x.mT.contiguous() if tall else x
