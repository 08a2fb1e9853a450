"""The table of devices is read by the names that drivers give."""

from __future__ import annotations

import timeit

import pytest
import torch

from mengya.planning.hardware import measured_peak, named_device, peak_flops, peak_flops_for

BF16 = torch.bfloat16


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("nvidia h200", 989.4),
        ("nvidia h200 nvl", 835.5),
        ("nvidia h100 80gb hbm3", 989.4),
        ("nvidia h100 pcie", 756.5),
        ("nvidia h100 nvl", None),
        ("nvidia a100-sxm4-40gb", 312),
        ("nvidia geforce rtx 4090", 165.2),
        ("nvidia geforce rtx 4090 laptop gpu", 79.4),
        ("nvidia geforce rtx 4060 laptop gpu", 29.1),
        ("nvidia geforce rtx 2080 ti", 53.8),
        ("nvidia geforce rtx 4070 ti", 80.2),
        ("nvidia geforce rtx 4070 ti super", None),
        ("nvidia geforce rtx 3090 ti", None),
        ("tesla v100-sxm2-32gb", 125),
        ("tesla t4", 65),
        ("nvidia geforce gtx 1080", None),
    ],
)
def test_peaks_by_the_drivers_names(name: str, tflops: float | None) -> None:
    assert peak_flops_for(name, BF16) == (None if tflops is None else tflops * 1e12)


def test_fp32_runs_as_tf32_where_there_is_one() -> None:
    assert peak_flops_for("nvidia a100-sxm4-80gb", None) == 156e12
    assert peak_flops_for("tesla t4", None) is None


def test_a_cpu_has_no_data_sheet_but_can_be_measured() -> None:
    assert peak_flops(torch.device("cpu"), BF16) is None


def test_a_measured_peak_is_that_of_a_product_timed_by_hand() -> None:
    a, b = torch.randn(256, 256), torch.randn(256, 256)

    def timed() -> float:
        """2 * 256^3 operations in the best of 300 products."""
        return 2**25 / min(timeit.repeat(lambda: torch.mm(a, b), number=1, repeat=300))

    before, measured, after = timed(), measured_peak(None, 256, 256, 256), timed()
    assert min(before, after) / 1.6 < measured < 1.6 * max(before, after)


def test_names_are_read_kindly() -> None:
    assert named_device("RTX 4090").name == "rtx4090"
    assert named_device("H100_PCIe").peak_flops == 756.5e12
