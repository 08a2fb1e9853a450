"""Data sets on a hub on this machine: the routes of Hugging Face and of ModelScope that a download uses.

Counts the bytes of files that it serves, and can break off after some.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.helpers.hub_server import PART, REPO, TOKEN, HubHandler, HubServer, serve_hub

LFS_BYTES = 2000  # larger files have a SHA-256 on Hugging Face, as those in LFS do


@dataclass
class DataSet:
    """
    Attributes:
        files: name -> bytes; lies: name -> the size and SHA-256 that are claimed for it.
        commits: the newest last; earlier ones give the same files.
    """

    files: dict[str, bytes]
    license: str | list[str] | None = "apache-2.0"
    gated: bool = False
    commits: list[str] = field(default_factory=lambda: ["c" * 40])
    lies: dict[str, tuple[int, str]] = field(default_factory=dict)

    def fact(self, name: str) -> tuple[int, str]:
        data = self.files[name]
        return self.lies.get(name, (len(data), hashlib.sha256(data).hexdigest()))


@dataclass
class DataHubServer(HubServer):
    """
    Attributes:
        sent: bytes of files that went out; most: after so many the connection is cut, from then on always, or
            nothing more comes (`stalls`).
        no_ranges: parts of files are not given.
    """

    sets: dict[str, DataSet] = field(default_factory=dict)
    sent: int = 0
    most: int | None = None
    no_ranges: bool = False
    stalls: bool = False


@contextmanager
def data_hub_server() -> Iterator[DataHubServer]:
    hub = DataHubServer()
    with serve_hub(hub, DataHandler):
        yield hub


class DataHandler(HubHandler):
    hub: DataHubServer  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def routes(self) -> list[tuple[str, str]]:
        return [*_ROUTES, *super().routes]

    def do_HEAD(self) -> None:
        self._serve()

    def _needs_token(self, path: str) -> bool:
        named = re.search(rf"datasets/{REPO}", path)
        data = self.hub.sets.get(named[1]) if named else None
        return data is not None and data.gated

    def _found(self, repo: str) -> DataSet | None:
        found = self.hub.sets.get(repo)
        if found is None:
            self._reply({"error": "Repository not found", "Message": "not found"}, 404)
        return found

    def _hf_set(self, repo: str, revision: str, body: bytes) -> None:
        found = self._found(repo)
        if found is None:
            return
        if revision not in ("main", *found.commits):
            self._reply({"error": "Invalid rev id"}, 404)
            return
        commit = found.commits[-1] if revision == "main" else revision
        card = {"license": found.license} if found.license else {}
        self._reply({"_id": "1", "id": repo, "sha": commit, "cardData": card, "siblings": []})

    def _hf_set_tree(self, repo: str, revision: str, body: bytes) -> None:
        if (found := self._found(repo)) is None:
            return
        entries = []
        for name in found.files:
            size, sha256 = found.fact(name)
            entry = {"type": "file", "path": name, "size": size, "oid": "0" * 40}
            if size > LFS_BYTES or name in found.lies:
                entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 130}
            entries.append(entry)
        self._reply(entries)

    def _hf_file(self, repo: str, revision: str, name: str, body: bytes) -> None:
        found = self._found(repo)
        if found is None:
            return
        if name not in found.files:
            self._reply({"error": "Entry not found"}, 404)
            return
        size, sha256 = found.fact(name)
        etag = sha256 if size > LFS_BYTES or name in found.lies else sha256[:40]
        headers = {"X-Repo-Commit": revision, "ETag": f'"{etag}"'}
        self._send_file(found.files[name], headers)

    def _ms_tree(self, repo: str, body: bytes) -> None:
        if (found := self._found(repo)) is None:
            return
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        at, count = int(query["PageNumber"]) - 1, int(query["PageSize"])
        files = []
        for name in list(found.files)[at * count : (at + 1) * count]:
            size, sha256 = found.fact(name)
            files.append({"Path": name, "Size": size, "Sha256": sha256, "Type": "blob"})
        self._reply({"Code": 200, "Data": {"Files": files}})

    def _ms_file(self, repo: str, body: bytes) -> None:
        found = self._found(repo)
        name = parse_qs(urlsplit(self.path).query)["FilePath"][0]
        if found is not None:
            self._send_file(found.files[name], {})

    def _send_file(self, data: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop = 0, len(data)
        if asked and not self.hub.no_ranges:
            start = int(asked[1])
            stop = min(stop, int(asked[2]) + 1) if asked[2] else stop
            headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        if start >= len(data) and data:
            self._reply({"error": "range"}, 416)
            return
        self.send_response(206 if "Content-Range" in headers else 200)
        for key, value in {**headers, "Content-Length": str(stop - start)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = data[start:stop]
        if self.hub.most is not None:
            body = body[: max(0, self.hub.most - self.hub.sent)]
            self.close_connection = len(body) < stop - start
        self.hub.sent += len(body)
        self.wfile.write(body)
        if self.close_connection and self.hub.stalls:
            self.wfile.flush()
            self.hub.stopping.wait(30)


_ROUTES = [
    (rf"GET /api/datasets/{REPO}/revision/{PART}", "_hf_set"),
    (rf"GET /api/datasets/{REPO}/tree/{PART}", "_hf_set_tree"),
    (rf"(?:GET|HEAD) /datasets/{REPO}/resolve/{PART}/(.+)", "_hf_file"),
    (rf"GET /api/v1/datasets/{REPO}/repo/tree", "_ms_tree"),
    (rf"GET /api/v1/datasets/{REPO}/repo", "_ms_file"),
]
__all__ = ["TOKEN", "DataHubServer", "DataSet", "data_hub_server"]
