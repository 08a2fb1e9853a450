"""A reply in pieces -> the blocks that it consists of, opened, grown and closed one after the other.

Some APIs give a reply as a list of reasoning, texts and calls in the order in which the model wrote them.
Knows nothing of their wording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from mengya.serving.api.answers import Run
from mengya.serving.runtime.choice import ChosenToken, Finish, Piece
from mengya.serving.runtime.reply_parser import Call

Kind = Literal["reasoning", "text", "call"]


@dataclass(slots=True)
class Block:
    """One block, as far as it has come.

    Attributes:
        text: of reasoning and texts; the arguments of a call.
        tokens: of texts, where log-probabilities were asked for.
    """

    kind: Kind
    index: int
    id: str
    text: str = ""
    call: Call | None = None
    tokens: list[ChosenToken] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Step:
    """A block opens, grows by `text` and `tokens`, or closes."""

    what: Literal["open", "add", "close"]
    block: Block
    text: str = ""
    tokens: tuple[ChosenToken, ...] = ()


class Blocks:
    """Incremental: `push` gives the steps that a piece makes.

    Every reply has a block: one of empty text where the model wrote nothing.

    Attributes:
        blocks: all that were opened, in order.
        finish: why the reply ended, None while it runs.

    Args:
        new_id: makes the name of a block of a kind.
    """

    def __init__(self, new_id: Callable[[Kind], str]) -> None:
        self.blocks: list[Block] = []
        self.finish: Finish | None = None
        self._new_id = new_id
        self._open: Block | None = None

    def push(self, piece: Piece) -> list[Step]:
        """The steps of one more piece, in the order in which the model wrote it."""
        steps: list[Step] = []
        if piece.reasoning:
            self._add("reasoning", piece.reasoning, (), steps)
        if piece.content or (piece.tokens and not piece.calls):
            self._add("text", piece.content, tuple(piece.tokens), steps)
        for call in piece.calls:
            self._close(steps)
            self._start("call", steps, call)
            self._add("call", call.arguments, (), steps)
            self._close(steps)
        if piece.finish is not None:
            self.finish = piece.finish
            if not self.blocks:
                self._start("text", steps)
            self._close(steps)
        return steps

    def _start(self, kind: Kind, steps: list[Step], call: Call | None = None) -> None:
        self._open = Block(kind, len(self.blocks), self._new_id(kind), call=call)
        self.blocks.append(self._open)
        steps.append(Step("open", self._open))

    def _add(
        self, kind: Kind, text: str, tokens: tuple[ChosenToken, ...], steps: list[Step]
    ) -> None:
        if self._open is None or self._open.kind != kind:
            self._close(steps)
            self._start(kind, steps)
        assert self._open is not None
        self._open.text += text
        self._open.tokens += tokens
        steps.append(Step("add", self._open, text, tokens))

    def _close(self, steps: list[Step]) -> None:
        if self._open is not None:
            steps.append(Step("close", self._open))
            self._open = None


async def all_blocks(run: Run, new_id: Callable[[Kind], str]) -> Blocks:
    """The blocks of a run's only reply, once it is complete."""
    blocks = Blocks(new_id)
    async for _, piece in run.pieces():
        blocks.push(piece)
    return blocks
