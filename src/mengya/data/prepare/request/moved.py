"""What of a request decides the shards, and what only says where their sources lay and what they are called.

Takes the `request` of a `prepare` run (inputs.py). Files that were moved or renamed, or a source with
another name or license, make the same shards: then the manifests are put right and nothing is encoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mengya.data.ingest.reading.files import file_kind
from mengya.data.shards import MANIFEST
from mengya.errors import UserError, shown
from mengya.runtime.files import write_text

_FACTS = ("name", "license", "hub")  # of a source; the last one only where it came from a hub


def content(request: dict[str, Any]) -> dict[str, Any]:
    """A request without its facts: two of equal content make equal shards."""
    sources = [
        {key: value for key, value in source.items() if key not in _FACTS}
        | {"files": [_content_of_file(file) for file in source["files"]]}
        for source in request["sources"]
    ]
    return {key: value for key, value in request.items() if key != "left_out"} | {
        "sources": sources
    }


def changed_facts(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is called otherwise, or lies elsewhere, in two requests of equal content; one line each."""
    lines = []
    for old, new in zip(before["sources"], now["sources"], strict=True):
        files = zip(old["files"], new["files"], strict=True)
        paths = [(a["path"], b["path"]) for a, b in files if a["path"] != b["path"]]
        lines += [f"{a} -> {b}" for a, b in paths]
        # Without a name of its own a source is called after its file.
        named = ("license", "hub") if paths else _FACTS
        lines += [
            f"{key} of {new['name']}: {_shown(old.get(key))} -> {_shown(new.get(key))}"
            for key in named
            if old.get(key) != new.get(key)
        ]
    left_out = [set(request.get("left_out", [])) for request in (before, now)]
    if left_out[0] != left_out[1]:
        lines.append(f"files left out: {len(left_out[0])} -> {len(left_out[1])}")
    return lines


def check_manifest(manifest: dict[str, Any], request: dict[str, Any]) -> None:
    """Refuse a manifest that does not have the sources of the request that it was made for."""
    found = manifest.get("sources")
    expected = request["sources"]
    if not isinstance(found, list) or len(found) != len(expected):
        raise UserError(f"its manifest does not have the {len(expected)} sources of prepare.json")


def write_facts(folder: Path, request: dict[str, Any]) -> None:
    """Put those of `request` into the manifests below `folder`, which `check_manifest` has passed."""
    for path in sorted(folder.rglob(MANIFEST)):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for stored, source in zip(manifest["sources"], request["sources"], strict=True):
            stored.pop("hub", None)
            stored.update({key: source[key] for key in (*_FACTS, "files") if key in source})
        manifest.pop("left_out", None)
        if "left_out" in request:
            manifest["left_out"] = request["left_out"]
        write_text(path, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")


def only_order_differs(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the same files are read, one after another in another order."""
    digests = [[file["sha256"] for file in _files(request)] for request in (before, now)]
    return digests[0] != digests[1] and sorted(digests[0]) == sorted(digests[1])


def in_earlier_order(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The paths of now, in the order in which their contents were read before."""
    places: dict[str, list[str]] = {}
    for file in _files(now):
        places.setdefault(file["sha256"], []).append(file["path"])
    return [places[file["sha256"]].pop(0) for file in _files(before)]


def _files(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (file for source in request["sources"] for file in source["files"])


def _content_of_file(file: dict[str, Any]) -> dict[str, Any]:
    """Its name matters only for how it is read."""
    path = Path(file["path"])
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1] if suffixes and suffixes[-1] in (".gz", ".zst") else ""
    read_as = f"{file_kind(path)}{packed}{'.tsv' if '.tsv' in path.suffixes else ''}"
    return {key: value for key, value in file.items() if key != "path"} | {"read_as": read_as}


def _shown(value: Any) -> str:
    return "null" if value is None else shown(value)
