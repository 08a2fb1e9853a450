"""What the terminal says of a `prepare` run: a table of numbers by source, and the reasons in lines below.

Takes the counts of a build; prints. No name is cut or folded: where one leaves no room for the numbers, all
stand on lines of their own, above them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console

from mengya.data.prepare.outcome.counts import SourceCounts
from mengya.data.rows.fitting import fit_rows
from mengya.data.shards import MANIFEST, TokenShards
from mengya.text.visible import visible

ROWS = (512, 1024, 2048, 4096)  # lengths to count long chats for
_SOURCE = "source"
_COLUMNS = ("read", "bad", "dropped", "kept", "held out", "tokens", "characters")
_GAP = "  "


def print_table(
    console: Console,
    title: str,
    sources: Sequence[str],
    counts: Sequence[SourceCounts],
    left_out: Sequence[str] = (),
) -> None:
    """What was read, kept and dropped, one row a source; names and counts in the same order.

    Args:
        left_out: names of files of an unknown form.
    """
    names = [visible(name) for name in sources]
    cells = [[f"{number:,}" for number in _numbers(counted)] for counted in counts]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
    first = max(cell_len(name) for name in (_SOURCE, *names))
    apart = 1 + first + sum(len(_GAP) + width for width in widths) > console.width

    def row(name: str, numbers: Sequence[str]) -> str:
        right = [number.rjust(width) for number, width in zip(numbers, widths, strict=True)]
        left = [] if apart else [name + " " * (first - cell_len(name))]
        return f" {_GAP.join([*left, *right])}"

    head = row(_SOURCE, _COLUMNS)
    console.print()
    _say(console, f" {visible(title)}", style="italic")
    console.print()
    _say(console, head, style="bold")
    _say(console, f" {'─' * (len(head) - 1)}")
    for name, numbers in zip(names, cells, strict=True):
        if apart:
            _say(console, f" {name}")
        _say(console, row(name, numbers))
    console.print()
    for name in left_out:
        _say(console, f"left out, of an unknown form: {visible(name)}")
    for name, counted in zip(names, counts, strict=True):
        _print_remarks(console, name, counted)


def _numbers(counted: SourceCounts) -> tuple[int, ...]:
    """Of `_COLUMNS`."""
    total, held = counted.total, counted.kept.get("validation")
    dropped = sum(counted.dropped.values())
    kept = (total.samples, held.samples if held else 0, total.tokens, total.characters)
    return (counted.read, counted.bad, dropped, *kept)


def _print_remarks(console: Console, name: str, counted: SourceCounts) -> None:
    """Why samples of a source were dropped, and what else became of them."""
    remarks = {
        "dropped": counted.dropped,
        "edits (samples that they changed)": counted.edits,
        "fields that were not used (records that have them)": counted.unused,
    }
    for what, found in remarks.items():
        if listed := ", ".join(f"{one} ({n:,})" for one, n in found.most_common() if n):
            _say(console, visible(f"{name}: {what}: {listed}"))
    if counted.cut_turns:
        turns = f"{counted.cut_turns:,} turns after the last answer of a conversation were cut"
        _say(console, f"{name}: {turns}")


def warn_placeholders(
    console: Console, sources: Sequence[str], counts: Sequence[SourceCounts], dropped: bool
) -> None:
    """Say which placeholders nobody filled in, and what to type; nothing where there are none."""
    found: Counter[str] = Counter()
    for name, counted in zip(sources, counts, strict=True):
        if not counted.placeholders:
            continue
        found += counted.placeholders
        listed = ", ".join(f"{n:,} hold {what}" for what, n in counted.placeholders.most_common(5))
        more = len(counted.placeholders) - 5
        lines = [f"{name}: of the learned answers {listed}{f', {more} others' if more > 0 else ''}"]
        most = counted.placeholders.most_common(1)[0][0]
        for one in counted.placeholder_examples.by_name[most][:2]:
            lines.append(f"  {one.file}:{one.line}: {' '.join(one.text.split())}")
        for line in lines:
            _say(console, visible(line))
    if found and not dropped:
        fill = json.dumps({what: "..." for what, _ in found.most_common(4)}, ensure_ascii=False)
        advice = (
            "Nobody filled these placeholders in: the model would learn to say them. Fill them with "
            f"fill='{fill}', or drop these samples with placeholders=drop"
        )
        _say(console, advice, style="yellow")


def print_lengths(console: Console, directory: Path) -> None:
    """How many chats below `directory` do not fit the usual rows: training will not use all of them."""
    shards = [TokenShards(manifest.parent) for manifest in sorted(directory.rglob(MANIFEST))]
    shortest = [fit_rows(each, ROWS[0]) for each in shards]
    longest = max(fitting.needed for fitting in shortest)
    counts = []
    for size in (size for size in ROWS if size < longest):
        fitted = shortest if size == ROWS[0] else [fit_rows(each, size) for each in shards]
        shortened, left_out = sum(f.shortened for f in fitted), sum(f.left_out for f in fitted)
        counts.append(f"{size:,}: {shortened:,} shortened, {left_out:,} left out")
    needed = f"the longest takes data.sequence_length={longest}"
    _say(console, "\n  ".join([f"{needed}; rows of", *counts]) if counts else needed)


def _say(console: Console, line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True, emoji=False)
