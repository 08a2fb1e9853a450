"""Where a proven folder is pushed: the keys that `to=hf` and `to=modelscope` share."""

from __future__ import annotations

import re

from pydantic import field_validator, model_validator

from mengya.config import Config

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


class HubOptions(Config):
    repo: str | None = None
    """Push the proven folder to this repository, OWNER/NAME; null: nothing is sent."""
    private: bool = True
    """A new repository is seen by its owner alone; false: by everybody."""
    branch: str | None = None
    """Branch to commit to, made if it is not there; null: the main one."""
    update: bool = False
    """Add a commit to a repository that holds other files already."""
    dry_run: bool = False
    """Show every file with its bytes and where it would go; nothing is sent, and no token is needed."""

    @field_validator("repo")
    @classmethod
    def _owner_and_name(cls, repo: str | None) -> str | None:
        parts = [] if repo is None else repo.split("/")
        if repo is not None and (len(parts) != 2 or not all(map(_NAME.fullmatch, parts))):
            raise ValueError(
                f"{repo!r} is not OWNER/NAME, in letters, digits, '-', '_' and '.'; write your name on the "
                "hub and the model's, such as xiaoming/little-model"
            )
        return repo

    @model_validator(mode="after")
    def _pushes(self) -> HubOptions:
        idle = self.model_fields_set & {"private", "branch", "update", "dry_run"}
        if self.repo is None and idle:
            raise ValueError(
                f"{sorted(idle)[0]} does nothing without repo; write repo=OWNER/NAME too"
            )
        return self
