"""The settings of the optimizers. Values only; nothing runs here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mengya.config import Config


class MuonConfig(Config):
    lr: float | None = Field(default=None, gt=0)
    """Peak rate of the matrices; null: optimizer.lr. In AdamW's units, as updates are as large."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Nesterov momentum."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """normuon: decay of each neuron's second moment."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Decoupled decay of the matrices; null: optimizer.weight_decay."""


class GaLoreConfig(Config):
    rank: int = Field(default=128, ge=1)
    """Dimensions of the subspace; the moments of a matrix are smaller by rank / min(rows, columns)."""
    update_every: int = Field(default=200, ge=1)
    """Steps between new subspaces, each a singular value decomposition of every gradient."""
    scale: float = Field(default=0.25, gt=0)
    """Factor of the updates, on top of optimizer.lr."""


class OptimizerConfig(Config):
    name: Literal["adamw", "muon", "normuon", "galore"] = "adamw"
    """muon, normuon and galore update the matrices of the layers (docs/optimizers.md), AdamW the rest."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled decay of matrices and embeddings; norms and biases are never decayed."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW: decay of the first moment."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW: decay of the second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW: added to the root of the second moment."""
    muon: MuonConfig = MuonConfig()
    """What is different for the matrices with name=muon or normuon."""
    galore: GaLoreConfig = GaLoreConfig()
    """The subspaces of name=galore."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm."""
