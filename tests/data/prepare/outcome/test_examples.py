"""Examples are those of the smallest hashes, and histograms add up, in whatever parts the texts come."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from mengya.data.prepare.outcome.encoded_chunk import EncodedChunk
from mengya.data.prepare.outcome.examples import Example, Examples, edit_example, place_example
from mengya.data.prepare.outcome.histograms import MAX_TURNS, Histograms, add_histograms
from mengya.text.scripts import SCRIPTS


@pytest.mark.parametrize("parts", [1, 3, 50])
def test_the_choice_does_not_depend_on_the_parts(parts: int) -> None:
    rng = random.Random(0)
    all_examples = [Example(rng.randrange(60), "f", line, f"text {line}") for line in range(100)]
    first: dict[int, Example] = {}
    for example in all_examples:
        first.setdefault(example.hash, example)
    expected = sorted(first.values(), key=lambda example: example.hash)[:10]
    chosen = Examples(10)
    for part in np.array_split(np.arange(100), parts):
        of_part = Examples(10)
        for i in part.tolist():
            of_part.add("reason", all_examples[i])
        chosen.update(of_part)
        chosen = Examples.of(json.loads(json.dumps(chosen.state())), 10)  # a resumed run
    assert chosen.by_name["reason"] == expected


def test_an_edit_is_shown_where_it_changed_the_text() -> None:
    before = "春" * 500 + "电话13812345678" + "秋" * 500
    example = edit_example(before, before.replace("13812345678", "【手机号】"), "f", 3)
    assert example.before is not None and "春电话13812345678秋" in example.before
    assert "春电话【手机号】秋" in example.text and len(example.text) <= 201
    assert "我是<NAME>" in place_example("好" * 300 + "我是<NAME>", "<NAME>", "f", 1).text


def chunk(characters: list[int], turns: list[int], kind: str = "text") -> EncodedChunk:
    sides = 2 if kind == "preference" else 1
    scripts = np.zeros((1, len(SCRIPTS)), np.int64)
    scripts[0, [SCRIPTS.index("han"), SCRIPTS.index("latin"), SCRIPTS.index("space")]] = 6, 2, 5
    return EncodedChunk(
        0,
        text_characters=np.array(characters),
        turns=np.array(turns),
        lengths=np.repeat(np.array(characters), sides),
        scripts=scripts,
        script_samples=np.array([1]),
    )


def test_histograms_count_what_is_kept_and_add_up() -> None:
    one, two = Histograms(), Histograms()
    one.add(chunk([1, 7, 8, 1024], [0, 1, 12, 10]), np.array([True, True, True, False]))
    two.add(chunk([3, 8], [1, 1], "preference"), np.array([True, False]))
    assert one.characters == {0: 1, 2: 1, 3: 1}
    assert one.turns == {0: 1, 1: 1, MAX_TURNS: 1}
    assert one.chinese == {7: 1} and one.scripts == {"han": 6, "latin": 2, "space": 5}
    assert two.tokens == {1: 2} and not two.scripts
    total = add_histograms([one, Histograms.of(json.loads(json.dumps(two.state())))])
    assert total.characters == {0: 1, 1: 1, 2: 1, 3: 1}
