"""data_report.json: what became of every source, in numbers and examples.

Takes the counts of a finished build and the files of its sources; gives values for JSON. The same data and
settings give the same values: no times, no place of the output folder.

    {"kind": "text", "sources": [{"name", "read", "bad", "bad_lines", "dropped": {REASON: {"samples",
     "characters", "examples": [{"file", "line", "text"}]}}, "edits": {NAME: {"samples", "examples": [{"file",
     "line", "before", "text"}]}}, "kept": {...}}], "histograms": {...}, "licenses": [...], ...}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mengya.data.ingest.reading.records import BadLine
from mengya.data.prepare.outcome.counts import KEPT, SourceCounts
from mengya.data.prepare.outcome.examples import Example
from mengya.data.prepare.outcome.histograms import MAX_TURNS, Histograms, add_histograms

FORMAT = 1


def report_facts(
    kind: str,
    counts: Sequence[SourceCounts],
    source_facts: Sequence[Mapping[str, Any]],
    bad_lines: Sequence[Sequence[BadLine]],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The values of data_report.json.

    Args:
        source_facts: name, license and files of every source.
        bad_lines: the first ones of every source.
        more: sections that others found, such as near_duplicates and contamination.
    """
    sources = zip(source_facts, counts, bad_lines, strict=True)
    return {
        "format": FORMAT,
        "kind": kind,
        "sources": [_source(facts["name"], counted, bad) for facts, counted, bad in sources],
        "histograms": _histograms(add_histograms(counted.histograms for counted in counts)),
        "licenses": _licenses(counts, source_facts),
        **({"placeholders": found} if (found := _placeholders(counts, source_facts)) else {}),
        **more,
    }


def _source(name: str, counts: SourceCounts, bad_lines: Sequence[BadLine]) -> dict[str, Any]:
    total, held = counts.total, counts.kept.get("validation")
    examples, edits = counts.examples.by_name, counts.edit_examples.by_name
    return {
        "name": name,
        "read": counts.read,
        "bad": counts.bad,
        "bad_lines": [asdict(bad) for bad in bad_lines],
        "dropped": {
            reason: {
                "samples": samples,
                "characters": counts.dropped_characters[reason],
                "examples": _examples(examples.get(reason, ())),
            }
            for reason, samples in sorted(counts.dropped.items())
            if samples
        },
        "edits": {
            edit: {"samples": samples, "examples": _examples(edits.get(edit, ()))}
            for edit, samples in sorted(counts.edits.items())
        },
        "cut_turns": counts.cut_turns,
        "unused_fields": dict(counts.unused.most_common()),
        "kept": {
            "samples": total.samples,
            "held_out": held.samples if held else 0,
            "characters": counts.kept_characters,
            "learned_characters": total.characters,
            "tokens": total.tokens,
            "learnt_tokens": total.learnt_tokens,
            "examples": _examples(examples.get(KEPT, ())),
        },
    }


def _examples(chosen: Sequence[Example]) -> list[dict[str, Any]]:
    values = (
        {"file": one.file, "line": one.line, "before": one.before, "text": one.text}
        for one in chosen
    )
    return [{key: value for key, value in each.items() if value is not None} for each in values]


def _placeholders(
    counts: Sequence[SourceCounts], source_facts: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    return [
        {
            "source": facts["name"],
            "placeholder": name,
            "samples": samples,
            "examples": _examples(counted.placeholder_examples.by_name.get(name, ())),
        }
        for facts, counted in zip(source_facts, counts, strict=True)
        for name, samples in counted.placeholders.most_common()
    ]


def _histograms(total: Histograms) -> dict[str, Any]:
    turns = _every_bin(total.turns)
    return {
        "characters": _octaves(total.characters),
        "tokens": _octaves(total.tokens),
        "turns": [
            {"from": turn, "to": turn if turn < MAX_TURNS else None, "samples": samples}
            for turn, samples in turns
            if turn
        ],
        "chinese": [
            {"from": tenth / 10, "to": (tenth + 1) / 10, "samples": total.chinese[tenth]}
            for tenth in range(10)
        ]
        if total.chinese
        else [],
        "scripts": dict(total.scripts.most_common()),
    }


def _octaves(counted: Counter[int]) -> list[dict[str, Any]]:
    return [
        {"from": 1 << bin_, "to": (2 << bin_) - 1, "samples": samples}
        for bin_, samples in _every_bin(counted)
    ]


def _every_bin(counted: Counter[int]) -> list[tuple[int, int]]:
    """Those between the first and the last too that nothing fell into."""
    return [(b, counted[b]) for b in range(min(counted), max(counted) + 1)] if counted else []


def _licenses(
    counts: Sequence[SourceCounts], source_facts: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    everything = sum(counted.kept_characters for counted in counts)
    return [
        {
            "source": facts["name"],
            "license": facts["license"],
            "characters": counted.kept_characters,
            "share": counted.kept_characters / everything if everything else 0.0,
            "files": [
                {key: file[key] for key in ("path", "bytes", "sha256")} for file in facts["files"]
            ],
        }
        for facts, counted in zip(source_facts, counts, strict=True)
    ]
