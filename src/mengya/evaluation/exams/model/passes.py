"""Which token sequences are computed together, so that as few tokens as possible are.

Three ways, of which the one with the fewest tokens is taken for an exam: `plain` (every different sequence by
itself), `prefix` (few-shot prompts: their common beginning once) and `context` (answers: each context
once, its options after it). Four letters after one prompt are one sequence in all of them, since the last
token of a continuation is never computed. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]

_WIDTHS = 4  # rows of a pass differ in length by fewer tokens, where there are enough of them
_WORTH = 0.8  # another way than plain must save a fifth of the tokens, as its passes are smaller


@dataclass(frozen=True)
class Pass:
    """One batch.

    Attributes:
        contexts: computed once each and kept; several are padded on the left. Empty: nothing is kept.
        rows: (number of its context, what follows it); without contexts complete sequences.
        sequences: the number of each row's sequence.
    """

    contexts: list[Ids]
    rows: list[tuple[int, Ids]]
    sequences: list[int]


def plan_passes(
    sequences: Sequence[Ids], contexts: Sequence[int], batch_tokens: int, batch_rows: int | None
) -> list[Pass]:
    """Every sequence in one pass.

    Args:
        sequences: different ones, none empty.
        contexts: how long the beginning of each is that it may share with others; less than its length.
        batch_tokens: most tokens of a batch, what a row attends to included, padding too.
        batch_rows: most sequences of a batch; None: as many as fit.
    """
    batch = _Batch(batch_tokens, batch_rows)
    plain = _plain(sequences, range(len(sequences)), batch)
    others = [_by_context(sequences, contexts, batch), _by_prefix(sequences, contexts, batch)]
    best = min(others, key=_computed)
    return best if _computed(best) < _WORTH * _computed(plain) else plain


@dataclass(frozen=True)
class _Batch:
    tokens: int
    rows: int | None

    def full(self, rows: int, longest: int) -> bool:
        """Whether so many rows are too many."""
        return rows > 1 and (
            rows * longest > self.tokens or (self.rows is not None and rows > self.rows)
        )


def _computed(passes: Sequence[Pass]) -> int:
    """Tokens that are computed, padding included."""
    return sum(
        len(each.contexts) * max(map(len, each.contexts), default=0)
        + len(each.rows) * max(len(ids) for _, ids in each.rows)
        for each in passes
    )


def _plain(sequences: Sequence[Ids], numbers: Sequence[int], batch: _Batch) -> list[Pass]:
    """From long to short, so that what does not fit shows at once."""
    passes: list[Pass] = []
    chunk: list[int] = []
    for number in sorted(numbers, key=lambda n: (-len(sequences[n]), sequences[n])):
        if batch.full(len(chunk) + 1, len(sequences[(chunk or [number])[0]])):
            passes.append(Pass([], [(0, sequences[n]) for n in chunk], chunk))
            chunk = []
        chunk.append(number)
    if chunk:
        passes.append(Pass([], [(0, sequences[n]) for n in chunk], chunk))
    return passes


def _by_context(sequences: Sequence[Ids], contexts: Sequence[int], batch: _Batch) -> list[Pass]:
    """Several contexts at a time, each with all that follows it."""
    groups: dict[Ids, list[int]] = {}
    for number, (ids, length) in enumerate(zip(sequences, contexts, strict=True)):
        groups.setdefault(ids[:length], []).append(number)
    alone = [
        n
        for context, numbers in groups.items()
        if not context or len(numbers) == 1
        for n in numbers
    ]
    shared = {c: numbers for c, numbers in groups.items() if c and len(numbers) > 1}
    passes = _plain(sequences, alone, batch)
    chunk: list[Ids] = []
    rows = 0
    width = {c: max(len(sequences[n]) for n in shared[c]) - len(c) for c in shared}
    # What follows is more rows than contexts, so it is the padding of those that must be little.
    for context in sorted(shared, key=lambda c: (-(width[c] // _WIDTHS), -len(c), c)):
        together = (*chunk, context)
        longest = max(map(len, together)) + max(width[c] for c in together)
        if chunk and batch.full(rows + len(shared[context]), longest):
            passes.append(_with_contexts(sequences, chunk, shared))
            chunk, rows = [], 0
        chunk.append(context)
        rows += len(shared[context])
    if chunk:
        passes.append(_with_contexts(sequences, chunk, shared))
    return passes


def _with_contexts(
    sequences: Sequence[Ids], contexts: list[Ids], groups: dict[Ids, list[int]]
) -> Pass:
    rows = [(at, sequences[n][len(c) :]) for at, c in enumerate(contexts) for n in groups[c]]
    return Pass(contexts, rows, [n for c in contexts for n in groups[c]])


def _by_prefix(sequences: Sequence[Ids], contexts: Sequence[int], batch: _Batch) -> list[Pass]:
    """Runs of sequences with a long common beginning."""
    passes: list[Pass] = []
    alone: list[int] = []
    for prefix, numbers in _runs(sequences, contexts):
        if not prefix or len(numbers) == 1:
            alone += numbers
            continue
        context = sequences[numbers[0]][:prefix]
        chunk: list[int] = []
        for number in sorted(numbers, key=lambda n: (-len(sequences[n]), sequences[n])):
            if batch.full(len(chunk) + 1, len(sequences[(chunk or [number])[0]])):
                passes.append(Pass([context], [(0, sequences[n][prefix:]) for n in chunk], chunk))
                chunk = []
            chunk.append(number)
        passes.append(Pass([context], [(0, sequences[n][prefix:]) for n in chunk], chunk))
    return _plain(sequences, alone, batch) + passes


def _runs(sequences: Sequence[Ids], contexts: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """(length of the common beginning, numbers): a run grows as long as it saves more tokens that way."""
    order = sorted(range(len(sequences)), key=lambda n: sequences[n])
    run: list[int] = []
    prefix = 0
    for number in order:
        if run:
            common = min(prefix, contexts[number], _common(sequences[run[-1]], sequences[number]))
            if common * len(run) >= prefix * (len(run) - 1) and common:
                prefix = common
                run.append(number)
                continue
            yield prefix, run
        run, prefix = [number], contexts[number]
    if run:
        yield prefix, run


def _common(first: Ids, second: Ids) -> int:
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    low, high = 0, length  # equal up to low, not up to high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if first[:middle] == second[:middle] else (low, middle)
    return low
