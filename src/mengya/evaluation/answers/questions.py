"""The fixed questions and openings, and what a checkpoint answers to them.

A chat model is asked the questions, a base model continues the openings. The 24 questions and 14 openings are
the ones to show; loops, diversity and lengths are measured on them and on the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from mengya.errors import UserError
from mengya.evaluation.answers.answer import TOP_P, Answer, Prompt, answers, prompt_ids
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig
from mengya.runtime.yaml_values import load_yaml

T = TypeVar("T")

_FILE = Path(__file__).with_name("questions.yaml")
SHOWN = ("questions", "openings")  # parts of the file that cards show


@dataclass(frozen=True)
class Asked:
    """
    Attributes:
        ids: of the prompts, such as questions-007.
        answers: one for each id.
        note: what a reader must know of the settings, else empty.
    """

    ids: list[str]
    answers: list[Answer]
    note: str


@cache
def fixed_prompts(chat: bool) -> dict[str, str]:
    """Every prompt by its id."""
    parts = load_yaml(_FILE.read_text(encoding="utf-8"))
    wanted = ("questions", "more_questions") if chat else ("openings", "more_openings")
    return {
        f"{part}-{number:03d}": prompt
        for part in wanted
        for number, prompt in enumerate(parts[part], start=1)
    }


def ask_fixed(subject: Subject, config: YardstickConfig) -> dict[str, Asked]:
    """Answers to all fixed prompts, `greedy` and `sampled`.

    Raises:
        UserError: as `ask`.
    """
    prompts = fixed_prompts(subject.chat)
    ids = spread(list(prompts), config.limit)
    return ask(subject, ids, [prompts[id_] for id_ in ids], config)


def ask(
    subject: Subject, ids: Sequence[str], prompts: Sequence[Prompt], config: YardstickConfig
) -> dict[str, Asked]:
    """Answers by how they are made: `greedy`, and `sampled` at the configured temperature.

    Prompts that leave less than a quarter of the model's context for the answer are left out, and the note
    says how many.

    Raises:
        UserError: none fits, or as `answers`.
    """
    kept = fitting(subject, prompts)
    left_out = len(prompts) - len(kept)
    notes = [f"{left_out} prompts too long for the model's context"] if left_out else []
    asked = {}
    for how, temperature in (("greedy", None), ("sampled", config.temperature)):
        made = answers(
            subject,
            [prompts[i] for i in kept],
            temperature=temperature,
            max_new_tokens=config.max_new_tokens,
            seed=config.seed,
        )
        settings = [] if temperature is None else [f"temperature {temperature}, top-p {TOP_P}"]
        asked[how] = Asked([ids[i] for i in kept], made, "; ".join(settings + notes))
    return asked


def fitting(subject: Subject, prompts: Sequence[Prompt]) -> list[int]:
    """The numbers of the prompts that leave a quarter of the context, or more, for an answer.

    Raises:
        UserError: none does.
    """
    kept = [i for i, prompt in enumerate(prompts) if has_room(subject, prompt)]
    if not kept:
        raise UserError(
            f"none of the {len(prompts)} prompts fits into the model's context of {subject.context_length} "
            "tokens with an answer; leave out the yardsticks that are measured on answers"
        )
    return kept


def has_room(subject: Subject, prompt: Prompt) -> bool:
    """Whether a prompt leaves a quarter of the context, or more, for an answer."""
    room = subject.context_length - subject.context_length // 4
    return len(prompt_ids(subject, prompt)) <= room


def spread(items: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` of the items, spread evenly over them."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[number * len(items) // limit] for number in range(limit)]
