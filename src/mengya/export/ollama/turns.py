"""How a chat template writes turns, found by asking it: what stands before and after each role's text.

Takes a tokenizer; gives a `Turns`, or refuses a template whose turns cannot be taken apart. Knows no template
language.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.tokenizer.chat_template import render_prompt
from mengya.tokenizer.message import Message

Around = tuple[str, str]
Render = Callable[..., str]

_THOUGHT = "@thought@"


def _message(role: str, number: int) -> Message:
    return {"role": role, "content": f"@{role} {number}@"}


_SYSTEM, _USER, _USER_2 = _message("system", 1), _message("user", 1), _message("user", 2)
_ANSWER, _ANSWER_2 = _message("assistant", 1), _message("assistant", 2)


@dataclass(frozen=True)
class Turns:
    """Texts around the contents of a conversation.

    Attributes:
        without_system: before the first turn of a conversation without a system turn.
        system, user, assistant: before and after a content.
        thinking: the same of an assistant's reasoning, in the place of what stands before a content without
            one; None: the reasoning of earlier turns is left out.
        opening: of the answer.
        no_thinking: what follows it when an answer without reasoning is asked for.
    """

    without_system: str
    system: Around
    user: Around
    assistant: Around
    thinking: Around | None
    opening: str
    no_thinking: str


def read_turns(tokenizer: PreTrainedTokenizerFast) -> Turns:
    """What the tokenizer's chat template writes.

    Raises:
        UserError: there is no template, or one that changes contents or opens answers in several ways.
    """

    def render(*messages: Message, enable_thinking: bool | None = None) -> str:
        try:
            return render_prompt(tokenizer, list(messages), enable_thinking=enable_thinking)
        except UserError as error:
            raise UserError(f"{error}. Without a Modelfile: write to=gguf") from error

    before, to_user, to_answer, back, _, _ = _cut(
        render(_SYSTEM, _USER, _ANSWER, _USER_2, _ANSWER_2),
        _SYSTEM,
        _USER,
        _ANSWER,
        _USER_2,
        _ANSWER_2,
    )
    start, opened = _cut(render(_USER), _USER)
    user_prefix = _common_end(
        back, start
    )  # where every turn of a user begins, and may end too late
    answer_suffix = back.removesuffix(user_prefix)
    user_suffix = answer_suffix if to_answer.startswith(answer_suffix) else ""
    prefix, opening = to_answer.removeprefix(user_suffix), opened.removeprefix(user_suffix)
    off = _cut(render(_USER, enable_thinking=False), _USER)[1]
    return Turns(
        without_system=start.removesuffix(user_prefix),
        system=(before, to_user.removesuffix(user_prefix)),
        user=(user_prefix, user_suffix),
        assistant=(prefix, answer_suffix),
        thinking=_thinking(render, user_suffix),
        opening=opening,
        no_thinking=off.removeprefix(opened) if off.startswith(opened) else "",
    )


def _thinking(render: Render, user_suffix: str) -> Around | None:
    shown = render(_USER, {**_ANSWER, "reasoning_content": _THOUGHT}, _USER_2)
    if _THOUGHT not in shown:
        return None
    _, before, after, _ = _cut(shown, _USER, {"content": _THOUGHT}, _ANSWER)
    return before.removeprefix(user_suffix), after


def _cut(text: str, *messages: Message) -> list[str]:
    """The parts of a text between the contents of these messages.

    Raises:
        UserError: they are not there in this order.
    """
    parts = []
    for message in messages:
        part, found, text = text.partition(message["content"])
        if not found:
            raise UserError(
                "the chat template leaves out or reorders contents, which ollama's template language cannot "
                "say; write to=gguf: a recent ollama reads the template in the file"
            )
        parts.append(part)
    return [*parts, text]


def common_start(a: str, b: str) -> str:
    """The longest text that both begin with."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return a[:i]
    return min(a, b, key=len)


def _common_end(a: str, b: str) -> str:
    return common_start(a[::-1], b[::-1])[::-1]
