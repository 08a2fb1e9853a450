"""Experts in one stack against the reference on their dequantized weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from mengya.kernels.experts.reference import grouped_experts
from mengya.kernels.quantized.experts import ExpertStack, stack_experts
from mengya.kernels.quantized.op import DequantizedWeight
from mengya.kernels.quantized.weight import QuantizedWeight, Scheme
from mengya.kernels.quantized.word_weight import WordWeight
from tests.helpers.triton_interpreter import Interpret
from tests.kernels.quantized.cases import random_weight

EXPERTS, HIDDEN, WIDTH = 3, 32, 16
Expert = list[QuantizedWeight]


def draw() -> list[Expert]:
    scheme = Scheme(4, 16, symmetric=False)
    shapes = ((WIDTH, HIDDEN), (WIDTH, HIDDEN), (HIDDEN, WIDTH))
    return [
        [random_weight(scheme, *shape, seed=3 * e + i) for i, shape in enumerate(shapes)]
        for e in range(EXPERTS)
    ]


def stack(experts: list[Expert], device: str) -> ExpertStack:
    packed = [[WordWeight(w.to(device)) for w in expert] for expert in experts]
    found = stack_experts(packed)
    assert found is not None
    return found


def check(device: str, dtype: torch.dtype) -> None:
    experts = draw()
    gate_up = torch.stack([torch.cat((g.dequantize(), u.dequantize())) for g, u, _ in experts])
    down = torch.stack([d.dequantize() for _, _, d in experts])
    stacked = stack(experts, device)
    for tokens in (2, 33):
        x = torch.randn(tokens, HIDDEN).to(dtype)
        weights, chosen = torch.rand(tokens, EXPERTS).topk(2)
        expected = grouped_experts(x.float(), weights, chosen, gate_up, down)
        out = stacked(x.to(device), weights.to(device), chosen.to(device))
        assert out.dtype == dtype
        tolerance = 2e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(out.float().cpu(), expected, rtol=tolerance, atol=tolerance)


def test_stack_equals_the_reference_in_the_interpreter(interpret: Interpret) -> None:
    interpret(partial(check, "cpu", torch.float32))


def test_experts_of_other_kernels_have_no_stack() -> None:
    full = [[DequantizedWeight(w, torch.float32) for w in expert] for expert in draw()]
    assert stack_experts(full) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_stack_equals_the_reference_on_the_gpu() -> None:
    check("cuda", torch.bfloat16)
