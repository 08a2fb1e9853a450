"""Who runs in the next step, with how many tokens, on which pages.

Takes sequences as they come; gives the work of one forward pass. Knows nothing of tensors or tokens'
meaning. First come, first served: the waiting line is never overtaken, and when pages run out it is
the newest running sequence that goes back to the head of the line, to be computed again later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from mengya.generation.batch.page_allocator import PageAllocator, page_key, root_key
from mengya.generation.batch.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """One forward pass.

    Attributes:
        sequences: of one adapter, those with one token first.
        counts: tokens of each.
        ready: those whose next token can be chosen afterwards.
        entered: sequences that have a row since this plan.
    """

    sequences: list[Sequence] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    ready: list[Sequence] = field(default_factory=list)
    entered: list[Sequence] = field(default_factory=list)


class Scheduler:
    """The waiting line, the running sequences (oldest first), their rows and their pages.

    Attributes:
        tables: [max_running, pages of a context] int32, the pages of each row in order; what stands
            after them is of no meaning, but is the number of a page.
    """

    def __init__(
        self,
        pages: PageAllocator,
        page_size: int,
        max_running: int,
        chunk: int,
        reuse: bool,
        context: int,
    ) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.pages = pages
        self.tables = np.zeros((max_running, -(-context // page_size)), dtype=np.int32)
        self.preemptions = self.prefix_hits = self.prompt_tokens = self.cached_tokens = 0
        self._page_size, self._chunk, self._reuse = page_size, chunk, reuse
        self._free_rows = list(range(max_running - 1, -1, -1))
        self._turns: dict[str | None, int] = {}  # when each adapter ran last
        self._step = 0

    def remove(self, sequence: Sequence) -> None:
        """It is done or given up: its pages and its row are free at once."""
        if sequence.row >= 0:
            self._leave(sequence)
        else:
            self.waiting.remove(sequence)

    def plan(self) -> Work:
        """What to run now; nothing when nobody is there, or who was to run lost its pages."""
        work = Work(entered=self._admit())
        self._step += 1
        chunks: list[tuple[Sequence, int]] = []
        budget, size = self._chunk, self._page_size
        for sequence in self._of_one_adapter():
            length = sequence.length
            # An older one may just have taken its pages; or its last token is on its way.
            if sequence.row < 0 or length >= sequence.limit:
                continue
            if length > len(sequence.pages) * size and not self._extend(sequence):
                continue
            pending = length - sequence.stored
            if pending == 1:
                work.sequences.append(sequence)
            elif budget:
                chunks.append((sequence, min(pending, budget)))
                budget -= chunks[-1][1]
        work.ready.extend(work.sequences)
        work.counts.extend([1] * len(work.sequences))
        # What the budget left of a prompt may be one token, too.
        for sequence, count in sorted(chunks, key=lambda chunk: chunk[1] > 1):
            work.sequences.append(sequence)
            work.counts.append(count)
            if count == sequence.length - sequence.stored:
                work.ready.append(sequence)
        return work

    def advance(self, work: Work) -> None:
        """What was planned is stored: pages that became full may be found from now on."""
        for sequence, count in zip(work.sequences, work.counts, strict=True):
            sequence.stored += count
            if self._reuse and sequence.stored - sequence.published >= self._page_size:
                self._publish(sequence)

    def _publish(self, sequence: Sequence) -> None:
        # A full page is named by its tokens: the last of them may still be on its way.
        full = min(sequence.stored, len(sequence.tokens)) // self._page_size
        before = sequence.published // self._page_size
        keys = self._keys(sequence, full)
        for index in range(before, full):
            self.pages.publish(sequence.pages[index], keys[index])
        sequence.published = max(before, full) * self._page_size

    def _of_one_adapter(self) -> list[Sequence]:
        """The running sequences of the adapter whose turn it is."""
        adapters = {sequence.request.adapter for sequence in self.running}
        if len(adapters) < 2:
            self._turns = dict.fromkeys(adapters, self._step)
            return list(self.running)
        order = dict.fromkeys(sequence.request.adapter for sequence in self.running)
        adapter = min(order, key=lambda name: self._turns.get(name, -1))
        self._turns = {name: self._turns.get(name, -1) for name in order}
        self._turns[adapter] = self._step
        return [sequence for sequence in self.running if sequence.request.adapter == adapter]

    def _admit(self) -> list[Sequence]:
        admitted: list[Sequence] = []
        while self.waiting and self._free_rows:
            sequence = self.waiting[0]
            found: list[int] = []
            if self._reuse and not sequence.echoing:
                # Not the last token: it must run to give the first logits.
                whole = (len(sequence.tokens) - 1) // self._page_size
                found = self.pages.find(self._keys(sequence, whole))
            missing = self._pages_for(sequence.length) - len(found)
            # One page more for each that runs, or admitting it would soon push someone out.
            spare = len(self.running)
            taken = self.pages.take(missing) if missing + spare <= self.pages.free else None
            if taken is None:
                self.pages.release(found)
                break
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.row = self._free_rows.pop()
            self._give(sequence, found + taken)
            sequence.stored = sequence.published = len(found) * self._page_size
            if sequence.cached_tokens is None:
                sequence.cached_tokens = sequence.stored
                self.prompt_tokens += len(sequence.request.prompt)
                self.cached_tokens += sequence.stored
                self.prefix_hits += bool(found)
            admitted.append(sequence)
        return admitted

    def _extend(self, sequence: Sequence) -> bool:
        """Give it pages for all its tokens; False: it had to leave, being the newest itself."""
        missing = self._pages_for(sequence.length) - len(sequence.pages)
        while (taken := self.pages.take(missing)) is None:
            newest = self.running[-1]
            self._preempt(newest)
            if newest is sequence:
                return False
        self._give(sequence, taken)
        return True

    def _give(self, sequence: Sequence, pages: list[int]) -> None:
        before = len(sequence.pages)
        sequence.pages += pages
        self.tables[sequence.row, before : len(sequence.pages)] = pages

    def _preempt(self, sequence: Sequence) -> None:
        self._leave(sequence)
        self.waiting.appendleft(sequence)
        self.preemptions += 1

    def _leave(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.pages.release(sequence.pages)
        self._free_rows.append(sequence.row)
        sequence.row, sequence.pages = -1, []
        sequence.stored = sequence.published = 0

    def _pages_for(self, tokens: int) -> int:
        return -(-tokens // self._page_size)

    def _keys(self, sequence: Sequence, count: int) -> list[bytes]:
        """Names of its first `count` pages."""
        keys, size = sequence.page_keys, self._page_size
        for index in range(len(keys), count):
            before = keys[-1] if keys else root_key(sequence.request.adapter)
            keys.append(page_key(before, sequence.tokens[index * size : (index + 1) * size]))
        return keys[:count]
