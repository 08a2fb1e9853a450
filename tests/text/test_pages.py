"""Pages as they are printed -> running text."""

from __future__ import annotations

from mengya.text.pages import join_pages


def test_a_sentence_goes_on_over_the_page() -> None:
    assert (
        join_pages(["春天来了，小镇上的花都开了，河边\n", "的柳树也绿了。"])
        == "春天来了，小镇上的花都开了，河边的柳树也绿了。"
    )


def test_a_short_line_and_a_sentence_end_close_a_paragraph() -> None:
    page = "第一章 春天\n春天来了，小镇上的花都开了，很美。\n河边的柳树也绿了，老王去散步了吗\n？"
    assert join_pages([page]).split("\n") == [
        "第一章 春天",
        "春天来了，小镇上的花都开了，很美。",
        "河边的柳树也绿了，老王去散步了吗？",
    ]


def test_lists_and_headings_begin_paragraphs() -> None:
    page = "做一碗面条需要的东西有\n1. 面粉和水按照比例放好了\n（二）盐和油也是一样的要放\n第三条 水烧开"
    assert len(join_pages([page]).split("\n")) == 4


def test_english_words_keep_their_space_and_lose_their_hyphen() -> None:
    page = "the small town by the river was quiet and the win-\ndows were open when the old man came home"
    assert "windows" in join_pages([page])
    page = (
        "the small town by the river was quiet and old\ntrees stood there when the old man came by"
    )
    assert "old trees" in join_pages([page])


def test_heads_with_changing_numbers_go_and_lines_of_text_stay() -> None:
    pages = [
        f"小镇志 第{at}页\n第{at}天，老王写了一段日记，说了说镇上发生的事情。\n{at}"
        for at in range(1, 7)
    ]
    joined = join_pages(pages)
    assert "小镇志" not in joined
    assert joined.count("老王") == 6
    assert joined.split("\n")[-1].endswith("事情。")


def test_two_pages_have_no_running_heads() -> None:
    assert "小镇志" in join_pages(["小镇志\n春天来了，花开了。", "小镇志\n夏天来了，天热了。"])


def test_nothing() -> None:
    assert join_pages([]) == join_pages(["", "\n \n"]) == ""
