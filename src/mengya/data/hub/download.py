"""A data set of a hub -> a folder with its files, or with the first of its records, complete or not at all.

The folder is made in .OUT.mengya-partial, which an interrupted call leaves and the same call continues. Next
to the files it gets .mengya-data.json: what was asked for, the revision, and the SHA-256 of every file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mengya.data.hub.archive import unpack_tables
from mengya.data.hub.corpus import HubKey
from mengya.data.hub.data_hub import DataHub, RemoteFile, Snapshot, chosen_files, explain
from mengya.data.hub.limited import Limits, Reading, fetch_records, local_name, refuse_unreadable
from mengya.data.hub.limited import Progress as Done
from mengya.data.hub.ranged import LARGEST, RangedFile
from mengya.data.hub.tar import is_tar, unpack_tar
from mengya.errors import UserError
from mengya.runtime.files import write_text
from mengya.runtime.hub.failure import HubFailure
from mengya.runtime.hub.huggingface import hugging_face_calls
from mengya.runtime.output_folder import FolderKind, OutputFolder, open_folder

RECORD = ".mengya-data.json"
FORMAT = 1  # of the record
_STATE = ".mengya-download.json"
_BLOCK = LARGEST
FOLDER = FolderKind("data get", ())


@dataclass(frozen=True)
class Wanted:
    """What is asked of which hub.

    Attributes:
        repo: its name there; elsewhere: another hub that has it.
        revision: a branch, tag or commit.
        files: patterns of names; none: all data files.
        name: in the registry, if it is there.
        license: as the registry says; None: as the hub does.
        reading: how a part of the files is read, for `limits`; tokenizer: its SHA-256, for a limit in tokens.
        unpack: whether the data files in zip and tar archives are wanted in place of these.
    """

    hub: HubKey
    repo: str
    revision: str
    files: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    reading: Reading = field(default_factory=Reading)
    tokenizer: str | None = None
    name: str | None = None
    license: str | None = None
    elsewhere: HubKey | None = None
    unpack: bool = False

    def request(self, commit: str) -> dict[str, Any]:
        """All that decides what is written, as JSON."""
        limits = {key: value for key, value in asdict(self.limits).items() if value is not None}
        reading = {"encoding": self.reading.encoding, "split_text": self.reading.split_text}
        return {
            "hub": self.hub,
            "id": self.repo,
            "revision": commit,
            "files": list(self.files),
            "limits": limits,
            **({"reading": reading} if limits else {}),
            **({"tokenizer": self.tokenizer} if self.limits.tokens else {}),
        }


@dataclass(frozen=True)
class Fetched:
    """What a folder holds.

    Attributes:
        files: of data, in the order of their names in the repository.
        record: as in .mengya-data.json.
    """

    folder: Path
    files: list[Path]
    record: dict[str, Any]


def read_record(folder: Path) -> Fetched | None:
    """What `fetch` wrote into a folder; None when it did not, or files are missing or have other sizes."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files = [(folder / file["path"], int(file["bytes"])) for file in record["files"]]
        if record["format"] != FORMAT or any(p.stat().st_size != size for p, size in files):
            return None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Fetched(folder, [path for path, _ in files], record)


@contextmanager
def asking(hub: DataHub, wanted: Wanted) -> Iterator[None]:
    """Calls of a hub; a failure becomes a message that says what to type."""
    try:
        with hugging_face_calls(hub.endpoint):
            yield
    except HubFailure as failure:
        raise explain(failure, hub, wanted.repo, wanted.revision, wanted.elsewhere) from None


def fetch(
    hub: DataHub,
    wanted: Wanted,
    snapshot: Snapshot,
    out: Path,
    overwrite: bool,
    console: Console,
) -> Fetched:
    """Make the folder, or say that it is there.

    Raises:
        UserError: `out` holds something else, the hub does not answer, or a file came damaged.
    """
    request = wanted.request(snapshot.commit)
    with open_folder(out, FOLDER) as folder:
        there = read_record(out)
        if there is not None and there.record["request"] == request:
            console.print(f"{out} is up to date; nothing to do", soft_wrap=True, highlight=False)
            return there
        if there is not None and not overwrite:
            raise _other_request(out, there.record["request"], request)
        folder.check_replaceable(overwrite)
        files = chosen_files(snapshot, wanted.files, hub)
        if wanted.limits:
            refuse_unreadable(files)
        _start(folder, request, console)
        with asking(hub, wanted):
            if wanted.limits:
                written = _part(hub, wanted, snapshot, files, folder.partial, console)
            else:
                written = _all(hub, snapshot, files, folder.partial, console)
        if wanted.unpack:
            written = _unpacked(folder.partial, written, wanted.repo, console)
        _write_record(folder.partial, wanted, request, snapshot, written)
        folder.publish()
    made = read_record(out)
    assert made is not None
    return made


def _other_request(out: Path, before: dict[str, Any], now: dict[str, Any]) -> UserError:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    lines = "\n".join(f"  - {key}: {before.get(key)} -> {now.get(key)}" for key in keys)
    newer = ""
    if keys == ["revision"]:
        newer = f", or keep what is there with revision={before['revision']}"
    return UserError(
        f"{out} holds something else:\n{lines}\nwrite overwrite=true to replace it{newer}, or choose another "
        "out="
    )


def _start(folder: OutputFolder, request: dict[str, Any], console: Console) -> None:
    """Keep what an interrupted call has fetched for the same request, else begin with an empty folder."""
    state = folder.partial / _STATE
    try:
        same = json.loads(state.read_text(encoding="utf-8"))["request"] == request
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if same:
        console.print(f"continuing with what {folder.partial} holds", soft_wrap=True)
        return
    folder.start()
    write_text(state, json.dumps({"request": request, "done": {}}, ensure_ascii=False))


def _all(
    hub: DataHub,
    snapshot: Snapshot,
    files: tuple[RemoteFile, ...],
    folder: Path,
    console: Console,
) -> list[dict[str, Any]]:
    """Every file, each checked against what the hub says of it."""
    state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    done: dict[str, str] = state["done"]
    total = sum(file.size for file in files)
    with _bar(console) as progress:
        task = progress.add_task(snapshot.repo, total=total)
        before = 0
        for file in files:
            progress.update(task, completed=before)
            if file.path not in done or _size(folder / file.path) != file.size:
                _copy(hub, snapshot, file, folder, lambda n: progress.advance(task, n))
                done[file.path] = _checked(folder / file.path, file, snapshot.repo)
                write_text(folder / _STATE, json.dumps(state, ensure_ascii=False))
            before += file.size
        progress.update(task, completed=total)
    return [{"path": file.path, "bytes": file.size, "sha256": done[file.path]} for file in files]


def _copy(
    hub: DataHub,
    snapshot: Snapshot,
    file: RemoteFile,
    folder: Path,
    advance: Callable[[float], object],
) -> None:
    """The file, after what an interrupted call has left of it."""
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    url, headers = hub.address(snapshot.repo, snapshot.commit, file.path)
    with path.open("ab") as local, RangedFile(url, headers, file.size) as remote:
        if local.tell() > file.size:
            local.truncate(0)
        advance(remote.seek(local.tell()))
        while block := remote.read(_BLOCK):
            local.write(block)
            advance(len(block))


def _checked(path: Path, file: RemoteFile, repo: str) -> str:
    """The SHA-256 of a file that arrived; a damaged one is removed."""
    size = _size(path)
    digest = sha256_of(path) if size == file.size else ""
    if size != file.size or (file.sha256 and digest != file.sha256.lower()):
        path.unlink(missing_ok=True)
        what = f"has {size} bytes, not {file.size}" if size != file.size else "has another SHA-256"
        raise UserError(
            f"{file.path} of {repo} came damaged: it {what} than the hub says. It was removed, the other "
            "files are kept: type the same again"
        )
    return digest


def _unpacked(
    folder: Path, written: list[dict[str, Any]], repo: str, console: Console
) -> list[dict[str, Any]]:
    """What is written in place of archives, which are removed; other files as they were."""
    archives = [
        one["path"] for one in written if is_tar(one["path"]) or one["path"].endswith(".zip")
    ]
    facts = [one for one in written if one["path"] not in archives]
    for name in archives:
        taken = [fact["path"] for fact in facts]
        console.print(f"unpacking {name}", markup=False, highlight=False, soft_wrap=True)
        if is_tar(name):
            names = unpack_tar(folder / name, folder, repo, taken)
        else:
            names = unpack_tables(folder / name, folder, repo)
        facts += [
            {
                "path": one,
                "bytes": _size(folder / one),
                "sha256": sha256_of(folder / one),
                "from": name,
            }
            for one in names
        ]
    for name in archives:
        (folder / name).unlink()
    return sorted(facts, key=lambda fact: fact["path"])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _part(
    hub: DataHub,
    wanted: Wanted,
    snapshot: Snapshot,
    files: tuple[RemoteFile, ...],
    folder: Path,
    console: Console,
) -> list[dict[str, Any]]:
    """The first records of the files, in the order of their names."""
    with _bar(console, "{task.fields[rows]:,} records") as progress:
        task = progress.add_task(snapshot.repo, total=None, rows=0)

        def show(done: Done) -> None:
            share = wanted.limits.share(done)
            total = done.bytes / share if share else None
            progress.update(task, completed=done.bytes, total=total, rows=done.rows)

        done = fetch_records(hub, snapshot, files, wanted.limits, wanted.reading, folder, show)
    if done.bad:
        more = (
            f" and {done.bad - len(done.first_bad)} more" if done.bad > len(done.first_bad) else ""
        )
        lines = "\n  ".join(done.first_bad)
        console.print(f"left out, as they cannot be read:\n  {lines}{more}", markup=False)
    written = []
    for file in files:
        path = folder / local_name(file.path)
        if path.is_file():
            fact = {"path": local_name(file.path), "bytes": _size(path), "sha256": sha256_of(path)}
            written.append({**fact, "from": file.path})
    if not written:
        raise UserError(
            f"no record of {snapshot.repo} could be read; `mengya data show` may say why"
        )
    return written


def _write_record(
    folder: Path,
    wanted: Wanted,
    request: dict[str, Any],
    snapshot: Snapshot,
    written: list[dict[str, Any]],
) -> None:
    (folder / _STATE).unlink()
    record = {
        "format": FORMAT,
        "name": wanted.name,
        "asked": wanted.revision,
        "license": wanted.license or snapshot.license,
        "request": request,
        "files": written,
    }
    write_text(folder / RECORD, json.dumps(record, ensure_ascii=False, indent=1) + "\n")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bar(console: Console, *more: str) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        *map(TextColumn, more),
        console=console,
        disable=not console.is_terminal,
    )
