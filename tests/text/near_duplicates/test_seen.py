"""Texts one by one."""

from __future__ import annotations

from mengya.text.near_duplicates.config import NearDuplicateConfig
from mengya.text.near_duplicates.seen import SeenTexts


def test_a_near_copy_is_seen_and_another_question_is_not() -> None:
    seen = SeenTexts(NearDuplicateConfig(threshold=0.7, ngram=3))
    assert not seen("请用三句话介绍一下江南春天的风景，语气要轻松一些。")
    assert not seen("怎样才能把一件白衬衫上的墨水印洗干净？")
    assert seen("请用三句话介绍一下江南春天的风景，语气要轻松一点。")
    assert seen("请用三句话介绍一下江南春天的风景，语气要轻松一些。")
    assert not seen("请写一份去海边旅行的行李清单。")


def test_it_grows() -> None:
    seen = SeenTexts(NearDuplicateConfig(permutations=64))
    texts = [
        f"{'甲乙丙丁戊己庚辛'[i % 8]}{i * 7919}号的箱子里有{i * 104729}本书" for i in range(1100)
    ]
    assert sum(map(seen, texts)) < 20
    assert all(map(seen, texts[-50:]))
