"""README.md of a quantized folder: the model card of the checkpoint, with what reads this layout.

Takes what was written and proven; knows of vLLM what docs/quantization.md says of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mengya.export.card.config import CardConfig
from mengya.export.card.render import Written, write_card
from mengya.export.format import Usage
from mengya.export.hf import folder_usage
from mengya.export.own_reader import PACKAGES
from mengya.export.parity.result import Parity
from mengya.export.source import Source
from mengya.kernels.quantized.weight import Scheme
from mengya.planning.sizes import parameter_counts


def write_quantized_card(
    config: CardConfig,
    source: Source,
    parity: Parity,
    directory: Path,
    *,
    layout: str,
    scheme: Scheme,
    how: str,
) -> None:
    """Write README.md into the folder.

    Args:
        how: bits and method, as "4 bits, gptq".

    Raises:
        UserError: the file of `about` cannot be read.
    """
    counts = parameter_counts(source.model.config)
    written = Written(
        form=f"{layout} ({how})",
        parameters=counts.total,
        active=counts.active,
        usage=list(_usage(layout, scheme, parity)),
        library_name="transformers",
        tags=(layout,),
    )
    write_card(config, source, written, parity, directory)


def _usage(layout: str, scheme: Scheme, parity: Parity) -> Iterator[Usage]:
    """The programs that read it, of those that take a transformers folder."""
    refused = any("transformers does not read" in reader.program for reader in parity.readers)
    for usage in folder_usage():
        if usage.program == "transformers":
            if refused:
                continue
            packages = " ".join(PACKAGES[layout]).replace("_", "-")
            program = f"transformers, after pip install {packages}"
            yield Usage(program, usage.code, usage.language, usage.chat)
        elif usage.program != "vLLM" or _vllm_reads(layout, scheme):
            yield usage


def _vllm_reads(layout: str, scheme: Scheme) -> bool:
    return layout == "gptq" or (layout == "compressed-tensors" and scheme.bits in (4, 8))
