"""evaluation.json, read: what `mengya evaluate` found, and whether it is of the weights that are there.

evaluation/record writes it; cards, comparisons and exports read it here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mengya.errors import UserError
from mengya.models.adapters.lora import base_folder
from mengya.models.hf.checkpoint import checkpoint_sha256
from mengya.models.hf.open_checkpoint import ADAPTER
from mengya.version import check_format

FILE = "evaluation.json"
FORMAT = 1


def read_evaluation(path: Path) -> dict[str, Any]:
    """The values of a file that `mengya evaluate` wrote; {} where there is none that can be read.

    Raises:
        UserError: it is of a later version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    if isinstance(written := values.get("format", FORMAT), int):
        check_format(path, written, FORMAT)
    return values


def is_current(evaluation: Mapping[str, Any], sha256: str) -> bool:
    """Whether the figures are of the checkpoint whose `subject_sha256` it is."""
    return evaluation.get("checkpoint_sha256") == sha256


def subject_sha256(folder: Path) -> str:
    """SHA-256 of all that decides what a checkpoint computes: weights, config.json, tokenizer.

    Of an adapter: its weights and settings, and its base.

    Raises:
        UserError: a file cannot be read.
    """
    if not (folder / ADAPTER).is_file():
        return checkpoint_sha256(folder)
    digest = hashlib.sha256(checkpoint_sha256(folder, weights=False).encode())
    digest.update(checkpoint_sha256(base_folder(folder)).encode())
    try:
        for name in (ADAPTER, "adapter_model.safetensors"):
            digest.update((folder / name).read_bytes())
    except OSError as error:
        raise UserError(f"{folder} is no complete adapter ({error}); copy it again") from error
    return digest.hexdigest()
