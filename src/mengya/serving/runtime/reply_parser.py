"""The text of a reply in pieces -> its reasoning, its answer and its calls of tools, as they come.

Takes text as the chat template has the model write it (<think>...</think>, then the answer, with
<tool_call>{"name", "arguments"}</tool_call> blocks); gives parts. A model may write anything: what
is not a well-formed call is part of the answer, nothing raises.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

THINK, END_THINK = "<think>", "</think>"
CALL, END_CALL = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class Text:
    """Some more of the answer, or of the reasoning before it; never empty."""

    kind: Literal["content", "reasoning"]
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool: its name and its arguments, JSON text as the model wrote it."""

    name: str
    arguments: str

    @property
    def object(self) -> dict[str, Any] | None:
        """The arguments as values; None when they are no JSON object."""
        try:
            value = json.loads(self.arguments)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


Part = Text | Call


class ReplyParser:
    """Incremental: `push` gives the parts that became certain, `flush` the rest.

    White space around the reasoning and before a call is the template's, not the answer's, and is
    left out. A call is given out once it is closed: only then is it known to be one.

    Args:
        tools: names of the functions that may be called; None: a call is text like any other.
        opened: what the prompt has already written: `<think>`, `<tool_call>`, or `</think>` when the
            answer itself has begun.
        objects_only: what has other arguments than a JSON object is no call; else they may be any text.
    """

    def __init__(
        self,
        tools: frozenset[str] | None = None,
        opened: str | None = None,
        objects_only: bool = False,
    ) -> None:
        self._tools, self._objects_only = tools, objects_only
        self._buffer = ""
        self._space = ""  # white space that is the answer's only if more of the answer follows
        self._state: Literal["start", "reasoning", "content", "call"] = "start"
        self._begun = False  # whether the present reasoning or answer has shown any text
        if opened == THINK:
            self._state = "reasoning"
        elif opened == END_THINK:
            self._state, self._begun = "content", True
        elif opened == CALL:
            self._state, self._space = "call", CALL

    @property
    def is_reasoning(self) -> bool:
        """Whether the model is reasoning now."""
        return self._state == "reasoning"

    @property
    def held(self) -> int:
        """Characters taken in but not given out or dropped."""
        return len(self._buffer) + len(self._space)

    def push(self, text: str) -> list[Part]:
        """The parts that became certain with `text`."""
        self._buffer += text
        parts: list[Part] = []
        while self._step(parts):
            pass
        return _joined(parts)

    def flush(self) -> list[Part]:
        """The parts that are left when the reply is over; an open call is tried as it stands."""
        parts: list[Part] = []
        while self._state == "call":
            # What is open here is no call, or is one without its end.
            inside, end, self._buffer = self._buffer.partition(END_CALL)
            self._end_call(inside, end, parts)
            while self._step(parts):
                pass
        rest, self._buffer = self._buffer, ""
        if self._state == "reasoning":
            self._say("reasoning", rest, parts)
            self._space = ""
        else:
            self._state = "content"
            self._say("content", rest, parts)
            if self._space and self._begun:
                parts.append(Text("content", self._space))
            self._space = ""
        return _joined(parts)

    def _step(self, parts: list[Part]) -> bool:
        """Take the next complete part out of the buffer; False when more text is needed first."""
        if self._state == "start":
            opening = self._buffer.lstrip()
            if opening.startswith(THINK):
                self._buffer = opening.removeprefix(THINK)
                self._state = "reasoning"
                return True
            if THINK.startswith(opening):  # also when there is nothing yet
                return False
            self._state = "content"
            return True
        if self._state == "reasoning":
            if not self._say_until(END_THINK, "reasoning", parts):
                return False
            self._state, self._space, self._begun = "content", "", False
            return True
        if self._state == "content":
            if self._tools is None:
                self._say("content", self._buffer, parts)
                self._buffer = ""
                return False
            if not self._say_until(CALL, "content", parts):
                return False
            self._state = "call"
            self._space += CALL  # the answer's, should this turn out to be no call
            return True
        at = _end_of_call(self._buffer)
        if at is None:
            return False
        if parse_call(self._buffer[:at]) is None:
            at = self._buffer.find(END_CALL)
        inside, self._buffer = self._buffer[:at], self._buffer[at + len(END_CALL) :]
        self._end_call(inside, END_CALL, parts)
        return True

    def _end_call(self, inside: str, end: str, parts: list[Part]) -> None:
        call = parse_call(inside)
        self._state = "content"
        if call is not None and self._objects_only and call.object is None:
            call = None
        if call is not None and self._tools is not None and call.name in self._tools:
            parts.append(call)
            self._space = ""
        else:
            self._say("content", inside + end, parts)

    def _say_until(
        self, tag: str, kind: Literal["content", "reasoning"], parts: list[Part]
    ) -> bool:
        """Give out what comes before `tag`; True when the tag is there, and is taken away."""
        before, found, rest = self._buffer.partition(tag)
        kept = 0 if found else _open_ending(before, tag)
        self._buffer = rest if found else before[len(before) - kept :]
        self._say(kind, before[: len(before) - kept], parts)
        return bool(found)

    def _say(self, kind: Literal["content", "reasoning"], text: str, parts: list[Part]) -> None:
        """Give out `text`; white space at its end waits, where a tag may follow that owns it."""
        text = self._space + text
        said = text if kind == "content" and self._tools is None else text.rstrip()
        self._space = text[len(said) :]
        # What the template puts after the tag is no part of what follows it.
        shown = said if self._begun else said.lstrip()
        if shown:
            self._begun = True
            parts.append(Text(kind, shown))


def parse_call(text: str) -> Call | None:
    """The call that a <tool_call> block holds, None when it is not one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(name := value.get("name"), str):
        return None
    # Some models were trained with Llama's word for them.
    keys = value.keys() - {"name"}
    if len(keys) > 1 or not keys <= {"arguments", "parameters"}:
        return None
    key = next(iter(keys), "arguments")
    arguments = value.get(key, {})
    if isinstance(arguments, str):  # some models write the JSON as a string
        return Call(name, arguments)
    if not isinstance(arguments, dict):
        return None
    # As the model wrote it where that can be found, so that the next prompt repeats it exactly and
    # its keys and values are still in the cache.
    written = re.fullmatch(rf'\s*\{{\s*"name":.*?"{key}":\s*(\{{.*\}})\s*\}}\s*', text, re.DOTALL)
    if written is not None:
        try:
            if json.loads(written[1]) == arguments:
                return Call(name, written[1])
        except ValueError:
            pass  # "arguments" inside the name
    return Call(name, json.dumps(arguments, ensure_ascii=False))


def _end_of_call(text: str) -> int | None:
    """Where the first END_CALL begins that is not inside a string of the JSON before it."""
    at = text.find(END_CALL)
    while at >= 0:
        quotes = re.sub(r"\\.", "", text[:at], flags=re.DOTALL).count('"')
        if quotes % 2 == 0:
            return at
        at = text.find(END_CALL, at + 1)
    return None


def _open_ending(text: str, tag: str) -> int:
    """Length of the longest ending of `text` that begins `tag`."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0


def _joined(parts: list[Part]) -> list[Part]:
    """Neighbouring texts of one kind as one."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, Text) and isinstance(last, Text) and part.kind == last.kind:
            joined[-1] = Text(part.kind, last.text + part.text)
        else:
            joined.append(part)
    return joined
