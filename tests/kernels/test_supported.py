"""Triton on a machine without CUDA changes nothing: no kernel is supported there."""

from __future__ import annotations

import torch

from mengya.kernels import qkv, swiglu
from mengya.kernels.attention import document, paged
from mengya.kernels.fp8.self_check import find_fault

CPU = torch.device("cpu")


def test_no_kernel_is_supported_on_a_cpu() -> None:
    x = torch.randn(4, 64, dtype=torch.bfloat16)
    assert not swiglu.is_supported(x)
    assert not qkv.is_supported(x, 32, 32)
    assert not document.is_supported(CPU, torch.bfloat16, 64)
    assert not paged.is_supported(CPU)
    fault = find_fault(CPU)
    assert fault is not None and "GPU" in fault
