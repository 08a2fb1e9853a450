"""Numbers and samples of shards in the terminal; without colour what is learned stands between marks."""

from __future__ import annotations

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mengya.data.inspection import Inspection, histogram
from mengya.stages.inspection.samples import Sample
from mengya.text.visible import visible

MARKS = "[[learned]]", "[[/learned]]"
_BAR = 30  # characters of the longest


def print_numbers(console: Console, numbers: Inspection) -> None:
    """Size, duplicates, sources and histograms."""
    for line in summary(numbers):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if numbers.sources:
        console.print(_sources(numbers))
    unit = (
        "side of a pair"
        if numbers.kind == "preference"
        else numbers.kind.replace("text", "document")
    )
    console.print(_bars(f"tokens of a {unit}", histogram(numbers.lengths, powers=True)))
    if numbers.kind == "conversation":
        title = "learned answers of a conversation"
        console.print(_bars(title, histogram(numbers.answers, powers=False)))


def summary(numbers: Inspection) -> list[str]:
    """The numbers of a folder in words."""
    names = {"text": "documents", "conversation": "conversations", "preference": "pairs"}
    lengths = numbers.lengths if len(numbers.lengths) else np.zeros(1, np.int64)
    middle, most = (int(v) for v in np.quantile(lengths, (0.5, 0.95), method="lower"))
    return [
        f"{numbers.samples:,} {names[numbers.kind]}, {numbers.tokens:,} tokens, {numbers.learned:.1%} of "
        f"them learned; {numbers.duplicates:,} duplicates ({numbers.duplicate_share:.2%})",
        f"tokens: median {middle:,}, 95 % at most {most:,}, longest {int(lengths.max()):,}",
    ]


def _sources(numbers: Inspection) -> Table:
    table = Table(title="sources", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for column in ("documents", "tokens", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("license")
    table.add_column("dropped", overflow="fold")
    for source in numbers.sources:
        reasons = sorted(source.dropped.items(), key=lambda item: -item[1])
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in reasons[:3])
        table.add_row(
            Text(visible(source.name)),
            f"{source.documents:,}",
            f"{source.tokens:,}",
            f"{source.share:.1%}",
            Text(visible(source.license or "")),
            Text(visible(dropped)),
        )
    return table


def _bars(title: str, bins: list[tuple[str, int]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    most, total = max((c for _, c in bins), default=1), sum(c for _, c in bins)
    for name, count in bins:
        bar = "█" * round(_BAR * count / most) if count else ""
        table.add_row(name, bar or ("▏" if count else ""), f"{count:,}", f"{count / total:.1%}")
    return table


def print_sample(console: Console, sample: Sample, *, ids: bool) -> None:
    """Its text; where `ids`, every token in a line of its own."""
    title = f"{sample.title}: {sample.length:,} tokens, {sample.learned:,} learned"
    heading = Text(visible(title), style="bold")
    if heading.cell_len + 2 < console.width:
        console.rule(heading, align="left")
    else:  # a rule would cut it
        console.print(heading, soft_wrap=True)
    if ids:
        console.print(_tokens(sample))
    else:
        console.print(
            _text(sample, coloured=console.is_terminal and not console.no_color), soft_wrap=True
        )
    if sample.length > len(sample.tokens):
        left = sample.length - len(sample.tokens)
        console.print(
            f"... {left:,} tokens more; write max_tokens={sample.length}", highlight=False
        )
    console.print()


def _text(sample: Sample, *, coloured: bool) -> Text:
    """Learned: green; control tokens: magenta. Without colour, marks around what is learned."""
    text, learned = Text(), False
    for segment in sample.segments:
        if not coloured and segment.learned != learned:
            text.append(MARKS[0] if segment.learned else MARKS[1])
        learned = segment.learned
        style = "green" if learned else "dim"
        if segment.control:
            style = "bold green" if learned else "magenta"
        text.append(visible(segment.text), style if coloured else None)
    if learned and not coloured:
        text.append(MARKS[1])
    return text


def _tokens(sample: Sample) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("", justify="right")
    for column in ("id", "label"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("text", overflow="fold")
    for number, token in enumerate(sample.tokens):
        style = "green" if token.label >= 0 else ""
        text = visible(token.text).replace("\n", "\\n").replace("\t", "\\t")
        table.add_row(str(number), str(token.id), str(token.label), Text(text, style))
    return table
