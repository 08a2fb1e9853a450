"""Finished layers of an interrupted run, in a folder: the same settings and inputs resume after them.

    state.json                what the layers depend on, as one digest
    widths.json               the bits of every group, where they were observed
    layer-00003.safetensors   codes and scales of the matrices and the other tensors of layer 3

A file is complete or absent.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.quantization.driver import MatrixRecord, QuantizedLayer
from mengya.runtime.files import sync_path, write_text

_PARTS = ("codes_OI", "scale_OG", "zero_OG", "group_I")


class LayerStore:
    """`folder` keeps what belongs to `digest`; anything else in it is dropped by `open`."""

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder, self._digest = folder, digest

    def belongs(self) -> bool:
        """Whether what is there was made with the same settings and inputs."""
        return self._read("state.json") == {"digest": self._digest}

    def open(self) -> None:
        """Start, or resume what belongs."""
        if not self.belongs():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self._write("state.json", {"digest": self._digest})

    def finished(self) -> int:
        """Layers that are there, from the first on without a gap."""
        number = 0
        while self._path(number).is_file():
            number += 1
        return number

    def widths(self) -> dict[str, Any] | None:
        return self._read("widths.json")

    def save_widths(self, widths: Mapping[str, Any]) -> None:
        self._write("widths.json", widths)

    def load(self, number: int) -> QuantizedLayer | None:
        """None where the layer is not finished, or its file is damaged."""
        with suppress(OSError, SafetensorError, ValueError, KeyError):
            with safe_open(self._path(number), framework="pt") as file:
                facts = json.loads((file.metadata() or {})["layer"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _layer(facts, tensors)
        return None

    def save(self, number: int, layer: QuantizedLayer) -> None:
        tensors = {f"full/{name}": tensor.contiguous() for name, tensor in layer.full.items()}
        for name, weight in layer.weights.items():
            for part in _PARTS:
                if (tensor := getattr(weight, part)) is not None:
                    tensors[f"{part}/{name}"] = tensor
        facts = {
            "schemes": {name: asdict(weight.scheme) for name, weight in layer.weights.items()},
            "records": [asdict(record) for record in layer.records],
        }
        path = self._path(number)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            save_file(tensors, temporary, metadata={"layer": json.dumps(facts)})
            sync_path(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"layer-{number:05d}.safetensors"

    def _read(self, name: str) -> dict[str, Any] | None:
        with suppress(OSError, ValueError):
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        return None

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        write_text(self.folder / name, json.dumps(values) + "\n")


def _layer(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> QuantizedLayer:
    weights = {}
    for name, scheme in facts["schemes"].items():
        codes, scale, zero, group = (tensors.get(f"{part}/{name}") for part in _PARTS)
        assert codes is not None and scale is not None
        weights[name] = QuantizedWeight(Scheme(**scheme), codes, scale, zero, group)
    full = {
        name.removeprefix("full/"): tensor
        for name, tensor in tensors.items()
        if name.startswith("full/")
    }
    records = [
        MatrixRecord(**{**record, "shape": tuple(record["shape"])}) for record in facts["records"]
    ]
    return QuantizedLayer(weights, full, records)
