"""Lines of sites are removed, pages of little else dropped; sentences that mention such things stay."""

from __future__ import annotations

import pytest

from mengya.text.filters.boilerplate import BoilerplateLines, boilerplate_lines
from mengya.text.filters.config import BoilerplateFilter
from tests.text.filters.texts import GOOD

ARTICLE = GOOD["news"]


@pytest.mark.parametrize(
    "line",
    [
        "首页 > 新闻 > 国内",
        "首页 | 关于我们 | 联系我们 | 网站地图",
        "上一篇：春天的故事",
        "下一章",
        "返回顶部",
        "当前位置：首页 > 文学 > 散文",
        "【打印本页】【关闭窗口】",
        "责任编辑：王小明",
        "版权所有 某某网络科技有限公司",
        "Copyright © 2012-2020 example.com All Rights Reserved.",
        "© 2021 某某网",
        "京ICP备12345678号-1",
        "京公网安备 11010802012345号",
        "增值电信业务经营许可证：京B2-20201234",
        "本文为原创，未经许可，禁止转载",
        "转载请注明出处",
        "微信扫一扫，关注我们的公众号",
        "长按识别二维码",
        "关注微信公众号“某某读书”",
        "扫码下载客户端",
        "点击下载某某APP",
        "如果喜欢，欢迎点赞",
        "分享到微信朋友圈",
    ],
)
def test_a_line_of_a_site_is_removed(line: str) -> None:
    edit = BoilerplateLines(BoilerplateFilter()).edit
    assert edit(f"{ARTICLE}\n{line}\n{ARTICLE}\n{line}") == f"{ARTICLE}\n{ARTICLE}"


@pytest.mark.parametrize(
    "line",
    [
        "# 更多",
        "## 推荐阅读",
        "搜索",
        "- 登录",
        "| 20 | 关闭 | 27653 |",
        "第四条　外商投资电信企业可以经营增值电信业务。",
        "经营单位应当悬挂《网络文化经营许可证》。",
        "他在入口扫码付款，走进了地铁站。",
        "全国受理网络违法和不良信息举报一千余件。",
        "大学生应该关注的公众号有哪些？",
        "用手机扫描二维码后，程序会输出其中的文字。",
        "报刊转载、摘编时应当按照规定支付报酬。",
        "点击你关注的信息，即可将其复制到剪贴板：",
        "如果需要打印，请点击右上角的打印图标。",
        "要把文件下载到客户端，需要下面的代码：",
        "我们上一页讲过，下一页还要讲。",
    ],
)
def test_a_line_of_the_text_stays(line: str) -> None:
    assert not boilerplate_lines(f"{ARTICLE}\n{line}")


def test_code_stays() -> None:
    code = "```js\n// Copyright (c) 2020\n版权所有\n```"
    edit = BoilerplateLines(BoilerplateFilter()).edit
    assert edit(f"{code}\n版权所有\n{ARTICLE}") == f"{code}\n{ARTICLE}"


def test_a_page_of_little_else_is_left_and_dropped() -> None:
    page = "首页 | 新闻 | 体育\n当前位置：首页 > 新闻\n要闻\n上一篇：无\n版权所有 某某网\n京ICP备12345678号"
    filters = BoilerplateLines(BoilerplateFilter())
    assert filters.edit(page) == page
    assert filters(page) == "boilerplate"
    assert filters(f"版权所有\n{ARTICLE}\n返回顶部") is None


def test_one_line_is_no_page() -> None:
    title = "关注公众号有奖：一场消费者的误会"
    assert BoilerplateLines(BoilerplateFilter())(title) is None
    assert BoilerplateLines(BoilerplateFilter(min_lines=1))(title) == "boilerplate"


@pytest.mark.parametrize("kind", GOOD)
def test_good_texts_have_none(kind: str) -> None:
    filters = BoilerplateLines(BoilerplateFilter())
    assert filters(GOOD[kind]) is None
    assert filters.edit(GOOD[kind]) == GOOD[kind]
