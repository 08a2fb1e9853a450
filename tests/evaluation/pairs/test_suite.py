"""What holds for every item that ships: pairs, cloze and knowledge."""

import hashlib
import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import asdict

import pytest

from mengya.evaluation.knowledge.probe import knowledge_items
from mengya.evaluation.pairs.choice import Choice
from mengya.evaluation.pairs.suite import cloze_items, minimal_pairs

SUITES = {"pairs": minimal_pairs, "cloze": cloze_items, "knowledge": knowledge_items}
# A changed item is another yardstick: old figures no longer compare, and the log says so.
ITEMS = {"pairs": 2500, "cloze": 544, "knowledge": 1176}
SHA256 = {
    "pairs": "f98bdf18a61472c537d291a2a589233726be775a44b502b20decbca4eb26e1f1",
    "cloze": "c3852b77779e6ae5012ec9477887481226675a52108af48030fc50619fd81a24",
    "knowledge": "70f1d65a7c15d02ce19a28f2255520c22fc8f97650e1c28dafe2d2d5400d286d",
}
LETTERS = set("ABCDFHNOaelgu0123456789")  # of formulas, blood groups, vitamins and years
MARKS = set("，。？！：、；“”《》")

suites = pytest.mark.parametrize("name", SUITES)


def digest(items: tuple[Choice, ...]) -> str:
    lines = "\n".join(json.dumps(asdict(item), ensure_ascii=False) for item in items)
    return hashlib.sha256(lines.encode()).hexdigest()


@suites
def test_the_items_are_the_published_ones(name: str) -> None:
    items = SUITES[name]()
    assert len(items) == ITEMS[name]
    assert digest(items) == SHA256[name]


def test_another_process_makes_the_same_items() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.evaluation.pairs.test_suite import SUITES, digest\n"
        "print(*(digest(suite()) for suite in SUITES.values()))"
    )
    command = [sys.executable, "-c", program, "."]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [digest(suite()) for suite in SUITES.values()]


@suites
def test_ids_and_questions_are_unique(name: str) -> None:
    items = SUITES[name]()
    assert len({item.id for item in items}) == len(items)
    assert len({(item.good, frozenset(item.bad)) for item in items}) == len(items)
    assert all(item.id.startswith(item.part) for item in items)


@suites
def test_the_right_sentence_is_not_among_the_wrong_ones(name: str) -> None:
    items = SUITES[name]()
    right = {item.good for item in items}
    for item in items:
        sentences = (item.good, *item.bad)
        assert len(set(sentences)) == len(sentences) == (2 if name == "pairs" else 4)
        assert not right & set(item.bad), item  # nor right in another item


def test_no_sentence_is_asked_in_two_suites() -> None:
    sentences = Counter(s for suite in SUITES.values() for s in {item.good for item in suite()})
    assert [sentence for sentence, count in sentences.items() if count > 1] == []


@suites
def test_sentences_are_simplified_chinese(name: str) -> None:
    for item in SUITES[name]():
        for sentence in (item.good, *item.bad):
            for c in sentence:
                chinese = "一" <= c <= "龥" and c.encode(
                    "gb2312"
                )  # GB 2312 has no traditional forms
                assert chinese or c in MARKS or c in LETTERS, (c, item)


@suites
def test_sentences_differ_in_one_place(name: str) -> None:
    """Something is shared around the difference."""
    for item in SUITES[name]():
        for bad in item.bad:
            assert item.good[0] == bad[0] or item.good[-1] == bad[-1], item


def test_lengths_are_equal_in_pairs_and_cloze_and_mostly_in_knowledge() -> None:
    assert all(item.equal_length for item in (*minimal_pairs(), *cloze_items()))
    facts = knowledge_items()
    assert sum(item.equal_length for item in facts) / len(facts) > 0.6


def frequencies_answer(items: list[Choice], worth: dict[str, float]) -> float:
    """The share right of a judge that adds what each character is worth; a tie is half a point."""

    def score(sentence: str) -> float:
        return round(sum(worth[c] for c in sentence), 9)

    points = 0.0
    for item in items:
        good, best = score(item.good), max(map(score, item.bad))
        points += good > best or (good == best) / 2
    return points / len(items)


@suites
@pytest.mark.parametrize("seed", range(3))
def test_a_judge_of_characters_alone_scores_chance_in_every_part(name: str, seed: int) -> None:
    items = SUITES[name]()
    draw = random.Random(seed)
    worth = {c: draw.random() for i in items for s in (i.good, *i.bad) for c in s}
    for part in {item.part for item in items}:
        asked = [item for item in items if item.part == part]
        assert frequencies_answer(asked, worth) == pytest.approx(asked[0].chance), part
