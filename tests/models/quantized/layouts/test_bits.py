"""Packed bits against a number of as many bits, which Python has."""

from __future__ import annotations

import pytest
import torch

from mengya.models.quantized.layouts.bits import pack_bits, unpack_bits, word_count


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("columns", [1, 31, 32, 33, 80])
def test_codes_lie_end_to_end_from_the_lowest_bit(bits: int, columns: int) -> None:
    codes = torch.randint(0, 1 << bits, (3, columns), dtype=torch.uint8)
    codes[1] = (1 << bits) - 1  # also the sign of every word
    words = pack_bits(codes, bits)
    assert words.dtype == torch.int32 and words.shape == (3, word_count(columns, bits))
    for row, packed in zip(codes.tolist(), words.tolist(), strict=True):
        number = sum(code << (place * bits) for place, code in enumerate(row))
        assert packed == [
            ((number >> (32 * w)) & 0xFFFFFFFF) - ((number >> (32 * w + 31) & 1) << 32)
            for w in range(len(packed))
        ]
    assert unpack_bits(words, bits, columns).equal(codes)
