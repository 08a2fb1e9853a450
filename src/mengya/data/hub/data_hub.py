"""What is asked of a hub that has data sets, and what its failures mean to the user."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mengya.data.hub.corpus import HubKey
from mengya.data.ingest.reading.documents.kinds import is_document
from mengya.data.ingest.reading.files import file_kind
from mengya.errors import UserError, shown
from mengya.runtime.hub.failure import HubFailure

_ABOUT = re.compile(r"(readme|licen[sc]e|notice|changelog|citation|contributing)", re.I)
_LISTED = 8
_KEPT = "What has arrived is kept: type the same again"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; `sha256` where the hub knows it."""

    path: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """A repository at one moment.

    Attributes:
        commit: what is asked for from now on: a commit where the hub has such, else the branch.
        license: as the card says, if it does.
    """

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    license: str | None = None


class DataHub(Protocol):
    """
    Attributes:
        key: as in hub=KEY.
        name: for people.
        endpoint: address of the server.
        branch: the main one.
        login: how to give it a token.
    """

    key: HubKey
    name: str
    endpoint: str
    branch: str
    login: str

    def snapshot(self, repo: str, revision: str) -> Snapshot:
        """All files of the repository. Raises HubFailure."""
        ...

    def address(self, repo: str, commit: str, path: str) -> tuple[str, dict[str, str]]:
        """(URL, headers) of a file, of which a part can be asked for."""
        ...


def chosen_files(
    snapshot: Snapshot, patterns: Sequence[str], hub: DataHub
) -> tuple[RemoteFile, ...]:
    """The files that the patterns name, sorted; all data files without patterns.

    Raises:
        UserError: there are none, or one has a name that leads out of a folder.
    """
    if patterns:
        found = [f for f in snapshot.files if any(map(_pattern(f.path), patterns))]
    else:
        found = [f for f in snapshot.files if _is_data(f.path)]
    if not found:
        asked = f"fits {', '.join(map(shown, patterns))}" if patterns else "is a data file"
        raise UserError(
            f"no file of {snapshot.repo} on {hub.name} {asked}; it has {_some(snapshot.files)}. Write "
            "files=PATTERN with `*` (within a folder), `**` and `?`"
        )
    for file in found:
        check_name(file.path, snapshot.repo)
    return tuple(sorted(found, key=lambda file: file.path))


def _pattern(name: str) -> Callable[[str], bool]:
    def fits(pattern: str) -> bool:
        parts = re.split(r"(\*\*/?|\*|\?)", pattern)
        wild = {"**": ".*", "**/": "(.*/)?", "*": "[^/]*", "?": "[^/]"}
        expression = "".join(wild.get(part) or re.escape(part) for part in parts)
        return re.fullmatch(expression, name, re.DOTALL) is not None

    return fits


def _is_data(path: str) -> bool:
    name = Path(path)
    hidden = any(part.startswith(".") and part != ".." for part in name.parts)
    return is_table(path) and not hidden and not _ABOUT.match(name.name)


def is_table(path: str) -> bool:
    """Whether a file holds records or plain text, which can be read from its beginning."""
    kind = file_kind(Path(path))
    return kind is not None and not is_document(kind)


def check_name(path: str, repo: str) -> None:
    """Refuse a name that leads out of a folder.

    Raises:
        UserError: it does, or no file may be called so.
    """
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and ":" not in parts[0]
    if not plain or any(part in ("", ".", "..") for part in parts):
        raise UserError(
            f"{repo} has a file called {path!r}, a name that leads elsewhere or that no file may have: "
            "nothing was written. Choose others with files=PATTERN, or another data set"
        )


def _some(files: Sequence[RemoteFile]) -> str:
    names = ", ".join(shown(file.path) for file in files[:_LISTED])
    return (
        f"{names} and {len(files) - _LISTED} more" if len(files) > _LISTED else names or "no files"
    )


def explain(
    failure: HubFailure, hub: DataHub, repo: str, revision: str, elsewhere: HubKey | None
) -> UserError:
    """What it means, and what to type."""
    said = f" (it says: {failure.said[:300]})" if failure.said else ""
    other = f", or add hub={elsewhere}" if elsewhere else ""
    mirror = ""
    if hub.key == "huggingface":
        mirror = f". From mainland China type: export HF_ENDPOINT=https://hf-mirror.com{other}"
    elif elsewhere:
        mirror = f"; or add hub={elsewhere}"
    match failure.status:
        case None if failure.timeout:
            text = f"{hub.endpoint} stopped answering{said}. {_KEPT}{mirror}"
        case None:
            text = (
                f"{hub.endpoint} cannot be reached{said}. Check the network, and HTTPS_PROXY if you use a "
                f"proxy{mirror}"
            )
        case 401 | 403:
            text = (
                f"{hub.name} does not give out {repo}{said}: it is gated or private, or there is none of "
                f"that name. Ask for access on {hub.endpoint}/datasets/{repo}. {hub.login}"
            )
        case 404:
            text = (
                f"{hub.name} has no data set {repo}, or not the revision {revision}{said}; check both"
                f"{other or mirror}"
            )
        case 429:
            text = f"{hub.name} wants fewer requests{said}. Wait some minutes. {_KEPT}"
        case status if status >= 500:
            text = f"{hub.name} has trouble of its own ({status}){said}. {_KEPT}{mirror}"
        case status:
            text = f"{hub.name} refuses ({status}){said}; check the name {repo} and the revision {revision}"
    return UserError(text)
