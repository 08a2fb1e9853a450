"""Optional dependencies: imported where they are used; a missing one names the command that installs it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from mengya.errors import UserError

# The folder of pyproject.toml in an editable install, or in a clone that was not installed.
_ROOT = Path(__file__).parents[3]


def require(module: str, extra: str) -> ModuleType:
    """Import the optional dependency `module`, which the extra `extra` of pyproject.toml installs.

    Raises:
        UserError: it is not installed; says what to type.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise UserError(f"{module} is not installed; {install_command(extra)}") from None


def install_command(extra: str) -> str:
    """How to install an extra: in the clone, and from any other folder where the clone is known.

    mengya is installed from its clone: the name `mengya` of PyPI is not this project.
    """
    command = f"type in the clone of mengya: pip install -e '.[{extra}]'"
    if not (_ROOT / "pyproject.toml").is_file():  # a wheel: the clone's place is not known
        return command
    return f"{command} (from another folder: pip install -e '{_ROOT}[{extra}]')"
