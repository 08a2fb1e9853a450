"""A hub on this machine: the routes of Hugging Face and of ModelScope that a push uses, and planted trouble.

Takes what the hubs' own packages send; keeps repositories, branches and blobs in memory, as bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_secretsecretsecretsecretsecret42"
OWNER = "xiaoming"
Trouble = int | Literal["stall", "cut"]


@dataclass
class Repository:
    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=dict)


@dataclass
class HubServer:
    """
    Attributes:
        trouble: (method, part of the path) -> an HTTP status, "stall" (no answer), or "cut" (half of the body
            is read, then the connection closes); of each the first `times` requests.
        requests: "METHOD path" of everything that came.
        authorizations: what came in that header, and as ModelScope's cookie.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    trouble: dict[tuple[str, str], Trouble] = field(default_factory=dict)
    times: int = 1000
    requests: list[str] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    url: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)

    def count(self, request: str) -> int:
        return sum(request in line for line in self.requests)


@contextmanager
def hub_server() -> Iterator[HubServer]:
    hub = HubServer()
    with serve_hub(hub, HubHandler):
        yield hub


@contextmanager
def serve_hub(hub: HubServer, kind: type[HubHandler]) -> Iterator[None]:
    handler = type("Handler", (kind,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield
    finally:
        hub.stopping.set()
        server.shutdown()
        server.server_close()


class HubHandler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    @property
    def routes(self) -> list[tuple[str, str]]:
        return _ROUTES

    def log_message(self, format: str, *args: Any) -> None:
        """Not on stderr, where tests look for what mengya prints."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.authorizations.add(str(self.headers.get("Authorization")))
        size = int(self.headers.get("Content-Length") or 0)
        trouble = self._trouble(path)
        if trouble == "stall":
            self.hub.stopping.wait(20)
        if trouble in ("stall", "cut"):
            self.rfile.read(size // 2)
            self.close_connection = True
            return
        body = self.rfile.read(size)
        if isinstance(trouble, int):
            self._reply({"error": f"planted; your token {TOKEN} was seen"}, trouble)
        elif self._needs_token(path) and TOKEN not in str(self.headers.get("Authorization")):
            self._reply({"error": "Invalid username or password."}, 401)
        else:
            self._route(path, body)

    def _needs_token(self, path: str) -> bool:
        return not path.startswith("/lfs/")

    def _trouble(self, path: str) -> Trouble | None:
        for (method, part), trouble in self.hub.trouble.items():
            if method == self.command and part in path and self.hub.times > 0:
                self.hub.times -= 1
                return trouble
        return None

    def _reply(self, values: Any, status: int = 200) -> None:
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _route(self, path: str, body: bytes) -> None:
        for pattern, name in self.routes:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                getattr(self, name)(*map(unquote, found.groups()), body)
                return
        self._reply({"error": f"no route {self.command} {path}"}, 404)

    def _put_blob(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._reply({"error": "other bytes"}, 400)
            return
        self.hub.blobs[oid] = body
        self._reply({})

    def _batch(self, repo: str, body: bytes) -> None:
        objects = []
        for item in json.loads(body)["objects"]:
            there = item["oid"] in self.hub.blobs
            href = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
            objects.append(
                {"oid": item["oid"], "size": item["size"], **({} if there else {"actions": href})}
            )
        self._reply({"objects": objects, "transfer": "basic"})

    # Hugging Face

    def _hf_create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != OWNER:
            self._reply({"error": f"You don't have the rights to create a model under {name}"}, 403)
        elif name in self.hub.repositories:
            self._reply({"error": "You already created this model repo"}, 409)
        else:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repositories[name] = Repository(private, {"main": {}})
            self._reply({"url": f"{self.hub.url}/{name}"})

    def _hf_info(self, repo: str, body: bytes) -> None:
        found = self._repository(repo)
        if found:
            self._reply({"_id": "1", "id": repo, "modelId": repo, "private": found.private})

    def _hf_tree(self, repo: str, branch: str, body: bytes) -> None:
        found = self._repository(repo)
        if found and branch not in found.branches:
            self._reply({"error": "Invalid rev id"}, 404)
        elif found:
            self._reply(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                    for name, data in found.branches[branch].items()
                ]
            )

    def _hf_branch(self, repo: str, branch: str, body: bytes) -> None:
        found = self._repository(repo)
        if found:
            new = branch not in found.branches
            found.branches.setdefault(branch, dict(found.branches["main"]))
            self._reply({}, 200 if new else 409)

    def _hf_yaml(self, body: bytes) -> None:
        self._reply({"errors": [], "warnings": []})

    def _hf_preupload(self, repo: str, branch: str, body: bytes) -> None:
        found = self._repository(repo)
        if found:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(_LFS) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._reply({"files": files})

    def _hf_commit(self, repo: str, branch: str, body: bytes) -> None:
        found = self._repository(repo)
        if not found:
            return
        files = found.branches[branch]
        for item in map(json.loads, body.splitlines()):
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        self._reply({"commitUrl": f"{self.hub.url}/{repo}/commit/1", "commitOid": "1" * 40})

    # ModelScope

    def _ms_create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['Path']}/{asked['Name']}"
        if asked["Path"] != OWNER:
            self._reply({"Code": 403, "Message": "no right to this namespace"}, 403)
        elif name in self.hub.repositories:
            self._reply({"Code": 10010101001, "Message": "模型已存在"}, 400)
        else:
            self.hub.repositories[name] = Repository(asked["Visibility"] == 1, {"master": {}})
            self._reply({"Code": 200, "Data": {"Path": asked["Path"], "Name": asked["Name"]}})

    def _ms_info(self, repo: str, body: bytes) -> None:
        found = self._repository(repo)
        if found:
            self._reply({"data": {"id": repo, "private": found.private}})

    def _ms_files(self, repo: str, body: bytes) -> None:
        found = self._repository(repo)
        branch = parse_qs(urlsplit(self.path).query)["Revision"][0]
        if found and branch not in found.branches:
            self._reply({"Code": 404, "Message": "no such revision"}, 404)
        elif found:
            files = [
                {"Path": name, "Size": len(data), "Type": "blob"}
                for name, data in found.branches[branch].items()
            ]
            self._reply({"Code": 200, "Data": {"Files": files}})

    def _ms_batch(self, repo: str, body: bytes) -> None:
        self._batch(repo, body)

    def _ms_commit(self, repo: str, branch: str, body: bytes) -> None:
        found = self._repository(repo)
        if not found:
            return
        files = found.branches.setdefault(branch, {})
        for action in json.loads(body)["actions"]:
            lfs = action["type"] == "lfs"
            data = self.hub.blobs[action["sha256"]] if lfs else base64.b64decode(action["content"])
            files[action["path"]] = data
        self._reply({"Code": 200, "Success": True, "Data": {"oid": "1" * 40}})

    def _repository(self, repo: str) -> Repository | None:
        found = self.hub.repositories.get(repo)
        if found is None:
            self._reply({"error": "Repository Not Found"}, 404)
        return found


_LFS = (".safetensors", ".onnx", ".bin", ".gguf")
REPO, PART = r"([\w.-]+/[\w.-]+)", r"([^/]+)"
_ROUTES = [
    (r"PUT /lfs/(\w+)", "_put_blob"),
    (r"POST /api/repos/create", "_hf_create"),
    (rf"GET /api/models/{REPO}", "_hf_info"),
    (rf"GET /api/models/{REPO}/tree/{PART}", "_hf_tree"),
    (rf"POST /api/models/{REPO}/branch/{PART}", "_hf_branch"),
    (r"POST /api/validate-yaml", "_hf_yaml"),
    (rf"POST /api/models/{REPO}/preupload/{PART}", "_hf_preupload"),
    (rf"POST /{REPO}\.git/info/lfs/objects/batch", "_batch"),
    (rf"POST /api/models/{REPO}/commit/{PART}", "_hf_commit"),
    (r"POST /api/v1/models", "_ms_create"),
    (rf"GET /openapi/v1/models/{REPO}", "_ms_info"),
    (rf"GET /api/v1/models/{REPO}/repo/files", "_ms_files"),
    (rf"POST /api/v1/repos/models/{REPO}/info/lfs/objects/batch", "_ms_batch"),
    (rf"POST /api/v1/repos/models/{REPO}/commit/{PART}", "_ms_commit"),
]
