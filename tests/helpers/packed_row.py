"""What the model gets of a packed row."""

from __future__ import annotations

import torch


def packed_row(lengths: tuple[int, ...], size: int) -> dict[str, torch.Tensor]:
    """position_ids, document_ids [1, size] and cu_seqlens of documents followed by padding."""
    positions = [p for n in (*lengths, size - sum(lengths)) for p in range(n)]
    numbers = [d for d, n in enumerate(lengths) for _ in range(n)]
    numbers += [-1] * (size - sum(lengths))
    ends = torch.tensor([0, *lengths, size - sum(lengths)]).cumsum(0)
    return {
        "position_ids": torch.tensor([positions]),
        "document_ids": torch.tensor([numbers]),
        "cu_seqlens": ends.to(torch.int32),
    }
