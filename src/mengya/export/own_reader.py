"""Who reads a quantized folder back: transformers where what it needs is installed, else mengya.

Our own reader takes nothing from the run that wrote the folder: it opens the files as any user's would be.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from mengya.export.hf import TransformersFolder
from mengya.export.reader import Reader
from mengya.models.quantized.load import load_dequantized
from mengya.version import __version__

# What transformers loads each layout with.
PACKAGES = {
    "compressed-tensors": ("compressed_tensors",),
    "gptq": ("optimum", "gptqmodel"),
    "bitsandbytes": ("bitsandbytes", "accelerate"),
    "bitnet": ("accelerate",),
}


def quantized_readers(folder: Path, layout: str, unread: str | None) -> Iterator[Reader]:
    """The program that reads this layout, opened when it is asked for.

    Args:
        unread: what of the folder transformers does not read, whatever is installed; None: it reads all.
    """
    missing = [name for name in PACKAGES[layout] if importlib.util.find_spec(name) is None]
    if unread or missing:
        why = f"does not read {unread}" if unread else f"needs {' and '.join(missing)} for it"
        yield MengyaFolder(folder, f"transformers {why}")
        return
    # Progress bars of the packages, of which some come with the first tokens; what they raise is not touched.
    with redirect_stderr(StringIO()):
        reader = BitnetFolder(folder) if layout == "bitnet" else TransformersFolder(folder)
        reader.logits([0])
    yield reader


class BitnetFolder(TransformersFolder):
    """transformers compiles its BitNet layers, for a minute and again for every length; here it does not."""

    def logits(self, ids: Sequence[int]) -> Tensor | None:
        with torch.compiler.set_stance("force_eager"):
            return super().logits(ids)


class MengyaFolder(TransformersFolder):
    """A quantized folder as mengya loads it, its tokenizer and stop tokens as transformers does."""

    def __init__(self, folder: Path, why: str) -> None:
        self.program = f"mengya {__version__} ({why})"
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        self._tokenizer = tokenizer
        self._full = load_dequantized(folder).eval()
        self._generation = GenerationConfig.from_pretrained(str(folder), local_files_only=True)

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> Tensor | None:
        return self._full(torch.tensor([list(ids)])).head_output[0].float()

    def stop_token_ids(self) -> set[int] | None:
        stop = self._generation.eos_token_id
        return set() if stop is None else {stop} if isinstance(stop, int) else set(stop)
