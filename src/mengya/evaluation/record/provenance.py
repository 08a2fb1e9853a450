"""Where a figure comes from: the command, the seed, the machine, the programs, and what is known of the data.

Nothing here depends on the time, so that the same command writes the same bytes twice.
"""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import mengya
from mengya.data.training_record import TrainedOn

_PACKAGES = ("torch", "transformers", "lm_eval")


@dataclass(frozen=True)
class Provenance:
    """
    Attributes:
        command: what to type to measure it again.
        device: cpu, cuda or mps; `hardware` is its name.
        versions: of mengya and of the packages that compute.
        commit: of mengya, with -dirty where files of the clone were changed; None outside a clone.
        contamination: what is known of exam items in the training data, in words.
    """

    command: str
    seed: int
    device: str
    hardware: str
    dtype: str
    versions: dict[str, str]
    tokenizer_sha256: str
    commit: str | None
    contamination: str


def package_versions() -> dict[str, str]:
    found = {"mengya": mengya.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an extra that is not installed measured nothing
            continue
    return found


def hardware_name(device: torch.device) -> str:
    """The name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except (OSError, UnicodeDecodeError):  # not Linux
        pass
    return platform.processor() or platform.machine()


def commit_of_clone() -> str | None:
    """The commit of the clone that mengya runs from; None where it is installed elsewhere."""
    package = Path(mengya.__file__).parent
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() / "src/mengya" != package.resolve():
        return None
    return _git(package, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def contamination_line(record: list[TrainedOn] | None) -> str:
    """What the data of a model are known to hold of exams."""
    if not record:
        return "no record of the training data"
    unchecked = [entry.shards or "of the start" for entry in record if entry.contamination is None]
    exams = [
        exam for entry in record if entry.contamination for exam in entry.contamination["exams"]
    ]
    found = len({key for exam in exams for key in exam["keys"]})
    names = sorted({str(exam.get("name", "?")) for exam in exams})
    if not exams:
        return f"training data not checked for exam items: {', '.join(unchecked)}"
    line = f"{found:,} items of {', '.join(names)} found in the training data"
    return f"{line}; not checked: {', '.join(unchecked)}" if unchecked else line


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):  # no git, or no clone
        return None
    return done.stdout.strip() or None
