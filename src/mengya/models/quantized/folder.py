"""Reading a quantized folder: which matrices it holds in small numbers, and these, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from mengya.errors import UserError
from mengya.kernels.quantized.weight import QuantizedWeight
from mengya.models.config.model import ModelConfig
from mengya.models.hf.config import load_quantization
from mengya.models.hf.weight_files import StoredTensors
from mengya.models.quantized.layouts import find_layout
from mengya.models.quantized.layouts.checks import check_groups
from mengya.models.quantized.layouts.layout import Layout, Stored
from mengya.models.quantized.matrices import matrix_shapes


class QuantizedFolder:
    """
    Attributes:
        layout: how the folder holds matrices.
        stored: which are quantized, and how.
        shapes: (outputs, inputs) of these.
        tensors: all of the folder.
    """

    def __init__(self, directory: Path, config: ModelConfig) -> None:
        """
        Raises:
            UserError: the folder is not quantized, in a way that is not supported, or lacks tensors.
        """
        self.layout, self.stored, self.shapes = read_quantization(directory, config)
        self.tensors = StoredTensors(directory)
        self._path = directory / "config.json"
        self._check_complete()

    def weight(self, name: str) -> QuantizedWeight:
        """A matrix of `stored`.

        Raises:
            UserError: its tensors are damaged, or of other shapes than config.json says.
        """
        found: dict[str, Tensor] = {}
        for part, shape in self._parts(name).items():
            full = f"{name}.{part}"
            if full not in self.tensors:
                continue  # it is optional
            found[part] = self.tensors[full]
            if tuple(found[part].shape) != shape:
                bits, size = self.stored[name].scheme.bits, self.stored[name].scheme.group_size
                raise UserError(
                    f"{self.tensors.file_of(full)}: {full} has shape {list(found[part].shape)}, but "
                    f"config.json says {list(shape)} ({bits} bits, groups of {size or 'a row'}); the files "
                    "are of different models"
                )
        with _about(f"{self._path.parent}: {name}"):
            return self.layout.from_tensors(found, self.stored[name], self.shapes[name])

    def done(self) -> set[str]:
        """Names of what `weight` reads and makes, which `fill` leaves alone."""
        read = {f"{name}.{part}" for name in self.stored for part in self._parts(name)}
        return read | {f"{name}.weight" for name in self.stored}

    def _parts(self, name: str) -> dict[str, tuple[int, ...]]:
        return self.layout.shapes(self.stored[name], self.shapes[name])

    def _check_complete(self) -> None:
        optional = self.layout.optional
        missing = [
            f"{name}.{part}"
            for name in self.stored
            for part in self._parts(name)
            if part not in optional and f"{name}.{part}" not in self.tensors
        ]
        if not missing:
            return
        name = missing[0].rpartition(".")[0]
        why = "the folder is incomplete, copy it again"
        if f"{name}.weight" in self.tensors and not missing[0].endswith(".weight"):
            why = (
                f"{name}.weight is there instead: config.json is of another folder, copy both again"
            )
        raise UserError(
            f"{self._path.parent}: {len(missing)} tensors of quantized layers are missing, such as "
            f"{missing[0]}; {why}"
        )


def read_quantization(
    directory: Path, config: ModelConfig
) -> tuple[Layout, dict[str, Stored], dict[str, tuple[int, int]]]:
    """What config.json says: the layout, and of each quantized matrix how it is stored and its shape.

    Raises:
        UserError: it says nothing, or what is not supported.
    """
    path = directory / "config.json"
    values = load_quantization(directory)
    if values is None:
        raise UserError(f"{path} has no quantization_config: the weights are full")
    with _about(f"{path}: quantization_config"):
        layout = find_layout(values.get("quant_method"))
        shapes = matrix_shapes(config)
        stored = layout.from_config(values, list(shapes))
        if not stored:
            raise UserError("it names none of the model's layers")
    for name, one in stored.items():
        with _about(f"{path}: quantization_config: {name}"):
            check_groups(one.scheme, shapes[name])
    return layout, stored, {name: shapes[name] for name in stored}


@contextmanager
def _about(what: str) -> Iterator[None]:
    """Say in errors what they are about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{what}: {error}") from error
