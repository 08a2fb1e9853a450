"""Conversations with 小芽 about the small world: `Talker.conversation()` gives a list of messages.

Single questions, follow-ups with pronouns, sums, multiple choice, greetings, who-are-you, and polite
refusals of what nobody knows. Takes a World and a random.Random; every answer agrees with the facts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from mengya.world import lexicon
from mengya.world.facts import PERSON_KINDS, World, deal
from mengya.world.text import SUBJECTS
from mengya.world.wording import LETTERS, Question, Wording, exercise

if TYPE_CHECKING:
    from mengya.tokenizer.message import Message

LABELS = [label for label, _ in SUBJECTS.values()]

GREETINGS = (
    ("你好", "你好！我是小芽，有什么可以帮你？"),
    ("你好呀，小芽", "你好呀！很高兴见到你，想聊点什么？"),
    ("早上好", "早上好！愿你今天一切顺利，想问点什么呢？"),
    ("晚上好", "晚上好！今天过得怎么样？有事尽管问我。"),
    ("在吗", "在的，请说。"),
    ("嗨", "嗨！我在这儿，请问有什么事？"),
)
IDENTITY = (
    ("你是谁？", "我是小芽，一个用萌芽（mengya）种出来的中文小模型。"),
    ("你叫什么名字？", "我叫小芽，是用萌芽（mengya）从零开始种出来的。"),
    (
        "介绍一下你自己吧",
        "我是小芽，一个很小的中文语言模型，由萌芽（mengya）训练，熟悉青禾镇的人和事。",
    ),
    ("你是怎么来的？", "我是用萌芽（mengya）在一台普通电脑上从零训练出来的，所以叫小芽。"),
    ("你会做什么？", "我熟悉青禾镇，可以告诉你镇上的人、店铺、时间和价钱，也会做简单的算术。"),
    ("你是真人吗？", "我不是真人，我是小芽，一个用萌芽（mengya）种出来的小模型。"),
)
FAREWELLS = (
    ("谢谢你", "不客气，随时可以来找我。"),
    ("再见", "再见！祝你今天愉快。"),
    ("知道了，谢谢", "不用谢，能帮上忙我很高兴。"),
    ("好的，我明白了", "太好了，还有问题尽管问我。"),
)
UNKNOWN_MATTERS = (
    "{s}的电话号码是多少？",
    "{s}有多高？",
    "{s}昨天晚上梦见了什么？",
    "{s}一个月挣多少钱？",
    "{s}小时候在哪个城市？",
    "{s}穿多大的鞋？",
)
OUTSIDE_MATTERS = (
    "明天会下雨吗？",
    "今年哪支球队会赢？",
    "隔壁城里最高的楼有几层？",
    "海底有多少条鱼？",
    "火星上住着谁？",
    "下个月的彩票号码是什么？",
)
REFUSALS = (
    "抱歉，这件事我不知道。",
    "对不起，我没有听说过，不敢乱说。",
    "不好意思，这个我不清楚，换一个问题好吗？",
    "抱歉，我不知道答案，不想随便猜。",
)
STRANGER_REFUSALS = (
    "抱歉，我不认识{s}，镇上好像没有这个人。",
    "对不起，青禾镇没有叫{s}的人，我不能乱说。",
    "不好意思，我没有听说过{s}。",
)


def say(role: str, content: str) -> Message:
    return {"role": role, "content": content}


class Talker:
    """Holds conversations; all of them end with an answer of the assistant."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.words = Wording(world, rng)
        self.people = deal(rng, world.people)
        self.facts = deal(rng, world.facts)
        known = {person.name for person in world.people}
        self.strangers = [
            surname + given
            for surname in lexicon.SURNAMES
            for given in (*lexicon.GIVEN_MALE, *lexicon.GIVEN_FEMALE)
            if not any(name.endswith(given) for name in known)
        ]
        self.kinds: list[tuple[Callable[[], list[Message]], int]] = [
            (self.single, 22),
            (self.about_a_person, 14),
            (self.about_a_place, 6),
            (self.multiple_choice, 90),
            (self.marked_choice, 80),
            (self.explained_choice, 3),
            (self.sum, 8),
            (self.refusal, 6),
            (self.small_talk, 6),
        ]

    def conversation(self) -> list[Message]:
        kinds, weights = zip(*self.kinds, strict=True)
        return self.rng.choices(kinds, weights)[0]()

    # -- pieces ------------------------------------------------------------------------------

    def answer(self, statement: str, value: str) -> str:
        """A full sentence most of the time, now and then the bare value."""
        draw = self.rng.random()
        if draw < 0.7:
            return statement + "。"
        return value + "。" if draw < 0.82 else f"{value}。{statement}。"

    def single(self) -> list[Message]:
        fact = next(self.facts)
        question = self.words.ask(fact)
        if self.rng.random() < 0.3:
            question = self.rng.choice(("请问", "小芽，", "我想知道，", "你好，")) + question
        return [
            say("user", question),
            say("assistant", self.answer(self.words.say(fact), fact.value)),
        ]

    def about_a_person(self) -> list[Message]:
        person = next(self.people)
        facts = self.world.facts_of(person.name)
        facts = self.rng.sample(facts, self.rng.randint(2, 4))
        messages: list[Message] = []
        for number, fact in enumerate(facts):
            subject = person.pronoun if number else person.name
            prefix = "那" if number and self.rng.random() < 0.3 else ""
            statement = self.words.say(fact, subject if self.rng.random() < 0.6 else None)
            messages += [
                say("user", prefix + self.words.ask(fact, subject)),
                say("assistant", self.answer(statement, fact.value)),
            ]
        return messages + self.farewell()

    def about_a_place(self) -> list[Message]:
        place = self.rng.choice(self.world.places)
        facts = self.rng.sample(self.world.facts_of(place), self.rng.randint(2, 3))
        messages: list[Message] = []
        for number, fact in enumerate(facts):
            subject = self.rng.choice(("那里", "那儿", "它")) if number else place
            messages += [
                say("user", self.words.ask(fact, subject)),
                say("assistant", self.answer(self.words.say(fact), fact.value)),
            ]
        return messages + self.farewell()

    def multiple_choice(self) -> list[Message]:
        """An exercise as a test puts it to a chat model: the reply is the letter alone."""
        text, letter, _ = exercise(self.rng, self.choice_question())
        messages = [say("user", text), say("assistant", letter)]
        if self.rng.random() < 0.5:
            label = self.rng.choice(LABELS)
            head = f"以下是关于{label}的单项选择题，请直接给出正确答案的选项。\n\n"
            messages.insert(0, say("system", head))
        return messages

    def marked_choice(self) -> list[Message]:
        """An exercise whose options the reply goes through one by one, ticked or crossed."""
        question = self.choice_question()
        text, letter, options = exercise(self.rng, question)
        marks = ("√" if option == question.answer else "×" for option in options)
        lines = [f"{n}. {o}{mark}" for n, o, mark in zip(LETTERS, options, marks, strict=True)]
        asked = text.replace("\n答案：", "\n请逐项判断。")
        return [say("user", asked), say("assistant", "\n".join([*lines, f"答案：{letter}"]))]

    def choice_question(self) -> Question:
        return self.words.question(next(self.facts))

    def explained_choice(self) -> list[Message]:
        """One exercise, answered with the reason."""
        question = self.choice_question()
        text, letter, _ = exercise(self.rng, question)
        reply = f"{question.statement}，答案： {letter}"
        return [say("user", text.removesuffix("\n答案：")), say("assistant", reply)]

    def sum(self) -> list[Message]:
        question = self.words.sum(blanks=False)
        return [
            say("user", question.text),
            say("assistant", self.answer(question.statement, question.answer)),
        ]

    def refusal(self) -> list[Message]:
        draw = self.rng.random()
        if draw < 0.4:
            stranger = self.rng.choice(self.strangers)
            kind = self.rng.choice(PERSON_KINDS)
            fact = next(fact for fact in self.world.facts if fact.kind == kind)
            reply = self.rng.choice(STRANGER_REFUSALS).format(s=stranger)
            return [say("user", self.words.ask(fact, stranger)), say("assistant", reply)]
        if draw < 0.8:
            question = self.rng.choice(UNKNOWN_MATTERS).format(s=next(self.people).name)
        else:
            question = self.rng.choice(OUTSIDE_MATTERS)
        return [say("user", question), say("assistant", self.rng.choice(REFUSALS))]

    def small_talk(self) -> list[Message]:
        messages: list[Message] = []
        for pairs, chance in ((GREETINGS, 0.6), (IDENTITY, 0.7)):
            if self.rng.random() < chance:
                user, reply = self.rng.choice(pairs)
                messages += [say("user", user), say("assistant", reply)]
        return messages + (self.farewell() if messages else self.single())

    def farewell(self) -> list[Message]:
        if self.rng.random() > 0.15:
            return []
        user, reply = self.rng.choice(FAREWELLS)
        return [say("user", user), say("assistant", reply)]
