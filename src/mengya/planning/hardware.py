"""Devices: their peak and memory, and the MFU that training reaches on them.

Takes a device's name or the device of this process; gives FLOP/s and bytes, read from hardware.yaml
in this folder, where every figure has its source. Knows nothing of models.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import time
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml

from mengya.errors import UserError
from mengya.kernels.fp8.self_check import FP8_CAPABILITY
from mengya.runtime.device import cpu_has_bf16

ModelKind = Literal["dense", "moe", "mla"]
RunKind = Literal["compile", "fp8", "eager", "cpu", "cpu-bf16"]


# Of the memory on the box: ECC and driver take from 1 % (H100) to 6 % (T4, L40S: 46,068 of 49,152 MiB).
_USABLE = 0.94


class Device(NamedTuple):
    """One device.

    peak_flops: dense matrix products in the dtype of the run, FLOP/s; None: unknown.
    memory: bytes. bf16, fp8: whether they run in hardware. kind: torch's device type.
    """

    name: str
    kind: Literal["cuda", "cpu", "mps"]
    peak_flops: float | None
    memory: float
    bf16: bool
    fp8: bool = False


class Expected(NamedTuple):
    """The MFU that training is expected to reach.

    estimate: no run of this kind of model was measured, or it is another device than the measured one.
    """

    mfu: float
    source: str
    estimate: bool


def named_device(name: str, half: bool = True) -> Device:
    """A device of hardware.yaml.

    Args:
        half: products in bf16 or fp16; otherwise in fp32, which cards with bf16 do as TF32 at half the rate.

    Raises:
        UserError: unknown; names the known ones and what to give instead.
    """
    known = _table()["devices"]
    plain = re.sub(r"[\s_-]", "", name.lower())
    key = next((key for key in known if key.replace("-", "") == plain), None) or match_device(name)
    if plain.removeprefix("ascend").startswith("910"):
        raise UserError(
            f"device {name!r}: Ascend needs torch_npu, which mengya does not use; it trains on CUDA, "
            "Apple's MPS and CPUs"
        )
    if key is None:
        near = difflib.get_close_matches(plain, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(
            f"device {name!r} is not known{hint}; known are {', '.join(known)}. For another one "
            "write --peak-tflops and --memory-gib from its data sheet (dense, half precision)"
        )
    entry = known[key]
    bf16 = entry.get("bf16", True)
    memory = entry["memory_gib"] * 2**30 * _USABLE
    kind = entry.get("kind", "cuda")
    return Device(key, kind, _rate(entry, half), memory, bf16, entry.get("fp8", False))


def this_device(
    device: torch.device, dtype: torch.dtype | None, product: tuple[int, int, int] | None
) -> Device:
    """The device of this process, its memory as the driver says; on a CPU the peak is measured.

    Args:
        dtype: of matrix products; None: fp32.
        product: rows, inner width and columns of the product that a CPU's peak is measured with; None: the
            peak stays unknown.
    """
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        memory = properties.total_memory
        fp8 = (properties.major, properties.minor) >= FP8_CAPABILITY
        return Device(properties.name, "cuda", peak_flops(device, dtype), memory, bf16, fp8)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if device.type == "mps":
        return Device("mps", "mps", None, memory, True)
    name = f"cpu ({torch.get_num_threads()} threads)"
    peak = None if product is None else measured_peak(dtype, *product)
    return Device(name, "cpu", peak, memory, cpu_has_bf16())


def peak_flops(device: torch.device, dtype: torch.dtype | None) -> float | None:
    """Dense peak of a CUDA device in FLOP/s; None where no data sheet says it (CPUs too)."""
    if device.type != "cuda":
        return None
    return peak_flops_for(torch.cuda.get_device_name(device), dtype)


def peak_flops_for(name: str, dtype: torch.dtype | None) -> float | None:
    """Dense peak by the name that the driver gives."""
    key = match_device(name)
    return None if key is None else _rate(_table()["devices"][key], half=dtype is not None)


def match_device(name: str) -> str | None:
    """The key in hardware.yaml of a device by that key or by the name that its driver gives."""
    entries = _table()["devices"]
    if name in entries:
        return name
    return next((key for key, e in entries.items() if re.search(e["match"], name.lower())), None)


def measured_peak(dtype: torch.dtype | None, rows: int, inner: int, columns: int) -> float:
    """FLOP/s of one matrix product on the CPU, the best of a few; about 0.2 seconds.

    A CPU's rate depends on the size, most of all in bf16: take the sizes of the model.
    """
    a = torch.randn(rows, inner).to(dtype or torch.float32)
    b = torch.randn(inner, columns).to(a.dtype)
    best, started = math.inf, time.perf_counter()
    while time.perf_counter() - started < 0.2:
        before = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - before)
    return 2 * rows * inner * columns / best


def least_seconds(run: RunKind, layers: int, micro_batches: int) -> float:
    """What a step takes however little there is to compute: every kernel is launched, and the host has work.

    Args:
        micro_batches: of one device in a step.
    """
    floor = _table()["floor"]
    return floor["step"] + micro_batches * layers * floor["layer"][run]


def expected_mfu(
    kind: ModelKind, run: RunKind, hidden_size: int, output_share: float, device: Device
) -> Expected:
    """MFU by the measured points of hardware.yaml, near ones counting most; exact where one was measured.

    Args:
        output_share: the output layer's part of the model FLOPs, 0 to 1.
    """
    points = [p for p in _table()["measured"] if p["run"] == run]
    same = [p for p in points if p["kind"] == kind] or points
    weights = []
    for point in same:
        width = math.log2(hidden_size / point["hidden_size"])
        # Twice the width and a fourth more in the output layer are about equally far.
        distance = math.hypot(width, 4 * (output_share - point["output"]))
        weights.append(1 / (distance**2 + 1e-6))
    mfu = sum(w * p["mfu"] for w, p in zip(weights, same, strict=True)) / sum(weights)
    nearest = same[weights.index(max(weights))]
    elsewhere = "device" in nearest and nearest["device"] != match_device(device.name)
    guess = nearest["kind"] != kind or elsewhere
    return Expected(mfu, nearest["source"], guess)


def _rate(entry: dict[str, Any], half: bool) -> float | None:
    if half or entry.get("kind") == "mps":  # whose units do both at one rate
        return entry["tflops"] * 1e12
    return entry["tflops"] * 1e12 / 2 if entry.get("bf16", True) else None


@cache
def _table() -> dict[str, Any]:
    path = Path(__file__).with_name("hardware.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))
