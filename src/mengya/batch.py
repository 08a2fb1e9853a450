"""The tensors of one micro-batch: what data gives and what models and losses take. Knows neither.

Shapes: B rows, S positions per row (sequence_length). A row is packed with several documents;
`document_ids` and `cu_seqlens` say the same thing twice because masked attention wants the one and
variable-length attention kernels want the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy code imports IGNORE_INDEX, without waiting for torch
    import torch
    from torch import Tensor

IGNORE_INDEX = -100


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows of token ids with their targets.

    Attributes:
        input_ids: [B, S] int64.
        labels: [B, S] int64, the token to predict at this position (already shifted by one);
            IGNORE_INDEX where no loss is taken.
        position_ids: [B, S] int64, counting from 0 in every document.
        document_ids: [B, S] int64, the number of the document within its row; -1 on padding.
        cu_seqlens: [B * max_documents + 1] int32, document boundaries in the B*S flattened
            positions (each run of padding counts as a document), filled up with B*S.
        runs: how many documents and runs of padding there are; None: unknown. A number of the host,
            so that attention kernels need not be started for the filling.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    document_ids: Tensor
    cu_seqlens: Tensor
    runs: int | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        moved = (t.to(device, non_blocking=non_blocking) for t in self._tensors())
        return Batch(*moved, runs=self.runs)

    def pin_memory(self) -> Batch:
        return Batch(*(t.pin_memory() for t in self._tensors()), runs=self.runs)

    def model_inputs(self) -> dict[str, Tensor]:
        """The keyword arguments of `CausalLM.forward`."""
        return {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "document_ids": self.document_ids,
            "cu_seqlens": self.cu_seqlens
            if self.runs is None
            else self.cu_seqlens[: self.runs + 1],
        }

    def _tensors(self) -> tuple[Tensor, ...]:
        return (
            self.input_ids, self.labels, self.position_ids, self.document_ids, self.cu_seqlens
        )  # fmt: skip
