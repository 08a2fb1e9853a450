"""The closed-book test in CMMLU's layout: dev/SUBJECT.csv (examples) and test/SUBJECT.csv.

Its wordings occur nowhere in the training text; answers are balanced over A to D within a subject.
"""

import csv
import io
import random

from mengya.world.facts import World
from mengya.world.text import SUBJECTS
from mengya.world.wording import LETTERS, PHRASES, Question, Wording, exercise

SHOTS = 5  # examples of a subject
HEADER = ("", "Question", "A", "B", "C", "D", "Answer")


def closed_book(world: World, rng: random.Random, per_subject: int) -> dict[str, str]:
    """CSV text by relative path ("dev/relations.csv"); `per_subject` test questions at most."""
    words = Wording(world, rng)
    files: dict[str, str] = {}
    for subject, (_, kinds) in SUBJECTS.items():
        facts = [fact for fact in world.facts if fact.kind in kinds]
        pairs = [(fact, text) for fact in facts for text in PHRASES[fact.kind].exam]
        rng.shuffle(pairs)
        chosen = pairs[: per_subject + SHOTS]
        questions = [words.exam_question(fact, template) for fact, template in chosen]
        rng.shuffle(questions)
        files[f"dev/{subject}.csv"] = _csv(rng, questions[:SHOTS])
        files[f"test/{subject}.csv"] = _csv(rng, questions[SHOTS:])
    return files


def _csv(rng: random.Random, questions: list[Question]) -> str:
    letters = [(LETTERS * (len(questions) // 4 + 1))[i] for i in range(len(questions))]
    rng.shuffle(letters)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for number, (question, letter) in enumerate(zip(questions, letters, strict=True)):
        _, _, options = exercise(rng, question, letter)
        writer.writerow([number, question.text, *options, letter])
    return out.getvalue()
