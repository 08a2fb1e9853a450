"""The layouts on disk, one file each, by the quant_method that config.json names."""

from __future__ import annotations

from mengya.errors import UserError, shown
from mengya.models.quantized.layouts.bitnet import Bitnet
from mengya.models.quantized.layouts.bitsandbytes import Bitsandbytes
from mengya.models.quantized.layouts.compressed_tensors import CompressedTensors
from mengya.models.quantized.layouts.gptq import Gptq
from mengya.models.quantized.layouts.layout import Layout

_ALL: tuple[Layout, ...] = (CompressedTensors(), Gptq(), Bitsandbytes(), Bitnet())
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}
"""A new layout is a line here and a file next to this one."""


def find_layout(name: object) -> Layout:
    """The layout of a quant_method.

    Raises:
        UserError: there is none, or it is not supported.
    """
    if not isinstance(name, str) or name not in LAYOUTS:
        raise UserError(
            f"quant_method {shown(name)} is not supported (only {', '.join(LAYOUTS)}); give the full "
            "checkpoint that it was made from"
        )
    return LAYOUTS[name]
