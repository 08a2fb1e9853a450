"""Whatever stands in quantization_config: it is understood or refused in words, never a traceback."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from mengya.errors import UserError
from mengya.kernels.quantized.weight import Scheme
from mengya.models.quantized.layouts import LAYOUTS
from mengya.models.quantized.layouts.layout import Stored

NAMES = [f"model.layers.{i}.mlp.up_proj" for i in range(3)]
SCHEMES = {
    "compressed-tensors": [
        Scheme(4, 16),
        Scheme(8, activations="int8"),
        Scheme(8, number="float8", activations="float8"),
    ],
    "gptq": [Scheme(4, 16), Scheme(8)],
    "bitsandbytes": [Scheme(8, activations="int8_outliers")],
}
JUNK: list[Any] = [None, True, -1, 3, 0.5, "x", "", "re:(", [], [1], [None], {}, {"x": 1}, [["x"]]]


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything inside."""
    if path:
        yield path
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in pairs if isinstance(values, dict | list) else ():
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("name", SCHEMES)
def test_junk_in_any_place(name: str) -> None:
    layout, schemes = LAYOUTS[name], SCHEMES[name]
    matrices = {NAMES[i]: Stored(schemes[i % len(schemes)]) for i in range(3)}
    config = layout.to_config(matrices, ["lm_head"])
    refused = 0
    for path in places(config):
        for junk in JUNK:
            changed = copy.deepcopy(config)
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = junk
            try:
                found = layout.from_config(changed, NAMES)
            except UserError as error:
                refused += 1
                assert str(error)
            else:
                for stored in found.values():
                    assert layout.shapes(stored, (32, 64))
    assert refused > 20
