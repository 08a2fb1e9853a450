"""What became of a chunk of a source: the samples that are kept, as arrays, and counts of all others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from mengya.data.ingest.reading.records import BadLine
from mengya.data.ingest.samples import excerpt, sample_characters
from mengya.data.ingest.schema import Sample
from mengya.data.prepare.outcome.examples import EXCERPT, Example, Examples
from mengya.text.duplicates import text_hash
from mengya.text.scripts import SCRIPTS


@dataclass(slots=True)
class EncodedChunk:
    """What became of a chunk: N samples kept, D documents (2N for preferences, else N), T tokens.

    Attributes:
        tokens: [T] uint32, the documents end to end; loss_mask: [T] uint8, or nothing for text.
        lengths: [D] int64, tokens of each document.
        hashes, split_hashes: [N] uint64, of the sample, and what decides whether it is held out.
        characters: [N] int64, characters of the text that a loss is taken on (both sides of a preference).
        read: records read, bad lines included; bad: those; dropped: samples left out, by reason.
        unused: for every field that no format knows, how many records hold something in it.
        cut_turns: of conversations, after their last answer.
        file: that the chunk is of; lines: [N] int64, the line of each sample in it.
        excerpts: [N], the beginning of each sample.
        text_characters: [N] int64, characters of the full sample, of all turns of a chat; turns: [N] int64,
            assistant turns.
        scripts: [M, S] int64, characters of every script in the samples of the numbers script_samples: [M].
        dropped_characters: as text_characters, of samples left out, by reason.
        edits: samples that each edit changed.
        hits: (sample, exam item) for every item that a sample holds; dropped_hits: (line, exam item) of
            samples that were dropped for it.
        examples: of what was dropped, by reason; edit_examples: of what was edited, by edit.
        placeholders: samples whose learned answers hold each of them; placeholder_examples: by placeholder.
        signatures, split_signatures: [N, P] uint8, for near-duplicates; [N, 0] where they are not needed.
        keeps: [N] bool, samples with text that others lose: they are not dropped as near-duplicates.
        passages: of all samples, when only these are asked for, to find text that repeats; nothing else then.
    """

    source: int
    file: str = ""
    read: int = 0
    bad: list[BadLine] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    cut_turns: int = 0
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    loss_mask: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    split_hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    characters: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    excerpts: list[str] = field(default_factory=list)
    text_characters: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    turns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    scripts: np.ndarray = field(default_factory=lambda: np.zeros((0, len(SCRIPTS)), np.int64))
    script_samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    dropped_characters: Counter[str] = field(default_factory=Counter)
    edits: Counter[str] = field(default_factory=Counter)
    hits: list[tuple[int, int]] = field(default_factory=list)
    dropped_hits: list[tuple[int, int]] = field(default_factory=list)
    examples: Examples = field(default_factory=Examples)
    edit_examples: Examples = field(default_factory=Examples)
    placeholders: Counter[str] = field(default_factory=Counter)
    placeholder_examples: Examples = field(default_factory=Examples)
    signatures: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    split_signatures: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    keeps: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    passages: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def drop(self, reason: str, candidate: Candidate) -> None:
        """Count a sample that is left out, and keep it as an example if its hash is small enough."""
        self.dropped[reason] += 1
        self.dropped_characters[reason] += sample_characters(candidate.sample)
        text = excerpt(candidate.sample, EXCERPT)
        key = text_hash(text)
        if self.examples.wants(reason, key):
            self.examples.add(reason, Example(key, self.file, candidate.line, text))


@dataclass(slots=True)
class Candidate:
    """A sample on its way to be kept.

    Attributes:
        record: number of its record in the chunk; line: of that record in the file.
        sides: (ids, loss mask) of a conversation, or of both sides of a preference; nothing for text.
        exam_items: that the sample holds.
        keeps_passage: whether other documents lose text that stays in this one.
    """

    record: int
    line: int
    sample: Sample
    sides: list[tuple[list[int], list[int]]] = field(default_factory=list)
    exam_items: list[int] = field(default_factory=list)
    keeps_passage: bool = False
