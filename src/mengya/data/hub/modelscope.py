"""Data sets on ModelScope, by two of its HTTP routes: MODELSCOPE_ENDPOINT, MODELSCOPE_API_TOKEN.

It needs no package: what `modelscope-hub` has for reading is the listing below, and it opens no part of a
file. ModelScope gives no commit of a branch: the SHA-256 of every file, which it does give, pins what was
read.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote, urlencode

from mengya.data.hub.corpus import HubKey
from mengya.data.hub.data_hub import RemoteFile, Snapshot
from mengya.data.hub.ranged import get
from mengya.runtime.hub.failure import HubFailure

_PAGE = 200


class ModelScopeData:
    """A `DataHub` at MODELSCOPE_ENDPOINT."""

    key: HubKey = "modelscope"
    name = "ModelScope"
    branch = "master"
    login = (
        "Make a token at https://modelscope.cn/my/myaccesstoken, then type: export "
        "MODELSCOPE_API_TOKEN=..."
    )

    def __init__(self) -> None:
        self.endpoint = os.environ.get("MODELSCOPE_ENDPOINT", "https://modelscope.cn").rstrip("/")
        if "://" not in self.endpoint:
            self.endpoint = f"https://{self.endpoint}"
        self._token = os.environ.get("MODELSCOPE_API_TOKEN")

    def snapshot(self, repo: str, revision: str) -> Snapshot:
        """As `DataHub.snapshot`."""
        found: list[RemoteFile] = []
        page = 1
        while True:
            entries = self._page(repo, revision, page)
            found += [
                RemoteFile(str(e["Path"]), int(e.get("Size") or 0), e.get("Sha256") or None)
                for e in entries
                if e.get("Type") != "tree"
            ]
            if len(entries) < _PAGE:
                return Snapshot(repo, revision, tuple(found))
            page += 1

    def address(self, repo: str, commit: str, path: str) -> tuple[str, dict[str, str]]:
        """As `DataHub.address`."""
        query = urlencode({"Revision": commit, "FilePath": path})
        return f"{self._api(repo)}/repo?{query}", self._headers()

    def _page(self, repo: str, revision: str, page: int) -> list[dict[str, Any]]:
        query = {"Revision": revision, "Recursive": "True", "PageNumber": page, "PageSize": _PAGE}
        answer = get(f"{self._api(repo)}/repo/tree?{urlencode(query)}", self._headers())
        data = answer.get("Data") if isinstance(answer, dict) else None
        entries = data.get("Files") if isinstance(data, dict) else data
        if isinstance(answer, dict) and answer.get("Code", 200) != 200:
            code = answer["Code"]
            known = isinstance(code, int) and 400 <= code < 600
            raise HubFailure(str(answer.get("Message", "")), code if known else 400)
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and "Path" in entry for entry in entries
        ):
            raise HubFailure("its list of files has another form than expected", 400)
        return entries

    def _api(self, repo: str) -> str:
        return f"{self.endpoint}/api/v1/datasets/{quote(repo)}"

    def _headers(self) -> dict[str, str]:
        if not self._token:
            return {}
        return {
            "Authorization": f"Bearer {self._token}",
            "Cookie": f"m_session_id={self._token}",
        }
