"""The types of a GGUF file, and which of them each tensor is stored in.

Takes tensor names and shapes; knows no model. `type=Q4_K_M` and its like are mixtures that llama.cpp alone
makes (llama_cpp.quantize); all others are written here, with the numpy code of the package `gguf`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

TypeName = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q4_0",
    "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K",
    "TQ1_0", "TQ2_0",
]  # fmt: skip

FILE_TYPES: dict[TypeName, LlamaFileType] = {
    "F32": LlamaFileType.ALL_F32, "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16, "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0, "Q6_K": LlamaFileType.MOSTLY_Q6_K,
    "Q5_K_M": LlamaFileType.MOSTLY_Q5_K_M, "Q4_K_M": LlamaFileType.MOSTLY_Q4_K_M,
    "Q3_K_M": LlamaFileType.MOSTLY_Q3_K_M, "Q2_K": LlamaFileType.MOSTLY_Q2_K,
    "TQ1_0": LlamaFileType.MOSTLY_TQ1_0, "TQ2_0": LlamaFileType.MOSTLY_TQ2_0,
}  # fmt: skip
TERNARY: tuple[TypeName, ...] = ("TQ1_0", "TQ2_0")
BY_LLAMA_CPP: tuple[TypeName, ...] = ("Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")

_K_BLOCK = 256
_F32, _F16 = GGMLQuantizationType.F32, GGMLQuantizationType.F16
_Q8 = GGMLQuantizationType.Q8_0
_FULL = (_F32, _F16, GGMLQuantizationType.BF16)


def tensor_type(
    name: str, shape: Sequence[int], type_name: TypeName, tied: bool
) -> GGMLQuantizationType:
    """What one tensor of a file of that type is stored in, as llama.cpp itself chooses.

    Vectors, norms and routers stay F32. The output matrix of a 4-bit or ternary file has 8 bits (llama.cpp
    takes Q6_K, which numpy cannot write). A row that is no multiple of the block is F16; ternary ones are
    Q8_0 where they can, which holds them exactly.

    Args:
        type_name: of those in `BY_LLAMA_CPP`: what the file is made of that llama.cpp takes.
        tied: the embedding is the output matrix too.
    """
    wanted = _F32 if type_name in BY_LLAMA_CPP else GGMLQuantizationType[type_name]
    if len(shape) < 2 or not name.endswith(".weight") or "_norm." in name or "ffn_gate_inp" in name:
        return _F32
    is_output = name == "output.weight" or (tied and name == "token_embd.weight")
    if wanted not in _FULL and (
        is_output or (type_name in TERNARY and name == "token_embd.weight")
    ):
        wanted = _Q8
    if type_name in TERNARY and not _fits(shape, wanted):
        wanted = _Q8
    return wanted if _fits(shape, wanted) else _F16


def falls_back(name: str, shape: Sequence[int], type_name: TypeName, tied: bool) -> bool:
    """Whether the width of the rows alone forbids the type that the tensor would have."""
    if type_name in BY_LLAMA_CPP:
        quantized = tensor_type(name, (*shape[:-1], _K_BLOCK), "Q4_0", tied) != _F32
        return quantized and shape[-1] % _K_BLOCK != 0
    wide = (*shape[:-1], _K_BLOCK)  # a multiple of every block
    return tensor_type(name, shape, type_name, tied) != tensor_type(name, wide, type_name, tied)


def _fits(shape: Sequence[int], kind: GGMLQuantizationType) -> bool:
    return shape[-1] % GGML_QUANT_SIZES[kind][0] == 0
