"""A copy of tensors in host memory, made without stopping the device.

On CUDA the copies run on a stream of their own into page-locked memory, overlapping the next forward and
backward pass; weights and moments change only in the optimizer's update, which `before_update` orders
after them. So no second copy on the device is needed. Elsewhere the copy is made at once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class HostSnapshot:
    """Host memory for one set of tensors, allocated by the first `copy` and reused by the next.

    The process keeps as much host memory as one checkpoint is large.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._stream = torch.cuda.Stream(device) if self._cuda is not None else None
        self._copied: torch.Event | None = None
        self._memory: dict[str, Tensor] = {}  # by group/name

    def copy(self, groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Start to copy named groups of tensors; the result may be read after `wait`, until the next `copy`.

        Names of one and the same tensor (tied weights, fp32 weights saved twice) share one copy.
        """
        copies: dict[str, dict[str, Tensor]] = {name: {} for name in groups}
        done: dict[tuple[object, ...], Tensor] = {}
        memory, self._memory = self._memory, {}
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._cuda))
        with torch.no_grad(), torch.cuda.stream(self._stream):
            for group, tensors in groups.items():
                for name, tensor in tensors.items():
                    key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
                    if tensor.numel() == 0 or key not in done:
                        place = f"{group}/{name}"
                        host = self._memory[place] = _reuse(memory.get(place), tensor)
                        done[key] = host.copy_(tensor, non_blocking=tensor.is_cuda)
                    copies[group][name] = done[key]
        if self._stream is not None:
            self._copied = self._stream.record_event()
        return copies

    def before_update(self) -> None:
        """Called before tensors are changed: the device, not the host, waits for the copy."""
        if self._copied is not None:
            torch.cuda.current_stream(self._cuda).wait_event(self._copied)

    def wait(self) -> None:
        """Block this thread until the copy is complete."""
        if self._copied is not None:
            self._copied.synchronize()


def _reuse(memory: Tensor | None, tensor: Tensor) -> Tensor:
    if memory is not None and memory.shape == tensor.shape and memory.dtype == tensor.dtype:
        return memory
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
