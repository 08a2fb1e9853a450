"""A conversation that was made, and the files that hold many, which `mengya prepare` reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mengya.endpoint.messages import ChatMessage
from mengya.runtime.jsonl import json_line

CONVERSATIONS = "conversations.jsonl"  # in OUT: what is trained on
REPORT = "report.json"


@dataclass(frozen=True)
class MadeConversation:
    """Messages, and where they come from: a field that `prepare` knows and leaves alone."""

    messages: list[ChatMessage]
    provenance: Mapping[str, Any]

    @property
    def first_question(self) -> str:
        return next(m["content"] for m in self.messages if m["role"] == "user")

    @property
    def turns(self) -> int:
        return sum(m["role"] == "assistant" for m in self.messages)

    def record(self) -> dict[str, Any]:
        return {"messages": self.messages, "provenance": dict(self.provenance)}


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Atomically write a file of JSON lines, a record at a time; gives how many there were."""
    count = 0
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for record in records:
                file.write(json_line(record))
                count += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count
