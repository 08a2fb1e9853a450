"""The knowledge probe: facts with frames, facts as sentences, two wordings of each."""

from mengya.evaluation.knowledge.probe import knowledge_items
from mengya.evaluation.pairs.choice import Choice


def test_a_fact_with_frames_is_asked_with_the_answers_of_its_block() -> None:
    items = {item.good: item for item in knowledge_items()}
    others = ("东京", "曼谷", "开罗")
    assert items["法国的首都是巴黎。"].bad == tuple(f"法国的首都是{city}。" for city in others)
    assert items["法国把首都设在巴黎。"].bad == tuple(f"法国把首都设在{city}。" for city in others)


def test_a_fact_without_frames_is_asked_in_its_own_sentences() -> None:
    items = {item.good: item for item in knowledge_items()}
    assert items["审理案件、作出判决的机关是法院。"].bad[0] == "审理案件、作出判决的机关是检察院。"
    assert "法官在税务局工作。" in items["法官在法院工作。"].bad


def answer(item: Choice) -> str:
    """What the right sentence has and none of the wrong ones, without what all of them share."""
    sentences = (item.good, *item.bad)
    start = next(i for i in range(99) if len({s[: i + 1] for s in sentences}) > 1)
    end = next(i for i in range(99) if len({s[len(s) - i - 1 :] for s in sentences}) > 1)
    return item.good[start : len(item.good) - end]


def test_every_fact_is_asked_in_two_wordings() -> None:
    """Blocks of four facts are asked in the first wording, then in the second, with the same four answers."""
    items = knowledge_items()
    assert len(items) // 2 >= 400
    for start in range(0, len(items), 8):
        block = items[start : start + 8]
        assert len({item.part for item in block}) == 1
        for first, second in zip(block[:4], block[4:], strict=True):
            assert first.good != second.good
            assert answer(first) == answer(second)
