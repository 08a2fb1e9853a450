"""The metrics of the steps between two lines of the log: sums that stay on the device till then.

Takes the sums of each step; gives means per item over all ranks, the last gradient norm, and speed.
Knows no model and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class LogWindow:
    """Sums over the steps since the last line.

    Attributes:
        seconds: time of the steps, set by the loop; what the device still has to do included.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._tokens = 0
        self._sums: dict[str, Tensor] = {}
        self._items = torch.zeros((), dtype=torch.int64, device=device)
        self._norm = torch.zeros((), device=device)

    def add(self, sums: Mapping[str, Tensor], items: int, tokens: int, norm: Tensor) -> None:
        """Count a step, without waiting for the device; nothing but its time if `norm` is not finite.

        Args:
            sums: this rank's, scalars on the device; items and tokens: of all ranks.
        """
        applied = norm.isfinite()
        for name, value in sums.items():
            value = torch.where(applied, value, 0.0)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._items = self._items + items * applied
        self._norm = torch.where(applied, norm, self._norm)
        self._tokens += tokens

    def values(self, all_reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means of the applied steps, if there were any, and tokens per second.

        Args:
            all_reduce: sums a tensor on the host over all ranks, which call this together.
        """
        sums = [value.double().cpu() for value in self._sums.values()]
        totals = all_reduce(torch.stack(sums or [torch.zeros(())])).tolist()
        values = {"tokens_per_second": self._tokens / max(self.seconds, 1e-9)}
        items = int(self._items)
        if items:
            values |= {name: value / items for name, value in zip(self._sums, totals, strict=True)}
            values["grad_norm"] = float(self._norm)
        return values
