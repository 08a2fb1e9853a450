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
from mengya.runtime.files import check_file
from mengya.version import check_format

FILE = "evaluation.json"
FORMAT = 1


def read_evaluation(path: Path) -> dict[str, Any]:
    """The values of a file that `mengya evaluate` wrote; {} where there is none.

    Raises:
        UserError: it is something else, damaged, or of a later version.
    """
    check_file(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise _foreign(path, f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise _foreign(path, "no object")
    if isinstance(written := values.get("format", FORMAT), int):
        check_format(path, written, FORMAT)
    if values and "checkpoint" not in values:
        raise _foreign(path, "it has no `checkpoint`")
    for name in ("exams", "yardsticks", "measured_by"):
        if not isinstance(values.get(name, {}), dict):
            raise _foreign(path, f"`{name}` is no object")
    for part, by in values.get("measured_by", {}).items():
        if not isinstance(by, dict):
            raise _foreign(path, f"`measured_by.{part}` is no object")
    return values


def _foreign(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not what `mengya evaluate` writes ({why}), and is not overwritten: move it elsewhere, or "
        "name another file"
    )


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
