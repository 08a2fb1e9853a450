"""The version of mengya, written here only, and what it means for files of other versions.

A checkpoint and a shard folder name the version that wrote them, for people, and the number of their
format, for programs: it is raised when an older mengya could not read them rightly.
"""

from __future__ import annotations

from pathlib import Path

from mengya.errors import UserError

__version__ = "0.1.0"


def check_format(path: Path, found: int, supported: int, written_by: object = None) -> None:
    """Refuse a file of a newer format than this version reads.

    Args:
        written_by: the `mengya_version` in the file; None where it has none.

    Raises:
        UserError: naming both formats and both versions.
    """
    if found > supported:
        writer = "a newer mengya" if written_by is None else f"mengya {written_by}"
        raise UserError(
            f"{path} has format {found}, written by {writer}; this is mengya {__version__}, which reads "
            f"formats up to {supported}: update it (git pull in the clone) to use these files"
        )
