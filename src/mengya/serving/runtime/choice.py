"""One completion as it grows: token events -> pieces of text, reasoning, calls and log-probabilities.

Takes the engine's events; gives what a client may see of them: complete characters, no part of a stop
string, nothing after one. Knows nothing of HTTP or of the wording of the API.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedTokenizerFast

from mengya.generation.batch.engine import TokenEvent
from mengya.serving.runtime.reply_parser import Call, Part, ReplyParser, Text
from mengya.tokenizer.stream import REPLACEMENT, TextStream

Finish = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class ChosenToken:
    """A token with ln of its probability and the likeliest others; `offset` is where its text begins."""

    offset: int
    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(slots=True)
class Piece:
    """What became certain at once; `finish` is set on the last piece of a choice."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    tokens: list[ChosenToken] = field(default_factory=list)
    finish: Finish | None = None

    def add(self, later: Piece) -> None:
        """Join a later piece of the same choice to this one."""
        self.content += later.content
        self.reasoning += later.reasoning
        self.calls += later.calls
        self.tokens += later.tokens
        self.finish = later.finish


class StopStrings:
    """Text in pieces -> the same text up to the first stop string; holds back what may begin one.

    Attributes:
        stop: the stop string that has come, None before; nothing is given out after it.
        held: characters taken in but not given out; after a hit, all from the stop string on.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stop: str | None = None
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""

    @property
    def found(self) -> bool:
        """Whether a stop string has come."""
        return self.stop is not None

    @property
    def held(self) -> int:
        return len(self._held)

    def push(self, text: str) -> str:
        """What became certain with `text`."""
        if self.found:
            self._held += text
            return ""
        self._held += text
        hits = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if not hits:
            return self._release(len(self._held) - self._open_ending())
        at, self.stop = min(hits)
        return self._release(at)

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


class Choice:
    """The state between the tokens of one completion.

    Attributes:
        tokens: how many the engine has given.
        reasoning_tokens: how many of them were reasoning.
        finish: why it ended, None while it runs.

    Args:
        parser: takes reasoning and calls out of the text; None: all of it is content.
        stops: strings that end the content before them.
        one_call: whether the first call ends the completion.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        parser: ReplyParser | None = None,
        stops: tuple[str, ...] = (),
        one_call: bool = False,
    ) -> None:
        self.tokens = self.reasoning_tokens = 0
        self.finish: Finish | None = None
        self._tokenizer = tokenizer
        self._text = TextStream(tokenizer)
        self._parser = parser
        self._stops = StopStrings(stops)
        self._one_call = one_call
        self._called = False
        self._length = 0  # characters decoded
        self._pending: deque[ChosenToken] = deque()  # their text is not given out yet

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended it, None when it was something else."""
        return self._stops.stop

    def push(self, event: TokenEvent, /) -> Piece:
        """What one more event makes certain; sets `finish` when it is the last."""
        piece = Piece()
        if event.token is not None:
            self.tokens += 1
            text, begin = self._text.push(event.token), self._length
            if event.logprob is not None:
                # What comes before the token's own text is a character that it proved broken.
                own = len(str(self._tokenizer.decode([event.token], skip_special_tokens=True)))
                begin += max(len(text) - own, 0)
                self._pending.append(ChosenToken(begin, event.token, event.logprob, event.top))
            self._take(text, piece)
            self.reasoning_tokens += self._parser is not None and self._parser.is_reasoning
        if event.finish is not None and self.finish is None:
            rest = self._text.flush()
            # A character that the limit cut is no broken one.
            self._take(rest if event.finish == "stop" else rest.rstrip(REPLACEMENT), piece)
            if self._parser is not None:
                self._sort(self._parser.flush(), piece)
            piece.content += self._stops.flush()
            if self.finish is None:
                ended = "length" if event.finish == "length" else "stop"
                self.finish = "tool_calls" if self._called and ended == "stop" else ended
        self._release(piece)
        piece.finish = self.finish
        return piece

    def _take(self, text: str, piece: Piece) -> None:
        self._length += len(text)
        if self._parser is not None:
            self._sort(self._parser.push(text), piece)
        elif text:
            self._sort([Text("content", text)], piece)

    def _sort(self, parts: list[Part], piece: Piece) -> None:
        for part in parts:
            if self.finish is not None:
                return
            if isinstance(part, Call):
                piece.calls.append(part)
                self._called = True
                if self._one_call:
                    self.finish = "tool_calls"
            elif part.kind == "reasoning":
                piece.reasoning += part.text
            else:
                piece.content += self._stops.push(part.text)
                if self._stops.found:
                    self.finish = "stop"

    def _release(self, piece: Piece) -> None:
        """Give out the tokens whose text, or its beginning, has been given out, along with some text."""
        if not (piece.content or piece.reasoning or piece.calls or self.finish):
            return
        given = self._length - self._stops.held - (self._parser.held if self._parser else 0)
        over = self.finish is not None and not self._stops.found
        while self._pending and (over or self._pending[0].offset < given):
            piece.tokens.append(self._pending.popleft())
