import pytest

from mengya.evaluation.pairs.notation import exchanged, fill, framed, readings
from mengya.evaluation.pairs.rules import contrast, measure_words, one_of_all, reorder


def test_readings_are_different_and_depend_on_the_template_alone() -> None:
    template = "(他|她|我)(昨天|今天)来了。"
    four = readings(template, 4)
    assert len(set(four)) == 4 and readings(template, 4) == four
    assert set(readings(template, 99)) == {
        f"{who}{day}来了。" for who in "他她我" for day in ("昨天", "今天")
    }
    assert readings("没有选择。", 3) == ["没有选择。"]


def test_a_slot_is_filled_once() -> None:
    assert fill("一_马", "匹") == "一匹马"
    for wrong in ("一匹马", "一_马_"):
        with pytest.raises(ValueError, match="exactly one"):
            fill(wrong, "匹")


def test_segments_are_exchanged() -> None:
    assert exchanged("我<昨天><去了>北京。") == ("我昨天去了北京。", "我去了昨天北京。")
    assert exchanged("<猫>抓<鼠>。") == ("猫抓鼠。", "鼠抓猫。")
    with pytest.raises(ValueError, match="two <segments>"):
        exchanged("我<昨天>去了。")


def test_phrases_of_a_block_stand_in_the_same_frames() -> None:
    block = framed({"匹": "_马", "辆": "_车"}, 2, ["一{}。", "那{}。", "两{}。"], turn=2)
    assert block == {"匹": ["两_马。", "一_马。"], "辆": ["两_车。", "一_车。"]}


def test_contrast_mirrors_every_pair_of_words() -> None:
    block = {"的": ["a_", "b_"], "地": ["c_", "d_"], "得": ["e_", "f_"]}
    made = list(contrast({"blocks": [block]}))
    assert made == [
        ("a的", ("a地",)), ("c地", ("c的",)),
        ("b的", ("b得",)), ("e得", ("e的",)),
        ("d地", ("d得",)), ("f得", ("f地",)),
    ]  # fmt: skip


def test_one_of_all_asks_every_word_among_all() -> None:
    made = list(one_of_all({"blocks": [{"x": "1_", "y": "2_", "z": "3_"}]}))
    assert made == [("1x", ("1y", "1z")), ("2y", ("2x", "2z")), ("3z", ("3x", "3y"))]


def test_reorder_reads_alternatives_first() -> None:
    made = list(reorder({"sentences": ["(我|他)<先><吃>。"], "readings": "2"}))
    assert sorted(made) == [("他先吃。", ("他吃先。",)), ("我先吃。", ("我吃先。",))]


def test_nouns_that_share_a_measure_word_are_not_put_together() -> None:
    nouns = {"只 条": "狗", "条": "鱼 蛇", "本": "书 词典"}
    made = list(measure_words({"nouns": nouns, "readings": "5", "frames": ["一{}。"]}))
    assert made
    for good, (bad,) in made:
        for wrong in ("条狗", "只狗", "条鱼", "条蛇", "本书", "本词典"):
            assert wrong not in bad, (good, bad)
