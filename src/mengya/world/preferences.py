"""Preference pairs about the small world: right, polite and complete against wrong, rude or rambling.

`Chooser.pair(heldout)` gives {"prompt": messages, "chosen": messages, "rejected": messages}. Held-out
pairs use prompt openings and closing courtesies that the training pairs never use. The rejected
answer is always fluent, often what a model fresh from SFT would say, so there is something to learn.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from mengya.world.conversations import (
    OUTSIDE_MATTERS,
    REFUSALS,
    UNKNOWN_MATTERS,
    Talker,
    say,
)
from mengya.world.facts import Fact, World
from mengya.world.wording import Question

if TYPE_CHECKING:
    from mengya.tokenizer.message import Message

OPENINGS = ("", "请问", "小芽，", "我想知道，", "你好，")
OPENINGS_HELDOUT = ("打扰一下，", "麻烦告诉我，", "有件事想请教，")
COURTESIES = (
    "还想知道什么，尽管问我。",
    "希望能帮到你。",
    "如果还有问题，欢迎再来问我。",
    "祝你今天愉快。",
)
COURTESIES_HELDOUT = ("有别的问题也欢迎问我。", "希望这个回答能帮到你。", "愿你今天开心。")
LEADS = ("好的，", "你好，", "很高兴回答你，")
RUDE = ("这还用问吗，", "你怎么连这个都不知道，", "别烦我，", "真麻烦，", "笨死了，")
BRUSH_OFFS = ("不知道，别问了。", "自己去查。", "懒得说。", "问别人去。")


class Chooser:
    """Makes preference pairs from the same facts and wordings as the conversations."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.talker = Talker(world, rng)
        self.words = self.talker.words

    def pair(self, heldout: bool = False) -> dict[str, list[Message]]:
        draw = self.rng.random()
        if draw < 0.12:
            return self._unknown(heldout)
        if draw < 0.27:
            question = self.words.sum(blanks=False)
            return self._pair(question, None, heldout)
        fact = next(self.talker.facts)
        question = Question(
            fact.kind,
            self.words.ask(fact),
            fact.value,
            tuple(self.world.distractors(self.rng, fact)),
            self.words.say(fact),
            fact,
        )
        return self._pair(question, fact, heldout)

    def _pair(
        self, question: Question, fact: Fact | None, heldout: bool
    ) -> dict[str, list[Message]]:
        rng = self.rng
        right = question.statement
        wrong = self._wrong(question, fact)
        flaw = rng.choice(
            ("wrong", "wrong", "curt", "rude", "rude and wrong", "rambling", "brush-off")
        )
        rejected = {
            "wrong": f"{wrong}。" if rng.random() < 0.5 else self._polite(wrong, heldout),
            "curt": f"{question.answer}。",
            "rude": f"{rng.choice(RUDE)}{right}。",
            "rude and wrong": f"{rng.choice(RUDE)}{wrong}。",
            "rambling": self._rambling(right),
            "brush-off": rng.choice(BRUSH_OFFS),
        }[flaw]
        opening = rng.choice(OPENINGS_HELDOUT if heldout else OPENINGS)
        return {
            "prompt": [say("user", opening + question.text)],
            "chosen": [say("assistant", self._polite(right, heldout))],
            "rejected": [say("assistant", rejected)],
        }

    def _polite(self, statement: str, heldout: bool) -> str:
        courtesy = self.rng.choice(COURTESIES_HELDOUT if heldout else COURTESIES)
        return f"{self.rng.choice(LEADS)}{statement}。{courtesy}"

    def _wrong(self, question: Question, fact: Fact | None) -> str:
        """The answer's sentence with a wrong value of the same type in it."""
        value = self.rng.choice(question.wrong)
        if fact is None:
            return f"答案是{value}"
        return self.words.say(Fact(fact.kind, fact.subject, value))

    def _rambling(self, right: str) -> str:
        """The right answer, then things nobody asked for."""
        more = [self.words.say(next(self.talker.facts)) for _ in range(2)]
        return "，".join([right, *more, right]) + "。"

    def _unknown(self, heldout: bool) -> dict[str, list[Message]]:
        """What nobody knows: an honest refusal against a bold invention."""
        rng = self.rng
        matters = OUTSIDE_MATTERS if rng.random() < 0.3 else UNKNOWN_MATTERS
        text = rng.choice(matters).format(s=next(self.talker.people).name)
        opening = rng.choice(OPENINGS_HELDOUT if heldout else OPENINGS)
        invented = self.words.say(next(self.talker.facts))
        courtesy = rng.choice(COURTESIES_HELDOUT if heldout else COURTESIES)
        rejected = rng.choice(
            (f"我当然知道，{invented}。", f"{invented}。", rng.choice(BRUSH_OFFS))
        )
        return {
            "prompt": [say("user", opening + text)],
            "chosen": [say("assistant", rng.choice(REFUSALS) + courtesy)],
            "rejected": [say("assistant", rejected)],
        }
