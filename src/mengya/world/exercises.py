"""Exercise sheets for the pretraining text: the layout of the closed-book test, learned step by step.

A small model does not find out by itself that a letter stands for an option. So besides plain sheets
there are sheets that practise the parts: finding a word among options, options shared by many
questions, questions answered with a sentence first, and questions on a text just read.
"""

import random
from collections.abc import Iterator

from mengya.world.facts import Fact, World
from mengya.world.wording import LETTERS, Question, Wording, exercise

STYLES = {"direct": 1, "marked": 9, "ticks": 2, "matching": 0.3}  # how often each is chosen


class Exercises:
    """Writes exercise sheets, each in one of STYLES."""

    def __init__(
        self, world: World, rng: random.Random, facts: Iterator[Fact], labels: list[str]
    ) -> None:
        self.world = world
        self.rng = rng
        self.facts = facts
        self.labels = labels
        self.words = Wording(world, rng)
        self.by_kind: dict[str, list[Fact]] = {}
        for fact in world.facts:
            self.by_kind.setdefault(fact.kind, []).append(fact)

    def sheet(self) -> str:
        style = self.rng.choices(list(STYLES), list(STYLES.values()))[0]
        return getattr(self, style)()

    def head(self) -> str:
        if self.rng.random() < 0.85:
            return ""
        label = self.rng.choice(self.labels)
        return f"以下是关于{label}的单项选择题，请直接给出正确答案的选项。\n\n"

    def question(self) -> Question:
        # Of facts only: sums among the exercises cost the letters more than they taught arithmetic.
        return self.words.question(next(self.facts))

    def direct(self) -> str:
        """A question in exactly the layout of the test; now and then a second one."""
        blocks = []
        for _ in range(1 if self.rng.random() < 0.8 else 2):
            text, letter, _ = exercise(self.rng, self.question())
            blocks.append(f"{text} {letter}")
        return self.head() + "\n\n".join(blocks)

    def marked(self) -> str:
        """The same, with the options ticked √ or crossed × as a teacher does."""
        question = self.question()
        text, letter, options = exercise(self.rng, question)
        for option in options:
            mark = "√" if option == question.answer else "×"
            text = text.replace(f". {option}\n", f". {option}{mark}\n")
        return f"{self.head()}{text} {letter}"

    def options(self, kind: str) -> tuple[list[str], list[Fact]]:
        """Four values of a kind, and all facts of that kind which have one of them."""
        facts = self.by_kind[kind]
        values: list[str] = []
        for fact in self.rng.sample(facts, len(facts)):
            if fact.value not in values:
                values.append(fact.value)
            if len(values) == 4:
                break
        return values, [fact for fact in facts if fact.value in values]

    def matching(self) -> str:
        """One set of options for several questions, answers written out or not."""
        rng = self.rng
        values, facts = self.options(next(self.facts).kind)
        if len(values) < 4:
            return self.direct()
        lines = [f"{letter}. {value}" for letter, value in zip(LETTERS, values, strict=True)]
        written = rng.random() < 0.5
        for fact in rng.sample(facts, min(len(facts), rng.randint(3, 6))):
            answer = f"{fact.value} " if written else ""
            ask = self.words.ask(fact, blanks=True)
            lines.append(f"{ask}\n答案： {answer}{LETTERS[values.index(fact.value)]}")
        return "\n".join(lines)

    def ticks(self) -> str:
        """Questions with candidates in a row, each ticked √ or crossed ×."""
        lines = []
        for _ in range(self.rng.randint(2, 4)):
            question = self.question()
            candidates = [question.answer, *question.wrong][: self.rng.randint(3, 4)]
            self.rng.shuffle(candidates)
            if self.rng.random() < 0.3:
                candidates.pop()
            marks = (f" {c}{'√' if c == question.answer else '×'}" for c in candidates)
            lines.append(question.text + "".join(marks))
        return "\n".join(lines)
