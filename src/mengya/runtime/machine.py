"""The machine and the programs that compute: names for records, none of which depends on the time."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import mengya

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "transformers", "lm_eval")


def package_versions() -> dict[str, str]:
    """Of mengya and of the packages that compute; an extra that is not installed computed nothing."""
    found = {"mengya": mengya.__version__}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def hardware_name(device: torch.device) -> str:
    """The name of the GPU, or of the processor."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    with suppress(OSError, UnicodeDecodeError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def commit_of_clone() -> str | None:
    """The commit of the clone that mengya runs from, -dirty where files were changed; None outside of one."""
    package = Path(mengya.__file__).parent
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() / "src/mengya" != package.resolve():
        return None
    return _git(package, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):  # no git, or no clone
        return None
    return done.stdout.strip() or None
