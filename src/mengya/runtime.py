"""The machine under a run: device, precision, memory allocator, random numbers, whole-or-nothing files.

Knows nothing of models or data. torch is imported inside the functions, so that modules which only
write files stay light.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from mengya.config import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "bf16", "fp16", "fp32", "fp8"]


def pick_device(name: DeviceName = "auto") -> torch.device:
    """The device of this process; with several GPUs each local rank takes its own.

    Raises:
        UserError: when the device named is not there.
    """
    import torch

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


@cache
def has_triton() -> bool:
    """Whether Triton is installed: PyTorch for CUDA on Linux brings it, a CPU build comes without.

    Code that torch.compile traces keeps the answer as a constant: the compiler would look through the
    cache and trace the search itself, with a warning.
    """
    return importlib.util.find_spec("triton") is not None


def tune_cpu_allocator() -> None:
    """Keep freed memory in the process (glibc only); must run before large tensors are made.

    By default glibc maps and unmaps every tensor above a threshold, and the page faults cost a
    training step on CPU about a quarter of its time (docs/results.md).
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # a libc without mallopt: nothing to tune
        libc = ctypes.CDLL(None)
        m_mmap_max, m_trim_threshold = -4, -1
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)


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


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step, so that the random numbers of a run are a function of its position."""
    import torch

    text = f"{seed}/{step}/{rank}".encode()
    torch.manual_seed(int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little"))


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise UserError(f"{module} is not installed: pip install 'mengya[{extra}]'") from None


def write_text(path: Path, text: str) -> None:
    """Replace a file whole: a reader, or a crash half-way, sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and itself, to disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(FileNotFoundError):  # another process may rename its own while we look
            sync_path(path)
    sync_path(folder)


def point_link(link: Path, target: str) -> None:
    """Make or move a relative symbolic link in one step."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def sync_path(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
