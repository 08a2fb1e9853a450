"""Our batched Muon against torch's own, and the property it is named for."""

from __future__ import annotations

import torch
from torch import nn

from mengya.training.muon import Muon, orthogonalize


def test_singular_values_end_near_one_for_every_shape() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 16, 48), (2, 48, 16), (1, 12, 40)):
        x = torch.randn(*shape, generator=generator)
        values = torch.linalg.svdvals(orthogonalize(x))
        assert values.min() > 0.5 and values.max() < 1.3
        u, _, vh = torch.linalg.svd(x, full_matrices=False)
        cosine = nn.functional.cosine_similarity(orthogonalize(x).flatten(1), (u @ vh).flatten(1))
        assert cosine.min() > 0.95


def test_follows_torch_optim_muon_over_steps() -> None:
    torch.manual_seed(0)
    ours = [
        nn.Parameter(torch.randn(16, 32)),
        nn.Parameter(torch.randn(16, 32)),
        nn.Parameter(torch.randn(32, 8)),
    ]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    start = [p.detach().clone() for p in ours]
    optimizers = [
        Muon(ours, lr=0.02, momentum=0.95, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, momentum=0.95, weight_decay=0.1),
    ]
    for _ in range(5):
        gradients = [torch.randn_like(p) for p in ours]
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        # torch's iteration runs in bf16, so the two agree to its precision only.
        assert (a - b).norm() < 0.02 * (b - before).norm()
