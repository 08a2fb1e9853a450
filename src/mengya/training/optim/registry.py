"""The optimizers of matrices by their names in `optimizer.name`; "adamw" alone has none."""

from __future__ import annotations

from collections.abc import Mapping

from mengya.training.optim.galore import GaLoreMatrices
from mengya.training.optim.matrix_optimizer import MatrixOptimizer
from mengya.training.optim.muon import MuonMatrices

MATRIX_OPTIMIZERS: Mapping[str, MatrixOptimizer] = {
    "muon": MuonMatrices(normalizes=False),
    "normuon": MuonMatrices(normalizes=True),
    "galore": GaLoreMatrices(),
}
