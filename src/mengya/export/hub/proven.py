"""Whether a folder is as its proof found it: parity.json says so, and its files still have their hashes."""

from __future__ import annotations

import json
from pathlib import Path

from mengya.errors import UserError
from mengya.export.parity.files import file_hashes
from mengya.export.parity.result import FILE as PROOF

_AGAIN = (
    "export the checkpoint again with mengya export CHECKPOINT to=... out=FOLDER, and push that"
)


def check_proven(folder: Path) -> None:
    """Refuse a folder that no proof covers.

    Raises:
        UserError: no proof, a bound missed, or files changed, added or removed since.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder that mengya has exported: check the path")
    path = folder / PROOF
    try:
        proof = json.loads(path.read_text(encoding="utf-8"))
        passed, files = proof["passed"], dict(proof["files"])
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {PROOF}, and only what is proven is pushed: {_AGAIN}"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not what mengya wrote ({error!r}): {_AGAIN}") from None
    if passed is not True:
        raise UserError(f"{path} says that the proof missed a bound: {_AGAIN}")
    now = file_hashes(folder)
    if changed := sorted(
        name for name in now.keys() | files.keys() if now.get(name) != files.get(name)
    ):
        what = "was added" if changed[0] not in files else "was changed or removed"
        raise UserError(f"{folder / changed[0]} {what} after the proof ({path}): {_AGAIN}")
