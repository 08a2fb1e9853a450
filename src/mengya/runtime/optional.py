"""Optional dependencies: imported where they are used, named with their remedy where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from mengya.errors import UserError


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise UserError(f"{module} is not installed: pip install 'mengya[{extra}]'") from None
