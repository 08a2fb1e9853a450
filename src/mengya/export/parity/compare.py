"""The questions to one program, and how its answers differ from ours."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from mengya.errors import UserError, shown
from mengya.export.parity.bounds import Bounds
from mengya.export.parity.logits import LogitDistance
from mengya.export.parity.reference import Reference
from mengya.export.parity.result import Check, CheckName, ReaderResult
from mengya.export.reader import Reader

T = TypeVar("T")
_LOGIT_CHECKS: tuple[CheckName, ...] = (
    "written_error", "logit_error_mean", "logit_error_max", "nats_rise", "greedy_agreement",
)  # fmt: skip


@dataclass(frozen=True)
class Sequences:
    """What logits are compared on.

    Attributes:
        held_out: ids of text, whose nats count.
        chats: ids of prompts.
        characters: of the text.
    """

    held_out: list[list[int]]
    chats: list[list[int]]
    characters: int

    def __len__(self) -> int:
        return len(self.held_out) + len(self.chats)

    def labelled(self) -> Iterator[tuple[list[int], torch.Tensor | None]]:
        """Ids, with the tokens after each where their nats count."""
        for ids in self.held_out:
            yield ids, torch.tensor(ids[1:])
        for ids in self.chats:
            yield ids, None


@dataclass(frozen=True)
class _Differences:
    count: int | None
    of: int
    example: str = ""


def compare(
    reference: Reference,
    reader: Reader,
    bounds: Bounds,
    sequences: Sequences,
    advance: Callable[[], object],
    written: Reference | None = None,
) -> ReaderResult:
    """Ask everything.

    Args:
        advance: called after every sequence.
        written: our engine with the numbers that were written; None: nothing was rounded.
    """
    questions: list[tuple[CheckName, Callable[[], _Differences]]] = [
        ("token_ids", lambda: _token_ids(reference, reader)),
        ("prompt_ids", lambda: _prompt_ids(reference, reader)),
        ("prompts", lambda: _prompts(reference, reader)),
        ("stop_tokens", lambda: _stop_tokens(reference, reader)),
    ]
    checks = [
        _counted(name, bound, ask)
        for name, ask in questions
        if (bound := getattr(bounds, name)) is not None
    ]
    found, failure = _tried(lambda: _logits(reference, reader, sequences, advance, written))
    checks += _logit_checks(found, failure, bounds)
    if found is None:
        return ReaderResult(reader.program, checks)
    distance, faults = found
    bits = distance.theirs_nats / math.log(2) / sequences.characters
    return ReaderResult(
        reader.program,
        checks,
        nats_per_token=distance.theirs_nats / max(distance.tokens, 1),
        bits_per_char=bits,
        first_differs=not (faults or distance).grows_with_context,
    )


def _counted(name: CheckName, bound: float, ask: Callable[[], _Differences]) -> Check:
    found, failure = _tried(ask)
    if found is None:
        return Check(name, None, bound, failure=failure)
    return Check(name, found.count, bound, found.of, found.example)


def _tried(ask: Callable[[], T]) -> tuple[T | None, str]:
    """The answer, or how the program failed: of a program that is not ours, that is a finding."""
    try:
        return ask(), ""
    except UserError:
        raise
    except Exception as error:
        if os.environ.get("MENGYA_TRACEBACK"):
            raise
        return None, failure_text(error)


def failure_text(error: Exception) -> str:
    """One line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {shown(lines[0]) if lines else ''}".rstrip(": ")


def _token_ids(reference: Reference, reader: Reader) -> _Differences:
    texts = reference.texts
    return _differing((t, reference.token_ids(t), reader.token_ids(t)) for t in texts)


def _prompt_ids(reference: Reference, reader: Reader) -> _Differences:
    prompts = [text for _, text in reference.prompts()]
    return _differing((t, reference.token_ids(t, True), reader.token_ids(t, True)) for t in prompts)


def _differing(answers: Iterable[tuple[str, list[int], list[int] | None]]) -> _Differences:
    """Of (text, our ids, theirs): how many differ."""
    count, total, example = 0, 0, ""
    for text, ours, theirs in answers:
        total += 1
        if theirs is None:
            return _Differences(None, total)
        if theirs != ours:
            count += 1
            place = next(
                (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), -1
            )
            example = (
                example
                or f"{shown(text)}: {_around(ours, place)} here, {_around(theirs, place)} there"
            )
    return _Differences(count, total, example)


def _around(ids: Sequence[int], place: int) -> str:
    """A few ids from where they differ."""
    start = min(len(ids), max(place, 0))
    some = " ".join(map(str, ids[start : start + 4]))
    return f"{some} at {start}" if some else f"{len(ids)} ids"


def _prompts(reference: Reference, reader: Reader) -> _Differences:
    count, example = 0, ""
    prompts = reference.prompts()
    for chat, ours in prompts:
        theirs = reader.prompt(chat.messages, chat.tools or None, chat.enable_thinking)
        if theirs is None:
            return _Differences(None, len(prompts))
        if theirs != ours:
            count += 1
            example = example or f"{chat.name!r}: {_first_difference(ours, theirs)}"
    return _Differences(count, len(prompts), example)


def _first_difference(ours: str, theirs: str) -> str:
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    place = min(len(ours), len(theirs)) if place is None else place
    start = max(0, place - 10)
    return f"{ours[start : place + 20]!r} here, {theirs[start : place + 20]!r} there"


def _stop_tokens(reference: Reference, reader: Reader) -> _Differences:
    """Missing ones; and added ones, unless they are control tokens, which no answer holds."""
    ours, theirs = reference.stop_token_ids(), reader.stop_token_ids()
    if theirs is None:
        return _Differences(None, len(ours))
    missing, added = sorted(ours - theirs), sorted(theirs - ours - reference.control_ids)
    said = [f"{reference.token(i)} ({i}) is missing" for i in missing]
    said += [f"{reference.token(i)} ({i}) is added" for i in added]
    return _Differences(len(said), len(ours), ", ".join(said[:4]))


def _logits(
    reference: Reference,
    reader: Reader,
    sequences: Sequences,
    advance: Callable[[], object],
    written: Reference | None,
) -> tuple[LogitDistance, LogitDistance | None] | None:
    """Distances from the source, and from what was written; None: the program gives no logits."""
    distance, faults = LogitDistance(), None if written is None else LogitDistance()
    for ids, labels in sequences.labelled():
        theirs = reader.logits(ids)
        if theirs is None:
            return None
        distance.add(reference.logits(ids), theirs, labels)
        if written is not None and faults is not None:
            faults.add(written.logits(ids), theirs, None)
        advance()
    return distance, faults


def _logit_checks(
    found: tuple[LogitDistance, LogitDistance | None] | None, failure: str, bounds: Bounds
) -> list[Check]:
    values: dict[CheckName, tuple[float, int]] = {}
    if found is not None:
        distance, faults = found
        positions, tokens = distance.positions, max(distance.tokens, 1)
        values = {
            "logit_error_mean": (distance.mean, positions),
            "logit_error_max": (distance.worst, positions),
            "nats_rise": ((distance.theirs_nats - distance.ours_nats) / tokens, distance.tokens),
            "greedy_agreement": (distance.agreeing / positions, positions),
        }
        if faults is not None:
            values["written_error"] = (faults.mean, positions)
    checks = []
    for name in _LOGIT_CHECKS:
        bound = getattr(bounds, name)
        if bound is not None:
            value, of = values.get(name, (None, 0))
            checks.append(Check(name, value, bound, of, failure=failure))
    return checks
