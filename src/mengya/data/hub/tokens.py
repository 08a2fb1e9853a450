"""How many tokens the text of a record has, for a limit in tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mengya.data.ingest.reading.records import texts_in


def token_counter(
    tokenizer: Path, field: str | list[str] | None
) -> Callable[[list[Any]], list[int]]:
    """A function of lines of JSON that gives the tokens of each, as `prepare` would see them.

    Args:
        field: that holds the text; None, or where a record lacks it: of all texts in the record.

    Raises:
        UserError: the tokenizer cannot be read.
    """
    from mengya.tokenizer.load import load_tokenizer, plain_backend

    backend = plain_backend(load_tokenizer(tokenizer))
    names = [field] if isinstance(field, str) else field or []

    def count(lines: list[bytes]) -> list[int]:
        texts = ["\n".join(_texts(line, names)) for line in lines]
        return [len(e.ids) for e in backend.encode_batch_fast(texts, add_special_tokens=False)]

    return count


def _texts(line: bytes, names: list[str]) -> Iterator[str]:
    try:
        record = json.loads(line)
    except ValueError:
        return  # a bad line, which `prepare` reports
    if isinstance(record, dict) and any(name in record for name in names):
        record = [record.get(name) for name in names]
    yield from texts_in(record)
