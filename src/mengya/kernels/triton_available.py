"""Whether Triton kernels can be compiled here."""

from __future__ import annotations

import importlib.util
from functools import cache


@cache
def has_triton() -> bool:
    """Whether Triton is installed: PyTorch for CUDA on Linux brings it, a CPU build comes without.

    Code that torch.compile traces keeps the answer as a constant: the compiler would look through the
    cache and trace the search itself, with a warning.
    """
    return importlib.util.find_spec("triton") is not None
