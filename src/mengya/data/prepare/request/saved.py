"""prepare.json: the request that a finished folder was made for, as it was written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mengya.data.shards import rename_license
from mengya.errors import UserError


class _SavedFile(BaseModel):
    path: str
    sha256: str


class _SavedSource(BaseModel):
    name: str
    license: str | None
    files: list[_SavedFile]


class _SavedValues(BaseModel):
    version: int
    clean: dict[str, Any]
    sources: list[_SavedSource]
    left_out: list[str] = []


class _Saved(BaseModel):
    """What is read of prepare.json."""

    request: _SavedValues
    stamps: dict[str, list[int]]


@dataclass(frozen=True)
class SavedRequest:
    """prepare.json of a finished folder.

    Attributes:
        request: as `Inputs.request`.
        stamps: size and time of every file when it was hashed.
    """

    request: dict[str, Any]
    stamps: dict[str, list[int]]

    @staticmethod
    def read(path: Path) -> SavedRequest | None:
        """None when there is no such file.

        Raises:
            UserError: it is damaged.
        """
        if not path.is_file():
            return None
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            rename_license(saved["request"]["sources"])
            _Saved.model_validate(saved)
            return SavedRequest(saved["request"], saved["stamps"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{path} is damaged: nobody can say what the shards were made of; write overwrite=true to "
                "make them again, or choose another out="
            ) from None

    def known_hash(self, path: str, stamp: list[int]) -> str | None:
        """The SHA-256 of a file that has not changed in size and time since."""
        if self.stamps.get(path) != stamp:
            return None
        files = (file for source in self.request["sources"] for file in source["files"])
        return next((file["sha256"] for file in files if file["path"] == path), None)
