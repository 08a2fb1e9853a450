"""Products with codes of 2, 3, 4 or 8 bits on CUDA, inputs as they are, by the kernels of word_triton.py.

A few rows (decoding) are bound by the bytes of the weights and by the launch: one kernel multiplies them
as it unpacks, on the plain cores. More rows go to the tensor cores, and above 32 the weights are unpacked
for a full product; their memory is free again afterwards. No step waits for the device and
shapes alone choose the kernel, so a CUDA graph can hold it.
Shapes: M rows, O outputs, I inputs, G groups, W words of an output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.kernels.quantized.packed import PackedWeight, share_rows
from mengya.kernels.quantized.weight import QuantizedWeight
from mengya.kernels.quantized.words import pack_words, sorted_columns, word_layout
from mengya.kernels.triton_available import has_triton
from mengya.runtime.integers import ceil_div

# With more rows, or more rows times codes, the second kernel is faster than the first.
_FEW_ROWS, _FEW_CODES = 6, 4_000_000
TILE_ROWS = 32  # most rows of the second kernel
_PROGRAMS = 264  # two for each processor of an H100
_MOST_PARTS = 16
_MANY_OUTPUTS = 8192


class Tile(NamedTuple):
    """Outputs and words of a program at a time, rows (of `multiply_rows`), and its warps."""

    outputs: int
    words: int
    rows: int
    warps: int


def is_supported(weight: QuantizedWeight, dtype: torch.dtype) -> bool:
    """Integers in groups that `word_layout` knows, on CUDA with Triton."""
    scheme, (_, inputs) = weight.scheme, weight.shape
    floats = dtype in (torch.bfloat16, torch.float16, torch.float32)
    if scheme.number == "float8" or not (weight.codes_OI.is_cuda and has_triton() and floats):
        return False
    weight, _ = sorted_columns(weight)
    return (
        weight.group_I is None
        and word_layout(scheme.bits, weight.scale_OG.shape[1], inputs).run > 0
    )


class WordWeight(PackedWeight):
    """A matrix whose codes lie in int32 words.

    Attributes:
        words_OW, scale_OG: int32 and fp32.
        zero_OG: uint8; None where all are `middle`.
        order_I: the order in which the columns are stored; None: their own.
    """

    def __init__(self, weight: QuantizedWeight) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        weight, order_I = sorted_columns(weight)
        scheme, scale_OG, zero_OG = weight.scheme, weight.scale_OG, weight.zero_OG
        assert zero_OG is not None  # integers have zero points
        self.layout = word_layout(scheme.bits, scale_OG.shape[1], self.in_features)
        self.middle = 1 if scheme.number == "ternary" else 1 << (scheme.bits - 1)
        scale_OG = scale_OG.expand(self.out_features, -1).float().contiguous()
        zero_OG = zero_OG.expand_as(scale_OG).contiguous()
        same = bool((zero_OG == self.middle).all())
        self._store(
            pack_words(weight.codes_OI, self.layout), scale_OG, None if same else zero_OG, order_I
        )

    def _store(
        self, words_OW: Tensor, scale_OG: Tensor, zero_OG: Tensor | None, order_I: Tensor | None
    ) -> None:
        self.register_buffer("words_OW", words_OW)
        self.register_buffer("scale_OG", scale_OG)
        self.register_buffer("zero_OG", zero_OG)
        self.register_buffer("order_I", order_I)
        self.words_OW: Tensor
        self.scale_OG: Tensor
        self.zero_OG: Tensor | None
        self.order_I: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        x_MI = x.reshape(-1, self.in_features)
        if self.order_I is not None:
            x_MI = x_MI.index_select(1, self.order_I)
        x_MI = x_MI if x_MI.stride(1) == 1 else x_MI.contiguous()
        M = len(x_MI)
        few = M <= _FEW_ROWS and M * self.in_features * self.out_features <= _FEW_CODES
        if M == 1 or few:
            out_MO = multiply_one_row(self, x_MI)
        elif M <= TILE_ROWS:
            out_MO = multiply_rows(self, x_MI)
        else:
            out_MO = F.linear(x_MI, unpack(self, x.dtype))
        return out_MO.unflatten(0, x.shape[:-1]) if x.dim() != 2 else out_MO

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        weight_OI = unpack(self, dtype)
        return weight_OI if self.order_I is None else weight_OI[:, self.order_I.argsort()]

    def merge(self, others: Sequence[PackedWeight]) -> PackedWeight | None:
        if not all(type(other) is WordWeight and self._same_columns(other) for other in others):
            return None
        parts = [self, *cast(Sequence[WordWeight], others)]
        merged = WordWeight.__new__(WordWeight)
        PackedWeight.__init__(merged)
        merged.out_features = sum(part.out_features for part in parts)
        merged.in_features, merged.layout, merged.middle = (
            self.in_features,
            self.layout,
            self.middle,
        )
        words, word_pieces = share_rows([part.words_OW for part in parts])
        scales, scale_pieces = share_rows([part.scale_OG for part in parts])
        zeros, zero_pieces = None, [None] * len(parts)
        if self.zero_OG is not None:
            zeros, zero_pieces = share_rows([part.get_buffer("zero_OG") for part in parts])
        merged._store(words, scales, zeros, None)
        for part, *pieces in zip(parts, word_pieces, scale_pieces, zero_pieces, strict=True):
            part._store(*pieces, None)
        return merged

    def _same_columns(self, other: WordWeight) -> bool:
        """Whether both may be one matrix; orders of columns are not compared."""
        mine, its = (
            (
                part.in_features,
                part.layout,
                part.middle,
                part.scale_OG.shape[1],
                part.zero_OG is None,
            )
            for part in (self, other)
        )
        return mine == its and self.order_I is None and other.order_I is None


def multiply_one_row(weight: WordWeight, x_MI: Tensor, tile: Tile | None = None) -> Tensor:
    """[M, O]; each row reads the weights again, from the cache."""
    out_MO = x_MI.new_empty(len(x_MI), weight.out_features)
    return _launch_one_row(weight, x_MI, out_MO, None, tile or one_row_tile(weight))


def multiply_chosen(
    stack: WordWeight, matrices: int, x_NI: Tensor, chosen_Nk: Tensor, share: int
) -> Tensor:
    """Products with some of the matrices that `stack` holds below one another: [N k, outputs of one].

    Args:
        chosen_Nk: the number of the matrix of each row of the result; read on the device.
        share: rows of the result that are of one row of x.
    """
    out = x_NI.new_empty(chosen_Nk.numel(), stack.out_features // matrices)
    return _launch_one_row(stack, x_NI, out, chosen_Nk.contiguous(), one_row_tile(stack), share)


def _launch_one_row(
    weight: WordWeight, x: Tensor, out: Tensor, chosen: Tensor | None, tile: Tile, share: int = 1
) -> Tensor:
    from mengya.kernels.quantized import word_triton

    M, O = out.shape
    kernel: Any = word_triton.multiply_one_row
    kernel[ceil_div(O, tile.outputs), M](
        x, *_tensors(weight), out, out if chosen is None else chosen, O, x.shape[1], *_sizes(weight),
        x.stride(0), share, **_constants(weight), CHOSEN=chosen is not None,
        BO=tile.outputs, BW=tile.words, num_warps=tile.warps,
    )  # fmt: skip
    return out


def multiply_rows(
    weight: WordWeight, x_MI: Tensor, tile: Tile | None = None, parts: int | None = None
) -> Tensor:
    """[M, O]; with few programs each is split over its words, and `add_parts` adds the sums."""
    from mengya.kernels.quantized import word_triton

    (M, I), O = x_MI.shape, weight.out_features
    tile = tile or rows_tile(M)
    W = weight.words_OW.shape[1]
    grid = ceil_div(O, tile.outputs), ceil_div(M, tile.rows)
    parts = parts or part_count(grid[0] * grid[1], ceil_div(W, tile.words))
    out_MO = x_MI.new_empty(M, O)
    sums = out_MO if parts == 1 else x_MI.new_empty(parts, M, O, dtype=torch.float32)
    kernel: Any = word_triton.multiply_rows
    kernel[*grid, parts](
        x_MI, *_tensors(weight), sums, M, O, I, *_sizes(weight), x_MI.stride(0),
        tile.words * ceil_div(ceil_div(W, tile.words), parts), **_constants(weight),
        BO=tile.outputs, BM=tile.rows, BW=tile.words, num_warps=tile.warps, num_stages=2,
        PRECISION="ieee" if x_MI.dtype == torch.float32 else "tf32",
    )  # fmt: skip
    if parts > 1:
        add: Any = word_triton.add_parts
        add[(ceil_div(M * O, 1024),)](sums, out_MO, M * O, PARTS=parts, BLOCK=1024)
    return out_MO


def unpack(weight: WordWeight, dtype: torch.dtype) -> Tensor:
    """The weights with columns in the stored order, [O, I]."""
    from mengya.kernels.quantized import word_triton

    O, I = weight.out_features, weight.in_features
    out_OI = weight.scale_OG.new_empty(O, I, dtype=dtype)
    outputs, words = 16, 64
    kernel: Any = word_triton.unpack
    kernel[ceil_div(O, outputs), ceil_div(weight.words_OW.shape[1], words)](
        *_tensors(weight), out_OI, O, I, *_sizes(weight), **_constants(weight), BO=outputs, BW=words
    )
    return out_OI


def one_row_tile(weight: WordWeight) -> Tile:
    """One warp for 128 words of two outputs; where outputs give work enough, more of them share the inputs.

    Measured on an H200: docs/log/2026-11-30-quantized-speed.md.
    """
    if weight.out_features >= _MANY_OUTPUTS:
        return Tile(8, 64, 1, 1)
    words = max(16, min(256, 1 << (weight.words_OW.shape[1] - 1).bit_length()))
    return Tile(2, words, 1, 2 if words == 256 else 1)


def rows_tile(rows: int) -> Tile:
    """Tiles of up to 32 rows."""
    return Tile(32, 32, max(16, min(TILE_ROWS, 1 << (rows - 1).bit_length())), 2)


def part_count(programs: int, steps: int) -> int:
    """Over how many programs each sum is split: a power of two, so that all processors have work."""
    parts = 1
    while parts < _MOST_PARTS and programs * parts < _PROGRAMS and steps >= 4 * parts:
        parts *= 2
    return parts


def _tensors(weight: WordWeight) -> tuple[Tensor, Tensor, Tensor]:
    zero_OG = weight.scale_OG if weight.zero_OG is None else weight.zero_OG  # else never read
    return weight.words_OW, weight.scale_OG, zero_OG


def _sizes(weight: WordWeight) -> tuple[int, int, int]:
    return weight.words_OW.shape[1], weight.scale_OG.shape[1], weight.layout.words_per_group


def _constants(weight: WordWeight) -> dict[str, Any]:
    layout, symmetric = weight.layout, weight.zero_OG is None
    return {"BITS": layout.bits, "RUN": layout.run, "MIDDLE": weight.middle, "SYMMETRIC": symmetric}
