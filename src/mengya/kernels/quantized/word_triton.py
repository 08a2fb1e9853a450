# pyright: reportArgumentType=false, reportOperatorIssue=false
"""The Triton kernels of word_weight.py: products with, and unpacking of, codes in words (words.py).

Only word_weight.py imports this. Needs Triton. Letters: M rows of x, O outputs, I inputs, G groups, W words
of an output; BO, BM, BW those of a program. P codes are in a word of BITS each, RUN columns apart.
"""

from __future__ import annotations

# Triton's operators are typed as never returning:
# pyright: reportGeneralTypeIssues=false
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
def _column(word, RUN: tl.constexpr, P: tl.constexpr):
    """The column of a word's first code."""
    return (word // RUN) * (RUN * P) + word % RUN


@triton.jit
def _above_one(packed, j: tl.constexpr, BITS: tl.constexpr):
    """1 + code / 2^BITS of each word's code j, fp32: its bits put where the mantissa begins.

    Two operations; a conversion from an integer alone runs at a quarter of their speed.
    """
    PLACE: tl.constexpr = 23 - BITS
    MASK: tl.constexpr = ((1 << BITS) - 1) << PLACE
    if j * BITS > PLACE:  # noqa: SIM108 (decided when it is compiled)
        moved = packed >> (j * BITS - PLACE)
    else:
        moved = packed << (PLACE - j * BITS)
    return ((moved & MASK) | 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
def _load_words(
    words, scale, zero, output, word, O, W, G, words_per_group,
    MIDDLE: tl.constexpr, SYMMETRIC: tl.constexpr,
):  # fmt: skip
    """Words, scales and zero points of a tile, [BO, BW]; outside of the matrix the scale is 0."""
    inside = (output < O)[:, None] & (word < W)[None, :]
    packed = tl.load(words + output[:, None].to(tl.int64) * W + word[None, :], inside, 0)
    place = output[:, None] * G + (word // words_per_group)[None, :]
    factor = tl.load(scale + place, inside, 0.0)
    if SYMMETRIC:
        return packed, factor, tl.full(packed.shape, MIDDLE, tl.float32)
    return packed, factor, tl.load(zero + place, inside, 0).to(tl.float32)


@triton.jit
def multiply_one_row(
    x, words, scale, zero, out, chosen, O, I, W, G, words_per_group, x_stride, share,
    BITS: tl.constexpr, RUN: tl.constexpr, MIDDLE: tl.constexpr, SYMMETRIC: tl.constexpr,
    CHOSEN: tl.constexpr, BO: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """BO outputs of one row of x: multiplied and added in fp32, threads added up once at the end.

    CHOSEN: the matrix is a stack of matrices of O outputs each, and `chosen` says which one a row of the
    result is of; `share` rows of it are of one row of x.
    """
    P: tl.constexpr = 32 // BITS
    result_row = tl.program_id(1).to(tl.int64)
    output = tl.program_id(0) * BO + tl.arange(0, BO)
    row = x + (result_row // share) * x_stride
    if CHOSEN:
        matrix = tl.load(chosen + result_row).to(tl.int64) * O
        words += matrix * W
        scale += matrix * G
        zero += matrix * G
    acc = tl.zeros([BO, BW], tl.float32)
    for first in range(0, W, BW):
        word = first + tl.arange(0, BW)
        packed, factor, middle = _load_words(
            words, scale, zero, output, word, O, W, G, words_per_group, MIDDLE, SYMMETRIC
        )
        column = _column(word, RUN, P)
        # sum of (code - middle) x = 2^BITS (sum of (1 + code / 2^BITS) x - (1 + middle / 2^BITS) sum of x)
        part = tl.zeros([BO, BW], tl.float32)
        total = tl.zeros([BW], tl.float32)
        for j in tl.static_range(P):
            value = tl.load(row + column + j * RUN, column + j * RUN < I, 0.0).to(tl.float32)
            part += _above_one(packed, j, BITS) * value[None, :]
            total += value
        part -= (1 + middle * (1.0 / (1 << BITS))) * total[None, :]
        acc += part * (factor * (1 << BITS))
    result = tl.sum(acc, 1).to(out.dtype.element_ty)
    tl.store(out + result_row * O + output, result, output < O)


@triton.jit
def multiply_rows(
    x, words, scale, zero, out, M, O, I, W, G, words_per_group, x_stride, words_per_split,
    BITS: tl.constexpr, RUN: tl.constexpr, MIDDLE: tl.constexpr, SYMMETRIC: tl.constexpr,
    BO: tl.constexpr, BM: tl.constexpr, BW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BO outputs of BM rows on tensor cores, of one part of the words: out is [parts, M, O]."""
    P: tl.constexpr = 32 // BITS
    output = tl.program_id(0) * BO + tl.arange(0, BO)
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    begin = tl.program_id(2) * words_per_split
    end = tl.minimum(begin + words_per_split, W)
    acc = tl.zeros([BO, BM], tl.float32)
    for first in range(begin, end, BW):
        word = first + tl.arange(0, BW)
        packed, factor, middle = _load_words(
            words, scale, zero, output, word, O, W, G, words_per_group, MIDDLE, SYMMETRIC
        )
        column = _column(word, RUN, P)
        slope = factor * (1 << BITS)
        offset = -(middle + (1 << BITS)) * factor
        for j in tl.static_range(P):
            here = column + j * RUN
            inside = (row < M)[:, None] & ((here < I) & (word < end))[None, :]
            value = tl.load(x + row[:, None].to(tl.int64) * x_stride + here[None, :], inside, 0.0)
            weight = tl.fma(_above_one(packed, j, BITS), slope, offset).to(value.dtype)
            acc = tl.dot(weight, tl.trans(value), acc, input_precision=PRECISION)
    place = (tl.program_id(2) * M + row).to(tl.int64)[None, :] * O + output[:, None]
    inside = (row < M)[None, :] & (output < O)[:, None]
    tl.store(out + place, acc.to(out.dtype.element_ty), inside)


@triton.jit
def add_parts(parts, out, numbers, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """out = sum of [PARTS, numbers] fp32, in their order."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for part in tl.static_range(PARTS):
        total += tl.load(parts + part * numbers + place, place < numbers, 0.0)
    tl.store(out + place, total.to(out.dtype.element_ty), place < numbers)


@triton.jit
def unpack(
    words, scale, zero, out, O, I, W, G, words_per_group,
    BITS: tl.constexpr, RUN: tl.constexpr, MIDDLE: tl.constexpr, SYMMETRIC: tl.constexpr,
    BO: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """The weights of a tile of words, into [O, I]."""
    P: tl.constexpr = 32 // BITS
    output = tl.program_id(0) * BO + tl.arange(0, BO)
    word = tl.program_id(1) * BW + tl.arange(0, BW)
    packed, factor, middle = _load_words(
        words, scale, zero, output, word, O, W, G, words_per_group, MIDDLE, SYMMETRIC
    )
    column = _column(word, RUN, P)
    for j in tl.static_range(P):
        here = column + j * RUN
        inside = (output < O)[:, None] & ((here < I) & (word < W))[None, :]
        code = ((packed >> (j * BITS)) & ((1 << BITS) - 1)).to(tl.float32)
        weight = ((code - middle) * factor).to(out.dtype.element_ty)
        tl.store(out + output[:, None].to(tl.int64) * I + here[None, :], weight, inside)
