"""Tags, scripts and entities leave prose; code, types and comparisons stay to the letter."""

from __future__ import annotations

import pytest

from mengya.text.filters.config import HtmlFilter
from mengya.text.filters.html import HtmlRemains, remove_html
from tests.text.filters.texts import GOOD


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<p>第一段。</p><p>第二段。</p>", "第一段。\n第二段。\n"),
        ("<div class=\"a\" id='b'>\n  <p>正文。</p>\n</div>\n后文", "正文。\n后文"),
        ("前文<br/>后文<BR>末尾", "前文\n后文\n末尾"),
        ("这是<b>粗体</b>和<a href='x?a=1&b=2'>链接</a>。", "这是粗体和链接。"),
        ('上<script type="text/javascript">var a = "<p>";\nrun(a);</script>下', "上下"),
        ("上<style>p { color: red; }</style>下", "上下"),
        ("上<!-- 注释\n两行 -->下", "上下"),
        ("标题\n\n<!-- 目录 -->\n\n正文", "标题\n\n正文"),
        ("<!DOCTYPE html><html><head><title>题</title></head><body>文</body></html>", "题\n文\n"),
        ("A&amp;B &lt;C&gt; &#20013;&#x6587;&nbsp;&ldquo;引&rdquo;", "A&B <C> 中文 “引”"),
        ("&amp;nbsp;空格", " 空格"),
        ("面积为 10<sup>9</sup> 平方米，水是 H<sub>2</sub>O", "面积为 10⁹ 平方米，水是 H₂O"),
        ("<ruby>端口<rp>(</rp><rt>port</rt><rp>)</rp></ruby>是", "端口（port）是"),
        ("| 甲 | 乙<br>丙 |\n", "| 甲 | 乙 丙 |\n"),
        ("<table><tr><td>甲</td><td>乙</td></tr></table>", "甲 乙\n"),
        ("图：<img src=\"a.png\" alt='a>b'>。", "图：。"),
    ],
)
def test_what_is_removed(text: str, plain: str) -> None:
    assert remove_html(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "没有标记的正文。",
        "如果 a < b 且 b > c，则 a<b 成立；x<y>z 不是标签。",
        "写 List<String>、vector<a> 或 Map<K, V> 都可以，<name> 是占位符。",
        "用 <div> 标签包住它，<p> 元素会另起一段。",
        "```html\n<p>正文</p> &amp;\n```",
        "~~~\n<b>&lt;</b>\n~~~\n",
        "行内代码 `<br>` 与 ``a ` <b>`` 不变",
        "示例如下：\n\n    <p>缩进的代码</p>\n    &nbsp;\n\n结束",
        "AT&T 与 R&D，以及 a&b;c",
        "未闭合的代码块：\n```html\n<p>到文末为止</p>",
    ],
)
def test_what_stays(text: str) -> None:
    assert remove_html(text) == text


def test_prose_around_code_is_cleaned_and_the_fences_stay_on_their_lines() -> None:
    text = "<div>\n\n说明：\n\n```html\n<p>一</p>\n```\n</div>\n<p>后文</p>\n```sh\nls\n```\n</div>"
    assert remove_html(text) == "说明：\n\n```html\n<p>一</p>\n```\n后文\n```sh\nls\n```\n"


@pytest.mark.parametrize(
    "text",
    [
        "<div class='item'><span>甲</span></div>" * 20,
        "&nbsp;&nbsp;甲&nbsp;&nbsp;乙" * 20,
        "页面\nfunction show(id) { document.getElementById(id).style.display='none'; }\nvar a = {};\n",
        ".nav { margin: 0; padding: 0; }\n#main { color: #fff; }\n首页",
        '文章列表<div class="list" data-id="12345" style="margin:0;padding:0',
    ],
)
def test_text_full_of_remains_is_dropped(text: str) -> None:
    assert HtmlRemains(HtmlFilter())(text) == "html_remains"


@pytest.mark.parametrize(
    "text",
    [
        *GOOD.values(),
        "这种写法见于维基：-{zh-cn:博尔特;zh-tw:波特}-是短跑运动员，" + "他保持着世界纪录。" * 3,
        "下面的网页只有一行：\n```html\n<div><p>"
        + "<b>字</b>" * 50
        + "</p></div>\n```\n打开看看。",
        "函数 function 与变量 var 都是关键字，{ 与 } 要成对。",
    ],
)
def test_honest_text_is_kept(text: str) -> None:
    assert HtmlRemains(HtmlFilter())(text) is None
