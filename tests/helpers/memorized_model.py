"""A model fitted to a few samples, for tests that look at what it says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mengya.batch import IGNORE_INDEX
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig

Sample = tuple[list[int], list[int]]
"""Token ids, and 1 for each that is to be learned."""


def memorize(config: ModelConfig, samples: Sequence[Sample]) -> CausalLM:
    """A new model fitted to `samples`, in evaluation mode."""
    torch.manual_seed(0)
    model = CausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    rows = [
        (
            torch.tensor([ids]),
            torch.tensor([i if m else IGNORE_INDEX for i, m in zip(ids, mask, strict=True)]),
        )
        for ids, mask in samples
    ]
    loss = torch.tensor(torch.inf)
    for _ in range(300):
        loss = torch.stack(
            [F.cross_entropy(model(ids[:, :-1]).head_output[0], labels[1:]) for ids, labels in rows]
        ).sum()
        if loss.item() < 0.02:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    return model.eval()
