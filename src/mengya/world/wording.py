"""From facts to sentences: `Wording` says a fact, asks for it, and makes up sums.

Takes a World and a random.Random; gives short Chinese strings without a closing full stop. Every
template of phrases_people and phrases_town is reached through here. Knows nothing of documents.
"""

import random
from dataclasses import dataclass

from mengya.world.facts import Fact, World, numeral, yuan
from mengya.world.phrases.people import PEOPLE, Phrases
from mengya.world.phrases.relations import RELATIONS
from mengya.world.phrases.sums import SUMS
from mengya.world.phrases.town import TOWN

LETTERS = "ABCD"  # of the options of an exercise
PHRASES: dict[str, Phrases] = {**PEOPLE, **RELATIONS, **TOWN}
OPENERS = ("请问，", "想一想，", "你知道吗，", "选一选，", "考考你，", "在青禾镇，")


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its right answer and three wrong ones; `fact` is None for sums.

    `statement` is the answer as a full sentence.
    """

    kind: str
    text: str
    answer: str
    wrong: tuple[str, ...]
    statement: str
    fact: Fact | None = None


class Wording:
    """Says and asks what is true in `world`, choosing wordings with `rng`."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.measures = {good.name: good.measure for good in world.goods}

    def fill(self, template: str, fact: Fact, subject: str | None = None) -> str:
        return template.format(
            s=subject or fact.subject, v=fact.value, m=self.measures.get(fact.subject, "")
        )

    def say(self, fact: Fact, subject: str | None = None) -> str:
        """A statement of the fact; `subject` (他, 她, 我, 这里) stands in for the name."""
        return self.fill(self.rng.choice(PHRASES[fact.kind].statements), fact, subject)

    def ask(self, fact: Fact, subject: str | None = None, blanks: bool = False) -> str:
        """A question of the training wordings; `blanks` allows the fill-in form with （ ）。"""
        questions = PHRASES[fact.kind].questions
        choices = questions if blanks else [text for text in questions if "（ ）" not in text]
        return self.fill(self.rng.choice(choices), fact, subject)

    def question(self, fact: Fact) -> Question:
        """An exercise about the fact, in a training wording."""
        opener = self.rng.choice(OPENERS) if self.rng.random() < 0.25 else ""
        wrong = tuple(self.world.distractors(self.rng, fact))
        text = opener + self.ask(fact, blanks=True)
        return Question(fact.kind, text, fact.value, wrong, self.say(fact), fact)

    def exam_question(self, fact: Fact, template: str) -> Question:
        """An exercise about the fact in one of its closed-book wordings."""
        wrong = tuple(self.world.distractors(self.rng, fact))
        return Question(
            fact.kind, self.fill(template, fact), fact.value, wrong, self.say(fact), fact
        )

    def sum(self, blanks: bool = True) -> Question:
        """A sum of everyday shopping, in words: cost, change, sum or rest; answers at most 45.

        `blanks` allows the fill-in form with （ ）.
        """
        rng = self.rng
        kind = rng.choice(list(SUMS))
        good = rng.choice(self.world.goods)
        if kind == "cost":
            a, b = good.price, rng.randint(2, 5)  # the true price, or the sum would deny a fact
            answer = a * b
        elif kind == "change":
            a = rng.choice((10, 20))
            b = rng.randint(2, a - 1)
            answer = a - b
        elif kind == "sum":
            a, b = rng.randint(2, 9), rng.randint(2, 9)
            answer = a + b
        else:
            a = rng.randint(6, 18)
            b = rng.randint(2, min(a - 2, 9))
            answer = a - b
        phrases = SUMS[kind]
        template = rng.choice(phrases.questions)
        words = {
            "w": good.name,
            "m": good.measure,
            "n": rng.choice(self.world.people).name,
        }
        questions = self._with_numbers(template, words, a, b, answer)
        statement = self._with_numbers(rng.choice(phrases.statements), words, a, b, answer)
        unit = "元" if kind in ("cost", "change") else ""
        near = [answer + d for d in (-9, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 9) if answer + d > 0]
        wrong = tuple(_amount(value, unit) for value in rng.sample(near, 3))
        if not blanks and "（ ）" in questions:
            return self.sum(blanks=False)
        return Question(kind, questions, _amount(answer, unit), wrong, statement)

    @staticmethod
    def _with_numbers(template: str, words: dict[str, str], a: int, b: int, answer: int) -> str:
        """Numbers go in as words; before a unit or a measure word two is 两."""
        values = {"a": a, "b": b, "v": answer}
        for name, value in values.items():
            for unit in ("元", "{m}"):
                word = "两" if value == 2 else numeral(value)
                template = template.replace("{" + name + "}" + unit, word + unit)
        return template.format(**words, **{k: numeral(v) for k, v in values.items()})


def _amount(value: int, unit: str) -> str:
    return yuan(value) if unit else numeral(value)


def exercise(
    rng: random.Random, question: Question, letter: str | None = None
) -> tuple[str, str, list[str]]:
    """Lay a question out as CMMLU does: (text up to 答案：, the right letter, the four options)."""
    letter = letter or rng.choice(LETTERS)
    options = list(question.wrong)
    rng.shuffle(options)
    options.insert(LETTERS.index(letter), question.answer)
    lines = [f"{name}. {option}" for name, option in zip(LETTERS, options, strict=True)]
    return "\n".join([question.text, *lines, "答案："]), letter, options
