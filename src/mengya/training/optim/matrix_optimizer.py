"""The interface of an optimizer that updates the matrices of the layers while AdamW updates the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from mengya.training.checkpoint.tensor_files import Stored
from mengya.training.optim.config import OptimizerConfig

State = Mapping[str, Stored]
"""Names of a parameter's state tensors -> their shape and dtype."""


class MatrixOptimizer(Protocol):
    """What building, resuming and planning ask of one; implementations are in registry.py."""

    @property
    def state_names(self) -> frozenset[str]:
        """Names of the state tensors of a parameter; no two optimizers have the same."""
        ...

    @property
    def takes_stacks(self) -> bool:
        """Whether it takes stacks of matrices [E, O, I] (experts) as well."""
        ...

    @property
    def orthogonalizes(self) -> bool:
        """Whether a step orthogonalizes the matrices, whose FLOPs and copies `mengya plan` counts."""
        ...

    def build(
        self,
        matrices: Mapping[str, nn.Parameter],
        config: OptimizerConfig,
        dp_group: dist.ProcessGroup | None,
    ) -> Optimizer:
        """Make it.

        Args:
            matrices: by parameter name. dp_group: processes with equal gradients that may share the work.

        Raises:
            UserError: a package is missing, or the strategy shards what it needs in full.
        """
        ...

    def state_shapes(
        self, shape: tuple[int, ...], group: Mapping[str, Any]
    ) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the state tensors of a parameter in a parameter group that `build` made."""
        ...

    def parameter_shape(self, state: State) -> list[int]:
        """The shape of the parameter that has this state."""
        ...

    def changed_setting(self, saved: list[State], own: list[State]) -> str | None:
        """A setting that decides shapes and differs between a checkpoint and a run: what both have and
        what to write; None: none differs."""
        ...

    def planned_numbers(self, shape: tuple[int, ...]) -> int:
        """Numbers of state for a parameter of this shape, or an upper bound: for `mengya plan`."""
        ...
