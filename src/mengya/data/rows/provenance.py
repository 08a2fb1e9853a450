"""Where the documents of a training step come from: global rows -> shard folder, document, source, text.

Takes the rows that a step is made of; gives what a person needs to find the text again. Read only when
something went wrong, so nothing of it is kept in the shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mengya.data.inspection import source_of
from mengya.data.rows.mixture import Mixture

_TOKENS = 64  # of a document that are shown


def step_documents(
    rows: Mixture, indices: Iterable[int], decode: Callable[[list[int]], str]
) -> Iterator[dict[str, Any]]:
    """Every document, complete or in part, of the global rows `indices`, once.

    Gives `shards` (folder), `document` (index in it), `source` and `files` as far as the manifest
    knows them, and the beginning of the `text`.
    """
    seen: set[tuple[int, int]] = set()
    for index in indices:
        number, stored = rows.locate(index)
        part = rows.sources[number]
        for document in part.documents(stored):
            if (number, document) in seen:
                continue
            seen.add((number, document))
            yield {
                "shards": str(part.shards.directory),
                "document": document,
                **_source(part.shards.manifest, document),
                "text": decode(part.shards.tokens(document, 0, _TOKENS).tolist()),
            }


def _source(manifest: dict[str, Any], document: int) -> dict[str, Any]:
    source = source_of(manifest, document)
    if source is None:
        return {}
    return {"source": source["name"], "files": [file["path"] for file in source["files"]]}
