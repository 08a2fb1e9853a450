"""Wrong decodings are made by decoding wrongly; text that speaks about them is kept."""

from __future__ import annotations

import pytest

from mengya.text.filters.config import EncodingFilter
from mengya.text.filters.encodings import BrokenEncoding

TEXT = "今天的天气很好，我们在公园里散步。他说：“明年再来。”孩子们笑了，老人也笑了。"


@pytest.mark.parametrize(
    "broken",
    [
        TEXT.encode().decode("latin-1"),
        TEXT.encode().decode("cp1252", "ignore"),
        TEXT.encode().decode("gbk", "replace"),
        TEXT.encode().decode("gbk", "ignore"),
        TEXT.encode("gbk").decode("latin-1"),
        TEXT.encode("gbk").decode("utf-8", "replace"),
        TEXT.encode("gbk").decode("utf-8", "replace").encode().decode("gbk", "replace"),
        "锟斤拷锟斤拷" + TEXT,
        "烫烫烫烫烫烫" + TEXT,
        TEXT + "屯屯屯屯屯",
        TEXT.replace("天", "\ufffd"),
    ],
)
def test_text_that_was_decoded_wrongly_is_dropped(broken: str) -> None:
    assert BrokenEncoding(EncodingFilter())(broken) == "broken_encoding"


@pytest.mark.parametrize(
    "honest",
    [
        TEXT,
        "",
        "plain ASCII",
        "程序员常说的“锟斤拷”，是把无效的 UTF-8 字节替换为 U+FFFD 之后，又按 GBK 读出来的结果。"
        + TEXT * 10,
        "这锅汤烫，烫得很！屯田屯了三年，草木葱茏。",
        "卡号为××××××××××，密码为······，以上内容已隐去。",
        "法语的 é、è、à、ç 与德语的 ä、ö、ü 都不是乱码：Æsop、naïve、café、Ångström、Übermensch。",
        "序列化之后的字节如下：\n```\n\ufffd\ufffd\ufffd\ufffd\n```\n它们不是文本。",
        "沙家浜与横浜，涓涓细流，都是常用的字。",
    ],
)  # fmt: skip
def test_honest_text_is_kept(honest: str) -> None:
    assert BrokenEncoding(EncodingFilter())(honest) is None


def test_the_share_can_be_set() -> None:
    assert BrokenEncoding(EncodingFilter(max_share=0))(TEXT * 10 + "\ufffd") == "broken_encoding"
    assert BrokenEncoding(EncodingFilter(max_share=1))("锟斤拷") is None
