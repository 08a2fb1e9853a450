"""What memory.py and activations.py ask of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MemorySettings:
    """What decides memory besides the model.

    Attributes:
        rows, length: of a micro-batch on one device.
        compute_bytes: of a number in matrix products: 2 under autocast, 4 in fp32.
        compiled: torch.compile, whose partition of the graph keeps less.
        on_cpu: attention by a mask, norms in pieces.
        optimizer: adamw keeps two moments; muon and normuon one for the matrices of layers; galore
            is counted as adamw, an upper bound.
        devices, sharded: with FSDP weights, gradients and optimizer are split over the devices, and
            half-precision weights gathered layer by layer.
        fp8: feed-forward layers keep 8-bit copies (precision=fp8).
        keeps_gathered: strategy.reshard_after_forward=false.
        reference: DPO's frozen model; `reference_copy` when it is one of its own (no LoRA).
        labelled: share of the positions that get logits.
    """

    rows: int
    length: int
    compute_bytes: Literal[2, 4]
    compiled: bool
    on_cpu: bool = False
    optimizer: Literal["adamw", "muon", "normuon", "galore"] = "adamw"
    gradient_checkpointing: bool = False
    fp8: bool = False
    devices: int = 1
    sharded: bool = False
    keeps_gathered: bool = False
    reference: bool = False
    reference_copy: bool = False
    labelled: float = 1.0
