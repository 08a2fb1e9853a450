"""`hub:NAME`, `hub:OWNER/NAME`, each with `@REVISION` and `:FILES` behind: how a data set is named."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mengya.errors import UserError

PREFIX = "hub:"
_FORM = re.compile(
    r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*))?(?::(?P<files>.+))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Reference:
    """
    Attributes:
        name: of the registry, or OWNER/NAME.
        revision: a branch, tag or commit; None: the newest of the main branch.
        files: a pattern of names in the repository; None: those that the registry says, else all data files.
    """

    name: str
    revision: str | None = None
    files: str | None = None

    @property
    def is_repository(self) -> bool:
        """Whether it names a repository and not an entry of the registry."""
        return "/" in self.name


def is_hub(path: str) -> bool:
    return path.startswith(PREFIX)


def parse_reference(text: str) -> Reference:
    """With or without `hub:` in front.

    Raises:
        UserError: it has another form.
    """
    match = _FORM.fullmatch(text.removeprefix(PREFIX))
    if match is None:
        raise UserError(
            f"{text!r} names no data set; the form is hub:NAME or hub:OWNER/NAME, then @REVISION and :FILES "
            "where wanted, as in hub:opencsg/smoltalk-chinese@main:*.parquet"
        )
    return Reference(match["name"], match["revision"], match["files"])
