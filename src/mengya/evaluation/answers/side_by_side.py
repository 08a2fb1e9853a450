"""Answers of several checkpoints to the same fixed prompts, next to each other.

Takes the items that the yardstick `loops` gave for each checkpoint; generates nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mengya.evaluation.answers.questions import SHOWN
from mengya.text.visible import visible

SideBySide = dict[str, dict[str, str]]
"""Of each prompt, the answer of each checkpoint that was asked it."""


def side_by_side(
    items: Mapping[str, Iterable[Mapping[str, Any]]], how: str = "greedy"
) -> SideBySide:
    """The 24 questions, then the 14 openings, with the answers of those checkpoints that have them.

    A chat model has answers to the questions, a base model to the openings.

    Args:
        items: of `loops`, by the checkpoint's name, in the order in which they are to be shown.
        how: greedy or sampled.
    """
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for checkpoint, records in items.items():
        for record in records:
            id_, prompt, answer = (record.get(name) for name in ("id", "prompt", "answer"))
            if not (isinstance(id_, str) and isinstance(prompt, str) and isinstance(answer, str)):
                continue  # of another yardstick, or changed by hand
            if record.get("part") == how and id_.rpartition("-")[0] in SHOWN:
                _, answers = found.setdefault(id_, (prompt, {}))
                answers[checkpoint] = answer
    order = {part: place for place, part in enumerate(SHOWN)}
    ids = sorted(found, key=lambda id_: (order[id_.rpartition("-")[0]], id_))
    return {found[id_][0]: found[id_][1] for id_ in ids}


def to_markdown(table: SideBySide) -> str:
    """A heading a prompt, and under it a block of quoted text for each checkpoint."""
    parts: list[str] = []
    for prompt, answers in table.items():
        parts.append(f"### {_one_line(prompt)}")
        for checkpoint, answer in answers.items():
            shown = visible(answer.strip()) or "(empty)"
            quoted = "\n".join(f"> {_escaped(line)}".rstrip() for line in shown.splitlines())
            parts.append(f"**{_escaped(checkpoint)}**\n\n{quoted}")
    return "\n\n".join(parts) + "\n" if parts else ""


def _one_line(text: str) -> str:
    return _escaped(visible(text).strip().replace("\n", " ⏎ "))


def _escaped(text: str) -> str:
    """Text as it is, whatever Markdown or HTML a model wrote."""
    for character in "\\`*_[]<>#|":
        text = text.replace(character, "\\" + character)
    return text
