"""Text in pieces -> the same text up to the first stop string, never part of one. Knows no tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Holds back an ending that may turn out to be the beginning of a stop string.

    Attributes:
        found: whether a stop string has come; nothing is given out any more.
        held: characters taken in but not given out; after a hit, all from the stop string on.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""

    @property
    def held(self) -> int:
        return len(self._held)

    def push(self, text: str) -> str:
        """What became certain with `text`."""
        if self.found:
            self._held += text
            return ""
        self._held += text
        hits = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        self.found = bool(hits)
        return self._release(min(hits) if hits else len(self._held) - self._open_ending())

    def flush(self) -> str:
        """The rest, once no more text comes; nothing after a hit."""
        return "" if self.found else self._release(len(self._held))

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text

    def _open_ending(self) -> int:
        """Length of the longest ending that begins a stop string."""
        for length in range(min(self._longest - 1, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
