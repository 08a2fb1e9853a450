"""Whether Triton kernels can be compiled here."""

from __future__ import annotations

import importlib.util
from functools import cache


@cache
def has_triton() -> bool:
    """Whether Triton is installed: PyTorch for CUDA on Linux brings it, CPU builds do not ship it.

    Code that torch.compile traces keeps the answer as a constant: the compiler would trace the search,
    with a warning.
    """
    return importlib.util.find_spec("triton") is not None
