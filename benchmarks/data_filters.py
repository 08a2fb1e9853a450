"""What filters drop of a folder of text: by source and reason, with samples to read, and their speed.

    python benchmarks/data_filters.py FOLDER [--set base=standard pii.action=drop] [--limit 0]
        [--sample 200 --samples drops.txt] [--megabytes 20]

Reads every FOLDER/*.jsonl and *.jsonl.gz with the text in `text`, each a source. Prints a table of the shares
of documents and characters that are dropped, one of the edits, and the speed of every edit and filter and of
all together, in one thread and CPU time. The sample holds drops of all reasons in turn, chosen by their hash.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from mengya.config import load_config
from mengya.text.clean import CleanConfig, clean_text
from mengya.text.duplicates import text_hash
from mengya.text.filters.config import FilterConfig
from mengya.text.filters.pipeline import TextFilters


class Drop(NamedTuple):
    """A document that is dropped."""

    order: int
    source: str
    reason: str
    text: str


def documents(path: Path) -> Iterator[str]:
    """The texts of a file."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield clean_text(json.loads(line)["text"], CleanConfig())


def sampled(drops: list[Drop], size: int) -> list[Drop]:
    """Some of every reason and source in turn, until there are enough."""
    groups: dict[tuple[str, str], list[Drop]] = defaultdict(list)
    for drop in sorted(drops):
        groups[drop.reason, drop.source].append(drop)
    by_reason: dict[str, list[list[Drop]]] = defaultdict(list)
    for (reason, _), group in groups.items():
        by_reason[reason].append(group)
    lines = [
        [drop for turn in zip_longest(*of_reason) for drop in turn if drop is not None]
        for of_reason in by_reason.values()
    ]
    turns = (drop for turn in zip_longest(*lines) for drop in turn if drop is not None)
    return sorted(islice(turns, size), key=lambda drop: (drop.reason, drop.source, drop.order))


def write_samples(path: Path, drops: list[Drop]) -> None:
    """The beginning, middle and end of every drop."""
    with path.open("w", encoding="utf-8") as out:
        for number, drop in enumerate(drops, 1):
            text = drop.text
            middle = len(text) // 2
            shown = text if len(text) < 500 else (
                f"{text[:260]}\n[...]\n{text[middle : middle + 120]}\n[...]\n{text[-100:]}"
            )  # fmt: skip
            out.write(
                f"=== {number} {drop.reason} {drop.source} {len(text)} characters\n{shown}\n\n"
            )


def print_table(title: str, rows: dict[str, Counter[str]], totals: Counter[str]) -> None:
    """A Markdown table: a row for each source, a column for each reason, as shares of `totals`."""
    names = sorted({name for row in rows.values() for name in row})
    print(f"\n| {title} | all | {' | '.join(names)} |\n|---|---:|{'---:|' * len(names)}")
    everything: Counter[str] = Counter()
    for source in sorted(totals):
        everything.update(rows[source])
        print(f"| {source} | {_cells(rows[source], names, totals[source])} |")
    print(f"| together | {_cells(everything, names, totals.total())} |", flush=True)


def _cells(row: Counter[str], names: list[str], total: int) -> str:
    parts = [row.total(), *(row[name] for name in names)]
    return " | ".join(f"{part / max(1, total):.2%}" if part else "" for part in parts)


def measure_speed(filters: TextFilters, texts: list[str]) -> None:
    """Megabytes of UTF-8 in a second of CPU time, of each part and of all together."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"\n{len(texts)} documents, {size:.1f} MB\n\n| part | MB/s |\n|---|---:|")
    parts: list[tuple[str, Callable[[str], object]]] = [
        *((f"edit {name}", edit) for name, edit in filters.edits),
        *((type(part).__name__, part) for part in filters.filters),
        ("together", lambda text: filters.reason(filters.edit(text).text)),
    ]
    for name, part in parts:
        print(f"| {name} | {size / _seconds(part, texts):.1f} |", flush=True)


def _seconds(part: Callable[[str], object], texts: list[str]) -> float:
    part(texts[0])
    started = time.process_time()
    for text in texts:
        part(text)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", nargs="*", default=["base=standard"])
    parser.add_argument("--limit", type=int, default=0, help="documents of each source, 0 for all")
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--samples", type=Path)
    parser.add_argument(
        "--megabytes", type=float, default=20.0, help="text to measure the speed on"
    )
    args = parser.parse_args()
    filters = TextFilters(load_config(FilterConfig, None, args.set))
    files = sorted(path for path in args.folder.iterdir() if ".jsonl" in path.name)
    read, characters = Counter[str](), Counter[str]()
    dropped: dict[str, Counter[str]] = defaultdict(Counter)
    lost: dict[str, Counter[str]] = defaultdict(Counter)
    edits: dict[str, Counter[str]] = defaultdict(Counter)
    drops: list[Drop] = []
    timed: list[str] = []
    for path in track(files, "filtering", console=Console(stderr=True)):
        source, room = path.name.split(".")[0], args.megabytes * 1e6 / len(files)
        for text in islice(documents(path), args.limit or None):
            if room > 0:
                timed.append(text)
                room -= len(text.encode())
            edited = filters.edit(text)
            read[source] += 1
            characters[source] += len(text)
            edits[source].update(edited.by)
            if reason := filters.reason(edited.text):
                dropped[source][reason] += 1
                lost[source][reason] += len(text)
                drops.append(Drop(text_hash(text), source, reason, edited.text))
    print(f"{read.total()} documents, {characters.total()} characters, {len(drops)} dropped")
    print_table("documents dropped", dropped, read)
    print_table("characters dropped", lost, characters)
    print_table("documents edited", edits, read)
    if args.samples:
        write_samples(args.samples, sampled(drops, args.sample))
    measure_speed(filters, timed)


if __name__ == "__main__":
    main()
