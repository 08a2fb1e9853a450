"""Which sequences run in the next step, with how many tokens, on which pages.

Takes sequences as they come; gives the work of one forward pass. Knows nothing of tensors or tokens'
meaning. First come, first served: the waiting queue is never overtaken, and when pages run out the
newest running sequence is preempted: back to the head of the queue, to be recomputed later. Only the
prompt tokens of a step are shared in another way, so that a short prompt need not wait for a long one
that came before it (`_share`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from mengya.generation.batch.page_allocator import PageAllocator, page_key, root_key
from mengya.generation.batch.sequence import SequenceState
from mengya.runtime.integers import ceil_div


@dataclass(frozen=True, slots=True)
class Work:
    """One forward pass.

    Attributes:
        sequences: of one adapter, those with one token first.
        counts: tokens of each.
        ready: those whose next token can be chosen afterwards.
        entered: sequences that have a row since this plan.
    """

    sequences: list[SequenceState] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    ready: list[SequenceState] = field(default_factory=list)
    entered: list[SequenceState] = field(default_factory=list)


class Scheduler:
    """The waiting queue, the running sequences (oldest first), their rows and their pages.

    Attributes:
        tables: [max_running, pages of a context] int32, the pages of each row in order; entries
            after them are stale, but valid page numbers.
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
        self.waiting: deque[SequenceState] = deque()
        self.running: list[SequenceState] = []
        self.pages = pages
        self.tables = np.zeros((max_running, ceil_div(context, page_size)), dtype=np.int32)
        self.preemptions = self.prefix_hits = self.prompt_tokens = self.cached_tokens = 0
        self._page_size, self._chunk, self._reuse = page_size, chunk, reuse
        self._free_rows = list(range(max_running - 1, -1, -1))
        self._last_run: dict[str | None, int] = {}  # adapter -> its last step
        self._step = 0

    def remove(self, sequence: SequenceState) -> None:
        """Free the pages and the row of a sequence that is finished or cancelled."""
        if sequence.row >= 0:
            self._release(sequence)
        else:
            self.waiting.remove(sequence)

    def plan(self) -> Work:
        """What to run now; nothing when no sequence is there, or all were preempted."""
        work = Work(entered=self._admit())
        self._step += 1
        prefills: list[SequenceState] = []
        size = self._page_size
        for sequence in self._of_one_adapter():
            length = sequence.length
            # It may just have been preempted; or its last token is pending.
            if sequence.row < 0 or length >= sequence.limit:
                continue
            if length > len(sequence.pages) * size and not self._extend(sequence):
                continue
            decodes = length - sequence.stored == 1
            (work.sequences if decodes else prefills).append(sequence)
        work.ready.extend(work.sequences)
        work.counts.extend([1] * len(work.sequences))
        # What the budget left of a prompt may be one token, too.
        for sequence, count in sorted(self._share(prefills), key=lambda chunk: chunk[1] > 1):
            work.sequences.append(sequence)
            work.counts.append(count)
            if count == sequence.length - sequence.stored:
                work.ready.append(sequence)
        return work

    def _share(self, prefills: list[SequenceState]) -> list[tuple[SequenceState, int]]:
        """How many tokens each gets of what may be computed of prompts in one step.

        Half belongs to the one that came first, so that newcomers never stop it. The rest goes to whoever
        needs the fewest tokens, so that a short prompt is done soon; among equals, first come first served.

        Args:
            prefills: oldest first.
        """
        if not prefills:
            return []
        pending = {sequence: sequence.length - sequence.stored for sequence in prefills}
        oldest = prefills[0]
        counts = {oldest: min(pending[oldest], ceil_div(self._chunk, 2))}
        budget = self._chunk - counts[oldest]
        for sequence in sorted(prefills, key=lambda s: pending[s] - counts.get(s, 0)):
            given = counts.get(sequence, 0)
            more = min(pending[sequence] - given, budget)
            if more:
                counts[sequence] = given + more
                budget -= more
        return list(counts.items())

    def advance(self, work: Work) -> None:
        """Mark the planned tokens as stored; publish pages that became full."""
        for sequence, count in zip(work.sequences, work.counts, strict=True):
            sequence.stored += count
            if self._reuse and sequence.stored - sequence.published >= self._page_size:
                self._publish(sequence)

    def _publish(self, sequence: SequenceState) -> None:
        # A full page is named by its tokens: the last of them may still be pending.
        full = min(sequence.stored, len(sequence.tokens)) // self._page_size
        before = sequence.published // self._page_size
        keys = self._keys(sequence, full)
        for index in range(before, full):
            self.pages.publish(sequence.pages[index], keys[index])
        sequence.published = max(before, full) * self._page_size

    def _of_one_adapter(self) -> list[SequenceState]:
        """The running sequences of the adapter that ran least recently."""
        adapters = {sequence.request.adapter for sequence in self.running}
        if len(adapters) < 2:
            self._last_run = dict.fromkeys(adapters, self._step)
            return list(self.running)
        order = dict.fromkeys(sequence.request.adapter for sequence in self.running)
        adapter = min(order, key=lambda name: self._last_run.get(name, -1))
        self._last_run = {name: self._last_run.get(name, -1) for name in order}
        self._last_run[adapter] = self._step
        return [sequence for sequence in self.running if sequence.request.adapter == adapter]

    def _admit(self) -> list[SequenceState]:
        admitted: list[SequenceState] = []
        while self.waiting and self._free_rows:
            sequence = self.waiting[0]
            found: list[int] = []
            if self._reuse and not sequence.echoing:
                # Not the last token: it must run to give the first logits.
                full = (len(sequence.tokens) - 1) // self._page_size
                found = self.pages.find(self._keys(sequence, full))
            missing = self._pages_for(sequence.length) - len(found)
            # One page more for each that runs, or admitting it would soon preempt one.
            spare = len(self.running)
            allocated = self.pages.allocate(missing) if missing + spare <= self.pages.free else None
            if allocated is None:
                self.pages.release(found)
                break
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.row = self._free_rows.pop()
            self._append_pages(sequence, found + allocated)
            sequence.stored = sequence.published = len(found) * self._page_size
            if sequence.cached_tokens is None:
                sequence.cached_tokens = sequence.stored
                self.prompt_tokens += len(sequence.request.prompt)
                self.cached_tokens += sequence.stored
                self.prefix_hits += bool(found)
            admitted.append(sequence)
        return admitted

    def _extend(self, sequence: SequenceState) -> bool:
        """Allocate pages for all its tokens; False: it was preempted, being the newest itself."""
        missing = self._pages_for(sequence.length) - len(sequence.pages)
        while (allocated := self.pages.allocate(missing)) is None:
            newest = self.running[-1]
            self._preempt(newest)
            if newest is sequence:
                return False
        self._append_pages(sequence, allocated)
        return True

    def _append_pages(self, sequence: SequenceState, pages: list[int]) -> None:
        before = len(sequence.pages)
        sequence.pages += pages
        self.tables[sequence.row, before : len(sequence.pages)] = pages

    def _preempt(self, sequence: SequenceState) -> None:
        self._release(sequence)
        self.waiting.appendleft(sequence)
        self.preemptions += 1

    def _release(self, sequence: SequenceState) -> None:
        self.running.remove(sequence)
        self.pages.release(sequence.pages)
        self._free_rows.append(sequence.row)
        sequence.row, sequence.pages = -1, []
        sequence.stored = sequence.published = 0

    def _pages_for(self, tokens: int) -> int:
        return ceil_div(tokens, self._page_size)

    def _keys(self, sequence: SequenceState, count: int) -> list[bytes]:
        """Names of its first `count` pages."""
        keys, size = sequence.page_keys, self._page_size
        for index in range(len(keys), count):
            before = keys[-1] if keys else root_key(sequence.request.adapter)
            keys.append(page_key(before, sequence.tokens[index * size : (index + 1) * size]))
        return keys[:count]
