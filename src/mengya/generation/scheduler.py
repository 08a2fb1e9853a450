"""Who runs in the next step, with how many tokens, on which pages.

Takes sequences as they come; gives the work of one forward pass. Knows nothing of tensors or tokens'
meaning. First come, first served: the waiting line is never overtaken, and when pages run out it is
the newest running sequence that goes back to the head of the line, to be computed again later.
"""

from __future__ import annotations

from collections import deque

from mengya.generation.page_allocator import PageAllocator, page_key, root_key
from mengya.generation.sequence import Sequence


class Scheduler:
    """The waiting line, the running sequences (oldest first) and their pages."""

    def __init__(
        self, pages: PageAllocator, page_size: int, max_running: int, chunk: int, reuse: bool
    ) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.pages = pages
        self.preemptions = self.prefix_hits = self.prompt_tokens = self.cached_tokens = 0
        self._page_size, self._max_running = page_size, max_running
        self._chunk, self._reuse = chunk, reuse
        self._turns: dict[str | None, int] = {}  # when each adapter ran last
        self._step = 0

    def remove(self, sequence: Sequence) -> None:
        """It is done or given up: its pages are free at once."""
        if sequence in self.running:
            self.running.remove(sequence)
            self.pages.release(sequence.pages)
        else:
            self.waiting.remove(sequence)

    def plan(self) -> list[tuple[Sequence, int]]:
        """Sequences of one adapter with the number of tokens to run, decoding ones first.

        Empty when nothing can run in this step: nothing is there, or who was to run lost its pages.
        """
        self._admit()
        self._step += 1
        if not self.running:
            return []
        adapters = dict.fromkeys(s.request.adapter for s in self.running)
        adapter = min(adapters, key=lambda name: self._turns.get(name, -1))
        self._turns = {name: self._turns.get(name, -1) for name in adapters}
        self._turns[adapter] = self._step
        rows, chunks, budget = [], [], self._chunk
        for sequence in [s for s in self.running if s.request.adapter == adapter]:
            # An older one may just have taken the pages of this one.
            if not sequence.pages or not self._extend(sequence):
                continue
            if sequence.pending == 1:
                rows.append((sequence, 1))
            elif budget:
                count = min(sequence.pending, budget)
                budget -= count
                chunks.append((sequence, count))
        # The last token of a prompt that the budget cut off stands among the rows.
        return sorted(rows + chunks, key=lambda work: work[1] > 1)

    def advance(self, sequence: Sequence, count: int) -> None:
        """`count` more tokens are stored: pages that became full may be found from now on."""
        before = sequence.stored // self._page_size
        sequence.stored += count
        if self._reuse:
            keys = self._keys(sequence, sequence.stored // self._page_size)
            for index, key in enumerate(keys[before:], before):
                self.pages.publish(sequence.pages[index], key)

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self._max_running:
            sequence = self.waiting[0]
            found: list[int] = []
            if self._reuse and not sequence.echoing:
                # Not the last token: it must run to give the first logits.
                whole = (len(sequence.tokens) - 1) // self._page_size
                found = self.pages.find(self._keys(sequence, whole))
            missing = self._pages_for(len(sequence.tokens)) - len(found)
            # One page more for each that runs, or admitting it would soon push someone out.
            spare = len(self.running)
            taken = self.pages.take(missing) if missing + spare <= self.pages.free else None
            if taken is None:
                self.pages.release(found)
                return
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.pages = found + taken
            sequence.stored = len(found) * self._page_size
            if sequence.cached_tokens is None:
                sequence.cached_tokens = sequence.stored
                self.prompt_tokens += len(sequence.request.prompt)
                self.cached_tokens += sequence.stored
                self.prefix_hits += bool(found)

    def _extend(self, sequence: Sequence) -> bool:
        """Give it pages for all its tokens; False: it had to leave, being the newest itself."""
        missing = self._pages_for(len(sequence.tokens)) - len(sequence.pages)
        if missing <= 0:
            return True
        while (taken := self.pages.take(missing)) is None:
            newest = self.running[-1]
            self._preempt(newest)
            if newest is sequence:
                return False
        sequence.pages += taken
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.pages.release(sequence.pages)
        sequence.pages, sequence.stored = [], 0
        self.waiting.appendleft(sequence)
        self.preemptions += 1

    def _pages_for(self, tokens: int) -> int:
        return -(-tokens // self._page_size)

    def _keys(self, sequence: Sequence, count: int) -> list[bytes]:
        """Names of its first `count` pages."""
        keys, size = sequence.page_keys, self._page_size
        for index in range(len(keys), count):
            before = keys[-1] if keys else root_key(sequence.request.adapter)
            keys.append(page_key(before, sequence.tokens[index * size : (index + 1) * size]))
        return keys[:count]
