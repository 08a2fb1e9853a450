"""Encoded chunks -> shard folders: deduplication, the validation split, the counts, resuming.

A build lives in a folder of its own: a shard folder per split, `bad_lines.jsonl`, and until it is finished
`state.json`, `hashes.bin` and the files of duplicates/. `commit` notes how much of every file belongs
to the chunks done; a build that is opened again cuts the files back to that and resumes with the next chunk,
so it ends in the same bytes.
Knows nothing of processes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mengya.data.ingest.reading.records import SHOWN_BAD, BadLine, too_many_bad_lines
from mengya.data.ingest.samples import held_out
from mengya.data.prepare.duplicates.near_duplicates import NEAR_FILES, NearDuplicates, TextOf
from mengya.data.prepare.duplicates.repeated_text import TABLE
from mengya.data.prepare.duplicates.signing import Signing
from mengya.data.prepare.exams.check import ExamCheck
from mengya.data.prepare.exams.hits import HITS, ExamHits
from mengya.data.prepare.outcome.counts import Kept, SourceCounts, add_up
from mengya.data.prepare.outcome.encoded_chunk import EncodedChunk
from mengya.data.prepare.outcome.examples import EXAMPLES
from mengya.data.prepare.reasons import key_of
from mengya.data.prepare.report.facts import report_facts
from mengya.data.shards import ShardWriter
from mengya.errors import UserError
from mengya.runtime.files import write_text
from mengya.runtime.jsonl import json_line
from mengya.text.duplicates import SeenHashes

STATE, HASHES, BAD_LINES = "state.json", "hashes.bin", "bad_lines.jsonl"
TRAIN, VALIDATION = "train", "validation"
ALL_EXAMPLES = 100  # of one reason over all sources, since state.json holds them


class Build:
    """Writes shards below `directory`; resumes when a state of the same `request` is there.

    Attributes:
        chunks_done: how many chunks a caller must skip.
        sources: the counts of every source.
        near_duplicates: what becomes of near-duplicates; None when nobody looks for them.
        exam_hits: which exam items it holds; None when nobody looks for them.

    Raises:
        UserError: a source has more bad lines than allowed, here, in `add` or in `finish`.
    """

    def __init__(
        self,
        directory: Path,
        request: str,
        *,
        kind: str,
        vocab_size: int,
        sources: int,
        dedup: bool,
        validation_fraction: float,
        max_bad_lines: int,
        max_bad_share: float = 0.0,
        signing: Signing | None = None,
        exam_check: ExamCheck | None = None,
    ) -> None:
        self.directory, self.request = directory, request
        self._kind, self._dedup, self._fraction = kind, dedup, validation_fraction
        self.chunks_done = 0
        examples = max(1, min(EXAMPLES, ALL_EXAMPLES // sources))
        self.sources = [SourceCounts.empty(examples) for _ in range(sources)]
        self._max_bad_lines, self._max_bad_share = max_bad_lines, max_bad_share
        self._first_bad: list[list[BadLine]] = [[] for _ in range(sources)]
        splits = (TRAIN, VALIDATION) if validation_fraction > 0 else (TRAIN,)
        state = read_state(directory, request)
        if state is None:
            directory.mkdir(parents=True, exist_ok=True)
            for name in (HASHES, BAD_LINES):
                (directory / name).write_bytes(b"")
            state = {"splits": {}, "hashes": 0, "bad_bytes": 0}
            state |= {"near_duplicates": None, "exam_hits": None}
        else:
            self.chunks_done = state["chunks"]
            self.sources = [SourceCounts.of(source, examples) for source in state["sources"]]
            os.truncate(directory / HASHES, state["hashes"] * 8)
            os.truncate(directory / BAD_LINES, state["bad_bytes"])
            with (directory / BAD_LINES).open(encoding="utf-8", newline="\n") as lines:
                bad = (BadLine(**json.loads(line)) for line in lines)
                for number, source in enumerate(self.sources):  # they were read in this order
                    self._first_bad[number] = list(islice(bad, source.bad))[:SHOWN_BAD]
                    self._check_bad_lines(number)
        self.writers = {
            split: ShardWriter(
                directory / split if len(splits) > 1 else directory,
                kind,
                vocab_size,
                resume=state["splits"].get(split),
            )
            for split in splits
        }
        self.near_duplicates = (
            NearDuplicates(directory, signing, state["near_duplicates"]) if signing else None
        )
        self.exam_hits = ExamHits(directory, exam_check, state["exam_hits"]) if exam_check else None
        self._seen = SeenHashes(np.fromfile(directory / HASHES, "<u8"))
        self._hashes = (directory / HASHES).open("ab")
        self._bad = (directory / BAD_LINES).open("ab")

    def add(self, chunk: EncodedChunk) -> None:
        """Write what is new in a chunk, and count what became of everything in it."""
        counts = self.sources[chunk.source]
        counts.add(chunk)
        for bad in chunk.bad:
            self._bad.write(json_line(asdict(bad)).encode())
        new = first = np.ones(len(chunk.hashes), bool)
        if self._dedup or chunk.keeps.any():
            first = self._seen.add(chunk.hashes)
            self._hashes.write(chunk.hashes[first].astype("<u8").tobytes())
        if self._dedup:
            new = first
            counts.drop("duplicate", chunk, ~new)
        validation = held_out(chunk.split_hashes, self._fraction)
        if self.near_duplicates is not None:
            new, validation, dropped = self.near_duplicates.decide(
                chunk, new, validation, stays=chunk.keeps & first
            )
            for reason, samples in dropped.items():
                counts.drop(reason, chunk, samples)
        counts.keep(chunk, new)
        chosen = {s: new & (validation if s == VALIDATION else ~validation) for s in self.writers}
        for split, samples in chosen.items():
            self._write(split, chunk, samples, counts)
        if self.exam_hits is not None:
            self.exam_hits.add(chunk, chosen)
        self.chunks_done += 1
        first = self._first_bad[chunk.source]
        first += chunk.bad[: max(0, SHOWN_BAD - len(first))]
        # last: when this raises, the chunk is written completely
        for source in range(chunk.source):
            self._check_bad_lines(source, ended=True)
        self._check_bad_lines(chunk.source)

    def commit(self) -> None:
        """Flush all files to disk and note how much of them is good."""
        for file in (self._hashes, self._bad):
            file.flush()
            os.fsync(file.fileno())
        state = {
            "request": self.request,
            "chunks": self.chunks_done,
            "splits": {split: writer.state() for split, writer in self.writers.items()},
            "hashes": self._hashes.tell() // 8,
            "bad_bytes": self._bad.tell(),
            "sources": [source.state() for source in self.sources],
            "near_duplicates": self.near_duplicates and self.near_duplicates.commit(),
            "exam_hits": self.exam_hits and self.exam_hits.commit(),
        }
        write_text(self.directory / STATE, json.dumps(state))

    def finish(self, facts: dict[str, Any], source_facts: list[dict[str, Any]]) -> None:
        """Write the manifests. Until `clear` the build can be opened again, to finish it once more.

        Raises:
            UserError: a split is empty, or a source has more bad lines than allowed.
        """
        for number in range(len(self.sources)):
            self._check_bad_lines(number, ended=True)
        totals = {
            split: add_up(s.kept[split] for s in self.sources if split in s.kept)
            for split in self.writers
        }
        for split, total in totals.items():
            if total.samples == 0:
                read = sum(source.read for source in self.sources)
                raise UserError(
                    f"nothing is left for {split} of {read} records read"
                    f"{self._way_out(split, read, totals)}; the table and bad_lines.jsonl say why"
                )
        dropped: Counter[str] = Counter()
        for source in self.sources:
            dropped.update(source.dropped)
        self.close()
        if self.near_duplicates is not None:
            facts = {**facts, "near_duplicates": self.near_duplicates.facts()}
        if self.exam_hits is not None:
            self.exam_hits.finish()
        for split, writer in self.writers.items():
            writer.close(
                **facts,
                **({"contamination": self.exam_hits.facts(split)} if self.exam_hits else {}),
                split=split,
                samples=totals[split].samples,
                characters=totals[split].characters,
                learnt_tokens=totals[split].learnt_tokens,
                read=sum(source.read for source in self.sources),
                bad_lines=sum(source.bad for source in self.sources),
                dropped=dict(sorted(dropped.items())),
                sources=[
                    {
                        **facts_of_source,
                        "read": source.read,
                        "bad_lines": source.bad,
                        "dropped": dict(sorted(source.dropped.items())),
                        "unused_fields": dict(sorted(source.unused.items())),
                        "cut_turns": source.cut_turns,
                        **asdict(source.kept.get(split, Kept())),
                    }
                    for facts_of_source, source in zip(source_facts, self.sources, strict=True)
                ],
            )

    def _way_out(self, split: str, read: int, totals: dict[str, Kept]) -> str:
        """What to type when a split is empty."""
        if any(total.samples for total in totals.values()):
            verb = "lower" if split == TRAIN else "raise"
            return f"; {verb} validation_fraction or set it to 0"
        if not read:
            return ", which have none: name other sources"
        dropped: Counter[str] = Counter()
        for source in self.sources:
            dropped.update(source.dropped)
        if not dropped:
            return ""
        reason, count = dropped.most_common(1)[0]
        key = key_of(reason)
        return f": {count:,} were dropped as {reason}" + (
            f"; write {key} to keep them" if key else ""
        )

    def report(self, source_facts: list[dict[str, Any]], text_of: TextOf) -> dict[str, Any]:
        """The values of data_report.json; after `finish`."""
        more: dict[str, Any] = {}
        if self.near_duplicates is not None:
            more["near_duplicates"] = self.near_duplicates.report(text_of)
        if self.exam_hits is not None:
            more["contamination"] = self.exam_hits.report()
        return report_facts(self._kind, self.sources, source_facts, self._first_bad, more)

    def close(self) -> None:
        for file in (self._hashes, self._bad):
            file.close()
        if self.near_duplicates is not None:
            self.near_duplicates.close()
        if self.exam_hits is not None:
            self.exam_hits.close()

    def _check_bad_lines(self, source: int, ended: bool = False) -> None:
        """Refuse too many; a share is compared only at the end, since bad lines come in heaps."""
        counts = self.sources[source]
        share = int(self._max_bad_share * counts.read)
        if (ended or not self._max_bad_share) and counts.bad > max(self._max_bad_lines, share):
            raise too_many_bad_lines(
                self._max_bad_lines,
                self._first_bad[source],
                f" in one source (of {counts.read:,} read)",
                " or max_bad_share=0.1",
            )

    def _write(
        self, split: str, chunk: EncodedChunk, samples: np.ndarray, counts: SourceCounts
    ) -> None:
        """Write the chosen samples (bool [N]) of a chunk to a split."""
        kept = counts.kept.setdefault(split, Kept())
        if not samples.any():
            return
        documents = np.repeat(samples, 2) if self._kind == "preference" else samples
        tokens, mask, lengths = chunk.tokens, chunk.loss_mask, chunk.lengths
        if not samples.all():
            chosen = np.repeat(documents, lengths)
            tokens, lengths = tokens[chosen], lengths[documents]
            mask = mask[chosen] if len(mask) else mask
        self.writers[split].add(tokens, lengths, mask if len(mask) else None)
        kept.samples += int(samples.sum())
        kept.documents += len(lengths)
        kept.tokens += len(tokens)
        kept.learnt_tokens += int(mask.sum()) if len(mask) else len(tokens) - len(lengths)
        kept.characters += int(chunk.characters[samples].sum())


def clear(directory: Path) -> None:
    """Remove what only an unfinished build needs, as the last thing that is done."""
    for name in (STATE, HASHES, *NEAR_FILES, TABLE, HITS):
        (directory / name).unlink(missing_ok=True)
    bad_lines = directory / BAD_LINES
    if bad_lines.is_file() and not bad_lines.stat().st_size:
        bad_lines.unlink()


def read_state(directory: Path, request: str) -> dict[str, Any] | None:
    """The state that an unfinished build of the same request left; None when there is none."""
    try:
        state = json.loads((directory / STATE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return state if isinstance(state, dict) and state.get("request") == request else None
