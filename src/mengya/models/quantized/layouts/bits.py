"""Small numbers end to end in 32-bit words, low bits first: how GPTQ and compressed-tensors keep codes.

With 3 bits, numbers 10 and 21 of every 32 are cut in two by the end of a word.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mengya.runtime.integers import ceil_div

_WORD = 32


def word_count(numbers: int, bits: int) -> int:
    """Words that so many numbers take."""
    return ceil_div(numbers * bits, _WORD)


def pack_bits(codes_RC: Tensor, bits: int) -> Tensor:
    """Rows of numbers below 2^bits -> [R, word_count(C)] int32."""
    R, C = codes_RC.shape
    codes = F.pad(codes_RC.to(torch.int32), (0, -C % _WORD)).view(R, -1, _WORD)
    words = codes.new_zeros(R, codes.shape[1], bits)
    for place in range(_WORD):
        word, shift = divmod(place * bits, _WORD)
        words[..., word] |= codes[..., place] << shift
        if shift + bits > _WORD:
            words[..., word + 1] |= codes[..., place] >> (_WORD - shift)
    return words.flatten(1)[:, : word_count(C, bits)].contiguous()


def unpack_bits(words_RW: Tensor, bits: int, columns: int) -> Tensor:
    """The inverse of `pack_bits`: [R, columns] uint8."""
    R, W = words_RW.shape
    words = F.pad(words_RW, (0, -W % bits)).view(R, -1, bits)
    codes = words.new_empty(R, words.shape[1], _WORD, dtype=torch.uint8)
    mask = (1 << bits) - 1
    for place in range(_WORD):
        word, shift = divmod(place * bits, _WORD)
        found = words[..., word] >> shift  # copies the sign, which the masks take away
        if shift + bits > _WORD:
            here = _WORD - shift
            found = (found & ((1 << here) - 1)) | (words[..., word + 1] << here)
        codes[..., place] = (found & mask).to(torch.uint8)
    return codes.flatten(1)[:, :columns].contiguous()
