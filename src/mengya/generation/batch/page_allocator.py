"""Which sequences own which page of the KV memory, and which pages hold a shared prefix.

Takes and gives page numbers and keys; knows nothing of tensors or requests. A page has as many
owners as sequences read it. Without an owner it is free: pages that hold no published prefix are
allocated first, then the least recently used.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence


def root_key(adapter: str | None) -> bytes:
    """The key before the first page: what keys and values depend on besides the tokens."""
    return hashlib.sha256(repr(adapter).encode()).digest()


def page_key(before: bytes, tokens: Sequence[int]) -> bytes:
    """Names a full page by all tokens up to its end: `before` is the key of the page before it."""
    return hashlib.sha256(before + array("q", tokens).tobytes()).digest()


class PageAllocator:
    """Page numbers from 0 to total - 1."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._empty = list(range(total - 1, -1, -1))
        self._owners: Counter[int] = Counter()
        self._page_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}
        self._reusable: OrderedDict[int, None] = OrderedDict()  # without owner, oldest first

    @property
    def free(self) -> int:
        """Pages that `allocate` could give."""
        return len(self._empty) + len(self._reusable)

    @property
    def reusable(self) -> int:
        """Pages among the free ones that `find` could still give."""
        return len(self._reusable)

    def allocate(self, count: int) -> list[int] | None:
        """`count` pages with one owner each; None, and no change, when fewer are free."""
        if count > self.free:
            return None
        pages = []
        for _ in range(count):
            if self._empty:
                page = self._empty.pop()
            else:
                page, _ = self._reusable.popitem(last=False)
                del self._page_of[self._key_of.pop(page)]
            self._owners[page] = 1
            pages.append(page)
        return pages

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The pages of the longest published prefix, each with one more owner."""
        pages = []
        for key in keys:
            page = self._page_of.get(key)
            if page is None:
                break
            self._reusable.pop(page, None)
            self._owners[page] += 1
            pages.append(page)
        return pages

    def publish(self, page: int, key: bytes) -> None:
        """From now on `find` knows this full page; of two that hold the same, the first."""
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key] = page
            self._key_of[page] = key

    def release(self, pages: Sequence[int]) -> None:
        """One owner of each leaves.

        Raises:
            ValueError: a page has no owner.
        """
        # Last first: the end of a prefix is evicted before what it depends on.
        for page in reversed(pages):
            if not self._owners[page]:
                raise ValueError(f"page {page} has no owner")
            self._owners[page] -= 1
            if not self._owners[page]:
                del self._owners[page]
                if page in self._key_of:
                    self._reusable[page] = None
                else:
                    self._empty.append(page)
