"""The contract of a layout: how a folder of transformers' kind holds quantized matrices.

A layout is what `quantization_config` of config.json names as `quant_method`. It says what the
configuration means for each matrix, and which tensors stand in the place of `NAME.weight`. Knows nothing of
files, models and how codes are chosen.

Matrices are named as on disk, without `.weight`: model.layers.0.self_attn.q_proj,
model.layers.1.mlp.experts.3.gate_proj (experts one by one, as vLLM and llm-compressor have them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mengya.kernels.quantized.weight import QuantizedWeight, Scheme


@dataclass(frozen=True)
class Stored:
    """How one matrix is stored.

    Attributes:
        ordered: with the group of each column (activation order).
        form: where a layout has several forms of the same scheme, which one; "" its usual one.
    """

    scheme: Scheme
    ordered: bool = False
    form: str = ""


class Layout(Protocol):
    """One `quant_method`. The messages of errors name values and rules; the caller adds the file.

    Attributes:
        name: the quant_method.
        optional: those of `shapes` that folders may lack.
    """

    name: str
    optional: tuple[str, ...]

    def scale_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """That of scales on disk. Who rounds scales to it first, and chooses codes then, loses nothing.

        Args:
            dtype: of the tensors that stay full.
        """
        ...

    def check(self, stored: Stored, shape: tuple[int, int]) -> None:
        """Refuse what this layout, or its readers, cannot hold.

        Args:
            shape: of the weight, (outputs, inputs).

        Raises:
            UserError: with what to choose instead.
        """
        ...

    def to_config(self, matrices: Mapping[str, Stored], full: Sequence[str]) -> dict[str, Any]:
        """`quantization_config` of a folder; every matrix has passed `check`.

        Args:
            full: names of the linear layers that are not quantized, such as lm_head.

        Raises:
            UserError: one folder cannot hold these together.
        """
        ...

    def from_config(self, values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Stored]:
        """Which of the matrices `names` are quantized, and how.

        Raises:
            UserError: a value that is not supported.
        """
        ...

    def shapes(self, stored: Stored, shape: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that `from_tensors` takes, by what follows `NAME.`."""
        ...

    def to_tensors(
        self, weight: QuantizedWeight, stored: Stored, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """The tensors on disk, by what follows `NAME.`; also those that only other readers want.

        Args:
            dtype: as that of `scale_dtype`.
        """
        ...

    def from_tensors(
        self, tensors: Mapping[str, Tensor], stored: Stored, shape: tuple[int, int]
    ) -> QuantizedWeight:
        """The matrix of tensors that have the right shapes.

        Raises:
            UserError: numbers that cannot be.
        """
        ...
