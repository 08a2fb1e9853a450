"""The small world agrees with itself, is the same everywhere, and its test cannot be read off its text."""

import csv
import hashlib
import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from mengya.errors import UserError
from mengya.world import SUBJECTS, WorldConfig, generate, world_of
from mengya.world.facts import KINDS, Fact, World, numeral
from mengya.world.generate import handwritten
from mengya.world.wording import PHRASES, Wording

SMALL = WorldConfig(
    pretrain_characters=300_000,
    conversations=600,
    preferences=200,
    heldout_preferences=60,
    validation_documents=40,
    validation_conversations=20,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "sample"
    generate(out, SMALL)
    return out


@pytest.fixture(scope="module")
def world() -> World:
    return world_of(SMALL)


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def strings(value: object) -> list[str]:
    """Every text inside a record."""
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    assert isinstance(items, (list, type({}.values())))
    return [text for item in items for text in strings(item)]


def training_text(bundle: Path) -> str:
    names = ("pretrain", "pretrain_validation", "conversations", "conversations_validation")
    names = (*names, "preferences", "preferences_heldout")
    return "\n".join(
        text
        for name in names
        for item in records(bundle / f"{name}.jsonl")
        for text in strings(item)
    )


def exam_rows(bundle: Path) -> list[tuple[str, dict[str, str]]]:
    rows = []
    for path in sorted((bundle / "closed_book").glob("*/*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += [(path.stem, row) for row in csv.DictReader(file)]
    return rows


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_world(
    bundle: Path, tmp_path: Path
) -> None:
    generate(tmp_path / "again", SMALL)
    assert digest(tmp_path / "again") == digest(bundle)
    generate(tmp_path / "other", SMALL.model_copy(update={"seed": 1}))
    other = digest(tmp_path / "other")
    assert other.keys() == digest(bundle).keys()
    assert all(other[name] != value for name, value in digest(bundle).items())


def test_a_folder_that_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(UserError, match=r"did not write: thesis\.txt"):
        generate(tmp_path, SMALL)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "precious"


def test_a_bundle_is_replaced_when_asked_to_and_keeps_what_is_not_ours(
    bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "world"
    shutil.copytree(bundle, out)
    small = SMALL.model_copy(update={"seed": 1, "pretrain_characters": 10_000})
    with pytest.raises(UserError, match="overwrite=true"):
        generate(out, small)
    mine = out / "closed_book/test/mine.csv"
    mine.write_text("my own questions", encoding="utf-8")
    for marked in (True, False):  # earlier versions wrote no marker
        with pytest.raises(UserError, match=r"did not write: closed_book/test/mine\.csv"):
            generate(out, small, overwrite=True)
        assert mine.read_text(encoding="utf-8") == "my own questions"
        if marked:
            (out / ".mengya.json").unlink()
    mine.unlink()
    generate(out, small, overwrite=True)
    assert digest(out) != digest(bundle)


def test_every_record_has_the_form_its_file_promises(bundle: Path) -> None:
    for name in ("pretrain", "pretrain_validation"):
        items = records(bundle / f"{name}.jsonl")
        assert items and all(set(item) == {"text"} and item["text"].strip() for item in items)
    for name in ("conversations", "conversations_validation"):
        for item in records(bundle / f"{name}.jsonl"):
            roles = [message["role"] for message in item["messages"]]
            roles = roles[1:] if roles[0] == "system" else roles
            assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
            assert all(message["content"].strip() for message in item["messages"])
    for name in ("preferences", "preferences_heldout"):
        for item in records(bundle / f"{name}.jsonl"):
            assert list(item) == ["prompt", "chosen", "rejected"]
            assert item["prompt"][-1]["role"] == "user"
            assert [m["role"] for m in item["chosen"] + item["rejected"]] == ["assistant"] * 2
            assert item["chosen"] != item["rejected"]


def test_relations_hold_in_both_directions(world: World) -> None:
    people = {person.name: person for person in world.people}
    assert len(people) == len(world.people) == SMALL.people
    for person in world.people:
        if person.spouse:
            assert people[person.spouse].spouse == person.name
            assert people[person.spouse].male != person.male
        if person.friend:
            assert people[person.friend].friend == person.name
        if person.father:
            father = people[person.father]
            assert father.male and father.spouse == person.mother
            assert father.age - person.age >= 18 and father.home == person.home
        if person.teacher:
            assert people[person.teacher].job == "老师"
    assert set(KINDS) == {fact.kind for fact in world.facts}
    assert len(world.facts) == len({(fact.kind, fact.subject) for fact in world.facts})


def statement_patterns(world: World) -> list[tuple[str, re.Pattern[str]]]:
    """What states a fact with the subject's name in it, as patterns over the world's own words."""
    measures = "|".join(sorted({good.measure for good in world.goods}))
    patterns = []
    for kind in KINDS:
        subjects = "|".join(fact.subject for fact in world.facts if fact.kind == kind)
        for template in PHRASES[kind].statements:
            text = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
            text = text.replace("{s}", f"(?P<s>{subjects})", 1).replace("{s}", "(?P=s)")
            values = sorted(world.pools[kind], key=len, reverse=True)
            text = text.replace("{v}", f"(?P<v>{'|'.join(values)})", 1).replace("{v}", "(?P=v)")
            text = text.replace("{m}", f"(?:{measures})")
            patterns.append((kind, re.compile(f"(?:^|[，。：\n]){text}(?=[，。\n])")))
    return patterns


def test_every_stated_fact_agrees_with_the_world(bundle: Path, world: World) -> None:
    facts = {(fact.kind, fact.subject, fact.value) for fact in world.facts}
    text = "\n".join(
        text
        for name in ("pretrain", "conversations")
        for item in records(bundle / f"{name}.jsonl")
        for text in strings(item)
    )
    found: Counter[str] = Counter()
    for kind, pattern in statement_patterns(world):
        for match in pattern.finditer(text):
            assert (kind, match["s"], match["v"]) in facts, match[0]
            found[kind] += 1
    assert set(found) == set(KINDS) and min(found.values()) >= 10, found


def test_every_answer_in_an_exercise_of_the_text_is_right(bundle: Path, world: World) -> None:
    facts = {(fact.subject, fact.value) for fact in world.facts}
    subjects = sorted({fact.subject for fact in world.facts}, key=len, reverse=True)
    layout = re.compile(r"(.+)\nA\. (.+)\nB\. (.+)\nC\. (.+)\nD\. (.+)\n答案： ([A-D])$", re.M)
    checked = 0
    for item in records(bundle / "pretrain.jsonl"):
        for question, *options, letter in layout.findall(item["text"]):
            right = "ABCD".index(letter)
            marks = [option[-1] for option in options]
            assert all(m != ("×" if i == right else "√") for i, m in enumerate(marks)), question
            options = [option.rstrip("√×") for option in options]
            assert len(set(options)) == 4
            named = [subject for subject in subjects if subject in question]
            if named and not re.search(
                "[一二三四五六七八九十两].*元|剩|合起来|又买|加|减", question
            ):
                assert (named[0], options[right]) in facts, question
                checked += 1
    assert checked > 100


def test_sums_are_right(world: World) -> None:
    words = Wording(world, random.Random(5))
    numbers = {numeral(n): n for n in range(100)} | {"两": 2}
    for question in (words.sum() for _ in range(500)):
        said = re.findall("[一二三四五六七八九十两]+(?=元|加|减|等于|是|$)", question.statement)
        pair = re.fullmatch("(.+?)(加上?|减去?)(.+?)(?:等于|是)(.+)", question.statement)
        if pair and len(said) >= 2:
            a, b, c = (numbers[pair[i]] for i in (1, 3, 4))
            assert c == (a + b if "加" in pair[2] else a - b)
            assert question.answer == numeral(c)
        assert question.answer not in question.wrong and len(set(question.wrong)) == 3


def test_exam_wordings_are_not_in_the_training_text(bundle: Path, world: World) -> None:
    text = training_text(bundle)
    for template in [t for kind in PHRASES.values() for t in kind.exam]:
        for part in re.split(r"\{\w\}", template):
            windows = {part[i : i + 10] for i in range(len(part) - 9)}
            assert not [window for window in windows if window in text], template
        pattern = re.sub(r"\\\{\w\\\}", ".{1,8}", re.escape(template))
        assert not re.search(pattern, text), template
    names = {fact.subject for fact in world.facts} | {fact.value for fact in world.facts}
    pattern = re.compile("|".join(sorted(map(re.escape, names), key=len, reverse=True)))
    for _, row in exam_rows(bundle):
        assert row["Question"] not in text
        for part in pattern.split(row["Question"]):
            assert not any(part[i : i + 10] in text for i in range(len(part) - 9)), row


def test_the_exam_is_balanced_and_its_options_are_of_one_type(bundle: Path, world: World) -> None:
    rows = exam_rows(bundle)
    assert {subject for subject, _ in rows} == set(SUBJECTS)
    types = [set(values) for values in world.pools.values()]
    for subject in SUBJECTS:
        mine = [row for name, row in rows if name == subject]
        header = (bundle / f"closed_book/test/{subject}.csv").read_text(encoding="utf-8")
        assert header.startswith(",Question,A,B,C,D,Answer\n")
        assert len(mine) >= 20
        counts = Counter(row["Answer"] for row in mine[5:])
        assert max(counts.values()) - min(counts.values()) <= 2, (subject, counts)
        for row in mine:
            options = {row[letter] for letter in "ABCD"}
            assert len(options) == 4
            assert any(options <= values for values in types), row


def test_the_exam_asks_for_facts_of_the_world(bundle: Path, world: World) -> None:
    facts = {(fact.subject, fact.value) for fact in world.facts}
    subjects = sorted({fact.subject for fact in world.facts}, key=len, reverse=True)
    for _, row in exam_rows(bundle):
        named = next(name for name in subjects if name in row["Question"])
        right = [x for x in "ABCD" if (named, row[x]) in facts and fits(world, named, row, x)]
        assert row["Answer"] in right, row


def fits(world: World, subject: str, row: dict[str, str], letter: str) -> bool:
    """Whether some exam wording asks for exactly this fact in this row."""
    for fact in world.facts_of(subject):
        if fact.value == row[letter]:
            words = Wording(world, random.Random(0))
            asked = [words.fill(template, fact) for template in PHRASES[fact.kind].exam]
            if row["Question"] in asked:
                return True
    return False


def test_texts_vary(bundle: Path) -> None:
    texts = [item["text"] for item in records(bundle / "pretrain.jsonl")]
    assert len(set(texts)) / len(texts) > 0.9
    sentences = [s for text in texts for s in re.split("[。\n]", text) if len(s) > 8]
    assert len(set(sentences)) / len(sentences) > 0.3
    held = {item["text"] for item in records(bundle / "pretrain_validation.jsonl")}
    assert not held & set(texts)


def test_heldout_preferences_use_other_wordings(bundle: Path) -> None:
    train = {json.dumps(i["prompt"]) for i in records(bundle / "preferences.jsonl")}
    held = {json.dumps(i["prompt"]) for i in records(bundle / "preferences_heldout.jsonl")}
    assert not train & held


def test_handwritten_texts_are_many_distinct_and_short() -> None:
    texts = [item["text"] for item in handwritten("documents.jsonl")]
    talks = [item["messages"] for item in handwritten("dialogues.jsonl")]
    assert len(texts) + len(talks) >= 300
    assert len(set(texts)) == len(texts)
    assert all(25 <= len(text) <= 300 for text in texts)
    for messages in talks:
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)


def test_distractors_are_wrong(world: World) -> None:
    rng = random.Random(3)
    for fact in world.facts:
        wrong = world.distractors(rng, fact)
        assert len({*wrong, fact.value}) == 4
        assert not any(Fact(fact.kind, fact.subject, value) in world.facts for value in wrong)
