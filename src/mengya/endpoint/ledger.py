"""The ledger: every request that was sent and every reply that came, on disk before anything else happens.

An append-only file of JSON lines, flushed to disk line by line, so that a crash never pays for a reply twice:

    {"sent": KEY, "most": [input tokens, output tokens]}      before a request leaves
    {"reply": KEY, "id": ..., "text": ..., ...}               when its reply is here
    {"over": KEY}                                             when it failed and was not charged
    {"lost": KEY}                                             when it failed and may have been charged

Keys are those of `request_key`. Replies stay on disk; in memory are their places. A last line that a crash
cut short is removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mengya.endpoint.messages import Completion, Usage
from mengya.errors import UserError
from mengya.runtime.files import sync_path
from mengya.runtime.jsonl import json_line, remove_cut_line


class Ledger:
    """Opens the file, or makes it; one process at a time (the folder of it is locked by its verb).

    Attributes:
        spent: tokens of all replies in it; uncertain: at most, of requests that were lost.
        lost: how many requests were sent and have no reply.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, int] = {}
        self.spent, self.uncertain, self.lost = Usage(), Usage(), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_cut_line(path)
        self._file = path.open("a+b", buffering=0)
        sync_path(path.parent)
        self._end = 0
        self._read()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def reply(self, key: str) -> Completion | None:
        """The reply to a request; None when there is none yet."""
        place = self._places.get(key)
        if place is None:
            return None
        with self._path.open("rb") as file:
            file.seek(place)
            return _completion(json.loads(file.readline()))

    def sent(self, key: str, most: Usage) -> None:
        """A request is about to leave."""
        self._append({"sent": key, "most": [most.input, most.output]})

    def over(self, key: str, charged: bool) -> None:
        """It failed; `charged`: the endpoint may have charged for it."""
        self._append({"lost" if charged else "over": key})

    def replied(self, key: str, completion: Completion) -> None:
        """Its reply is here."""
        place = self._end
        values = {"reply": key, "id": completion.id, "text": completion.text}
        values |= {"usage": [completion.usage.input, completion.usage.output]}
        for name in ("problem", "detail", "model", "usage_is_ours"):
            if value := getattr(completion, name):
                values[name] = value
        self._append(values)
        self._places[key] = place

    def _append(self, values: Mapping[str, Any]) -> None:
        line = json_line(values).encode()
        written = 0
        while written < len(line):
            written += os.write(self._file.fileno(), line[written:])
        os.fsync(self._file.fileno())
        self._end += len(line)

    def _read(self) -> None:
        """Lines in their order; a request that was sent and has no end was lost by a crash."""
        under_way: dict[str, Usage] = {}
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    self._take(json.loads(line), under_way)
                except (ValueError, TypeError, KeyError):
                    raise UserError(
                        f"{self._path}:{number} is not a line of the ledger of paid replies; remove that line"
                    ) from None
                self._end += len(line)
        for most in under_way.values():
            self._lose(most)

    def _take(self, values: dict[str, Any], under_way: dict[str, Usage]) -> None:
        if "sent" in values:
            self._lose(under_way.pop(values["sent"], None))  # of a run that was killed
            under_way[values["sent"]] = Usage(*map(int, values["most"]))
        elif "reply" in values:
            under_way.pop(values["reply"], None)
            self._places[values["reply"]] = self._end
            self.spent += _completion(values).usage
        elif "over" in values:
            under_way.pop(values["over"], None)
        else:
            self._lose(under_way.pop(values["lost"], Usage()))

    def _lose(self, most: Usage | None) -> None:
        if most is not None:
            self.uncertain += most
            self.lost += 1


def _completion(values: Mapping[str, Any]) -> Completion:
    return Completion(
        id=values["id"],
        text=values["text"],
        problem=values.get("problem"),
        detail=values.get("detail", ""),
        usage=Usage(*map(int, values["usage"])),
        model=values.get("model", ""),
        usage_is_ours=values.get("usage_is_ours", False),
    )
