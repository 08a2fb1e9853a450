"""The fields of a record, and which of them a format never looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PROVENANCE = "provenance"  # where a conversation that mengya made comes from


class Fields(Mapping[str, Any]):
    """A JSON object that notes which of its fields are read; to ask whether one is there is no reading."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._record = record
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return self._record[name]

    def __contains__(self, name: object) -> bool:
        return name in self._record

    def __iter__(self) -> Iterator[str]:
        return iter(self._record)

    def __len__(self) -> int:
        return len(self._record)

    def is_filled(self, name: str) -> bool:
        """Whether the field is there and neither null nor empty; this is no reading either."""
        return _is_filled(self._record.get(name))

    def same(self, name: str, other: str) -> bool:
        return self._record.get(name) == self._record.get(other)

    def unused(self) -> list[str]:
        """Names of the fields that hold something and were never read, but for the provenance."""
        read = {*self._read, PROVENANCE}
        return [n for n, v in self._record.items() if n not in read and _is_filled(v)]


def without_nulls(value: Any) -> Any:
    """`value` without the null fields of its objects: Arrow gives every object the fields of all others."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def _is_filled(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}
