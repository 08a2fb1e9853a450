"""The device of this process, its CPU threads, the dtype it computes in, and its memory allocator.

torch is imported inside the functions, so that modules which only name a device stay light.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from mengya.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch

log = logging.getLogger(__name__)
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "bf16", "fp16", "fp32", "fp8"]


def init_device(name: DeviceName = "auto", threads: int | None = None) -> torch.device:
    """The device of this process; with several GPUs each local rank takes its own.

    Call it in the thread that computes: OpenMP keeps the number of threads for each thread that asks.

    Args:
        threads: that share a computation on the CPU; None: as many as torch chooses.

    Raises:
        UserError: when the named device is not available.
    """
    import torch

    if threads is not None:
        if threads > (cores := usable_cores()):
            log.warning(
                "threads=%d: this process may use %d cores, and more threads than cores wait for one "
                "another; threads=%d would be faster", threads, cores, cores,
            )  # fmt: skip
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UserError("device=cuda, but torch sees no CUDA device; write device=cpu or auto")
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"local rank {local_rank} has no GPU: this host has {torch.cuda.device_count()}; "
                "start torchrun with --nproc_per_node of at most that many"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        return device
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps, but this torch has no Metal device; write device=cpu or auto")
    if name == "cpu":
        tune_cpu_allocator()
    return torch.device(name)


def usable_cores() -> int:
    """CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pick_autocast_dtype(precision: PrecisionName, device: torch.device) -> torch.dtype | None:
    """The dtype of matrix products, or None for fp32 throughout.

    `auto` takes bf16 where the hardware computes it: on a CPU without bf16 instructions autocast
    would be slower than fp32, not faster.
    """
    import torch

    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.bfloat16 if device.type == "cpu" and cpu_has_bf16() else None
    if precision == "fp16" and device.type == "cpu":
        raise UserError("precision=fp16 needs a GPU; on a CPU write precision=bf16, fp32 or auto")
    if precision == "fp8":  # feed-forward layers (fp8_layers.py); all else is bf16
        return torch.bfloat16
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}[precision]


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AVX512_BF16 or AMX)."""
    import torch

    with suppress(AttributeError, RuntimeError):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def tune_cpu_allocator() -> None:
    """Keep freed memory in the process (glibc only); must run before large tensors are made.

    By default glibc maps and unmaps every tensor above a threshold, and the page faults cost a
    training step on CPU about a quarter of its time (docs/log/2026-11-28-demo.md).
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # a libc without mallopt: nothing to tune
        libc = ctypes.CDLL(None)
        m_mmap_max, m_trim_threshold = -4, -1
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)


def release_freed_memory() -> None:
    """Give back what large tensors took that nobody holds any more: to the GPU, to the system.

    Slow (all objects of the process are looked at): after a model was dropped, not in a loop.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # `tune_cpu_allocator` keeps it otherwise
            ctypes.CDLL(None).malloc_trim(0)


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A tensor with these numbers; on a CPU it shares their memory.

    On CUDA the copy goes through pinned memory and is not waited for.
    """
    import torch

    tensor = torch.from_numpy(array)
    if device.type == "cuda" and tensor.numel():
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        # By numpy: torch wakes all its threads for 32 k numbers, which takes milliseconds.
        pinned.numpy()[...] = array
        return pinned.to(device, non_blocking=True)
    return tensor.to(device)
