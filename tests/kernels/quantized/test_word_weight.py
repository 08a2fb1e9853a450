"""The Triton kernels against the dequantized matrix: in Triton's interpreter on a CPU, compiled on a GPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from mengya.kernels.quantized import word_weight
from mengya.kernels.quantized.op import pack
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.kernels.quantized.word_weight import WordWeight
from mengya.kernels.quantized.words import word_layout
from tests.helpers.triton_interpreter import Interpret
from tests.kernels.quantized.cases import random_weight

SCHEMES = [
    Scheme(4, 128, symmetric=False), Scheme(3, 32), Scheme(2, 64), Scheme(8, 48, symmetric=False),
    Scheme(8), Scheme(2, number="ternary"),
]  # fmt: skip
ROWS = (2, 7, 33)  # one for each kernel


def check(device: str) -> None:
    for scheme in SCHEMES:
        inputs = 2 * (scheme.group_size or 50)
        check_weight(random_weight(scheme, 9, inputs).to(device), torch.float32)
    ordered = random_weight(Scheme(4, 16), 9, 64, act_order=True).to(device)
    check_weight(ordered, torch.float32)
    # Triton's interpreter multiplies no bf16.
    half = torch.float16 if device == "cpu" else torch.bfloat16
    check_weight(random_weight(Scheme(4, 64), 40, 128).to(device), half)


def check_weight(weight: QuantizedWeight, dtype: torch.dtype) -> None:
    packed, full = WordWeight(weight), weight.dequantize()
    torch.testing.assert_close(packed.dequantize(torch.float32), full, rtol=1e-6, atol=0)
    tolerance = 2e-5 if dtype == torch.float32 else 2e-2
    for rows in ROWS:
        x = torch.randn(1, rows, weight.shape[1], device=full.device).to(dtype)
        out = packed(x)
        assert out.dtype == dtype
        expected = F.linear(x.float(), full)
        torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=tolerance)


def check_split_sums() -> None:
    weight = random_weight(Scheme(4, 64), 24, 2048)
    x = torch.randn(6, 2048)
    out = word_weight.multiply_rows(WordWeight(weight), x, parts=4)
    torch.testing.assert_close(out, F.linear(x, weight.dequantize()), rtol=2e-5, atol=2e-5)


def check_merge() -> None:
    weights = [random_weight(Scheme(4, 64), rows, 128, seed=rows) for rows in (16, 40)]
    first, second = (WordWeight(weight) for weight in weights)
    x = torch.randn(2, 128)
    apart = torch.cat([first(x), second(x)], 1)
    merged = first.merge([second])
    assert merged is not None and merged.out_features == 56
    torch.testing.assert_close(merged(x), apart, rtol=0, atol=0)
    torch.testing.assert_close(second(x), apart[:, 16:], rtol=0, atol=0)
    assert second.words_OW.untyped_storage().data_ptr() == (
        merged.get_buffer("words_OW").untyped_storage().data_ptr()
    )
    other = WordWeight(random_weight(Scheme(4, 32), 8, 128))
    assert first.merge([other]) is None


def test_kernels_equal_the_dequantized_matrix_in_the_interpreter(interpret: Interpret) -> None:
    interpret(partial(check, "cpu"))


def test_split_sums_are_added(interpret: Interpret) -> None:
    interpret(check_split_sums)


def test_merged_matrices_share_memory(interpret: Interpret) -> None:
    interpret(check_merge)


def test_columns_of_a_word_share_a_scale() -> None:
    for bits in (2, 3, 4, 8):
        for size in (16, 32, 48, 64, 96, 128, 256):
            layout = word_layout(bits, 3, 3 * size)
            assert size % layout.columns == 0 and layout.run > 0
    assert word_layout(4, 10, 100).run == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_equal_the_dequantized_matrix_on_the_gpu() -> None:
    check("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_products_can_be_recorded_in_a_graph() -> None:
    weight = random_weight(Scheme(4, 128), 768, 2432 + 128).to("cuda")
    packed = pack(weight, torch.bfloat16)
    assert isinstance(packed, WordWeight)
    for rows in (1, 16, 96):
        x = torch.randn(rows, weight.shape[1], device="cuda", dtype=torch.bfloat16)
        packed(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = packed(x)
        x.normal_()
        graph.replay()
        torch.testing.assert_close(out, packed(x), rtol=0, atol=0)
