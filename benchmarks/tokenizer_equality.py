"""Are the ids of a converted vocabulary those of its own library, on every text of a folder of data?

    python benchmarks/tokenizer_equality.py DATA out.jsonl FILE.model [FILE.tiktoken ...]

Every text field of every record of every file below DATA is compared through `prove` of
mengya.tokenizer.vocabulary_file. Gives one JSON line a vocabulary file and data file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mengya.data.ingest.reading.files import file_kind
from mengya.data.ingest.reading.read import parse_chunk, read_chunks
from mengya.data.ingest.reading.records import Record, texts_in
from mengya.errors import UserError
from mengya.tokenizer.vocabulary_file import prove, read_vocabulary_file


def texts_of(path: Path) -> Iterator[str]:
    for chunk in read_chunks(path):
        for parsed in parse_chunk(chunk):
            if isinstance(parsed, Record):
                yield from texts_in(parsed.value)


def main() -> None:
    data, out, *files = map(Path, sys.argv[1:])
    sources = sorted(p for p in data.rglob("*") if p.is_file() and file_kind(p) is not None)
    with out.open("a", encoding="utf-8") as lines:
        for file in files:
            vocabulary = read_vocabulary_file(file)
            for source in sources:
                start = time.perf_counter()
                try:
                    found: dict[str, Any] = asdict(prove(vocabulary, texts_of(source)))
                except UserError as error:
                    found = {"error": str(error)}
                found |= {"seconds": round(time.perf_counter() - start, 1)}
                line = {"vocabulary": str(file), "data": str(source), **found}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                lines.flush()


if __name__ == "__main__":
    main()
