"""Lines that a site puts around every text: navigation, copyright, registration, calls to share.

Removed line by line outside of code; a text in which they dominate is left as it is, and dropped.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mengya.text.filters.config import BoilerplateFilter
from mengya.text.filters.markdown import marked_lines

_SENTENCE_END = ("。", "！", "？", "；", "，", "”", "：", "…")
MAX_LINE = 80  # characters; a longer line is a paragraph that speaks of these things

# One of these makes a line one of navigation.
_BUTTON = (
    "返回首页|返回顶部|回到顶部|返回列表|返回上一页|加入收藏|设为首页|收藏本站|网站地图|查看更多|更多内容|阅读全文|展开全文|收起全文"
    "|点击加载更多|加载更多|打印本页|关闭窗口|我要评论|发表评论|查看评论|上一篇|下一篇|上一章|下一章|分享到朋友圈|下一页|上一页"
)
# Two or more of these do.
_MENU = (
    f"{_BUTTON}|首页|主页|网站首页|返回目录|返回|末页|尾页|联系我们|关于我们|帮助中心|友情链接|广告服务|广告合作|招聘信息|法律声明|隐私政策"
    "|用户协议|登录|登陆|注册|退出|搜索|更多|展开|收起|打印|关闭|分享到|分享|收藏|点赞|举报|评论|全部评论|最新评论|网友评论|回复|转发"
    "|新浪微博|腾讯微博|微博|微信好友|微信|朋友圈|QQ空间|推荐阅读|相关阅读|相关推荐|相关文章|相关新闻|热门推荐|热门文章|猜你喜欢"
    "|精彩推荐|为您推荐|热点新闻|最新文章|大家都在看|标签|字号|新闻|财经|体育|娱乐|科技|教育|汽车|房产|视频|图片|论坛|博客"
)
_GAPS = " \t\u3000\xa0|｜/>»›·•,，、:：;；[]【】()（）<-—"
_GAP = f"[{re.escape(_GAPS)}]"
# What such a line begins with, gaps left out.
_FIRST = frozenset(word[0] for word in _MENU.split("|")) | frozenset(
    "上下当您你责浏点阅字C©c立马欢"
)
_MENU_LINE = re.compile(
    rf"{_GAP}*(?:(?:{_BUTTON}){_GAP}*|(?:{_MENU})(?:{_GAP}+(?:{_MENU})){{1,40}}{_GAP}*)$"
    r"|(?:网站)?首页\s*[>»›].*|(?:上|下)一(?:篇|章|条)\s*[:：].*"
    r"|(?:当前位置|您的位置|您现在的位置|你的位置|当前所在位置)\s*[:：].*"
    r"|(?:责任编辑|责编|浏览次数|浏览量|点击次数|阅读次数|阅读量|字体大小)\s*[:：]\s*\S{0,12}$"
    r"|(?:Copyright\s*(?:©|\([cC]\)|\d{4})|©\s*\d{4}|\([cC]\)\s*\d{4}).*"
    r"|(?:点击|立即|马上|欢迎)?下载\S{0,8}(?:APP|App|app|客户端)\W*$"
)
# Every alternative begins with a letter, which the engine skips to.
_PHRASE = re.compile(
    r"版权所有|版权归.{1,16}所有|ll [Rr]ights [Rr]eserved|LL RIGHTS RESERVED|转载请(?:注明|联系|标明|保留)"
    r"|如需转载|未经.{0,16}(?:不得|禁止|严禁|请勿)(?:转载|复制|镜像)|谢绝.{0,6}转载|严禁转载|请勿转载|侵权必究|如有侵权|侵权.{0,6}删除"
    r"|ICP[备证]\s*案?号?\s*[:：]?\s*\w*\d|公网安备\s*\d|备案号\s*[:：]\s*\S*\d"
    r"|许可证(?:编?号)?\s*[:：]?\s*[\w\[〔]{1,6}[-〔\[（(]?\d{4}"
    r"|不良信息举报(?:电话|热线|邮箱|中心)"
    r"|扫码(?:关注|下载|加群|进群|添加|加我|领取|咨询|报名|订阅|了解|查看)|扫一扫.{0,12}(?:关注|下载|二维码|加群|添加)"
    r"|扫描.{0,8}二维码.{0,14}(?:关注|下载|订阅|添加|加群|进群|领取|报名|咨询|了解|获取)|长按.{0,8}(?:二维码|识别)|识别.{0,4}二维码.{0,8}关注"
    r"|关注[^的，。]{0,16}(?:公众号|微信号|订阅号|视频号)|点击.{0,6}(?:蓝字|在看|阅读原文)|点击\W{0,4}关注|微信公众号\s*[:：]"
    r"|欢迎.{0,8}点个?赞|记得.{0,8}点个?赞|别忘.{0,8}点个?赞|随手.{0,4}点个?赞|求点赞|一键三连|分享(?:到|给).{0,6}(?:朋友圈|微信好友)"
)


class BoilerplateLines:
    """Finds lines of boilerplate: removes them as an edit, and drops a text full of them (boilerplate)."""

    def __init__(self, config: BoilerplateFilter) -> None:
        self._config = config

    def edit(self, text: str) -> str:
        """The text without such lines, unless they dominate."""
        found = boilerplate_lines(text)
        if not found or self(text):
            return text
        lines = enumerate(text.split("\n"))
        return "\n".join(line for number, line in lines if number not in found)

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        found = boilerplate_lines(text)
        if not found:
            return None
        lines = text.split("\n")
        if len(found) < self._config.min_lines:
            return None
        size = sum(len(lines[number]) for number in found)
        return "boilerplate" if size > self._config.max_share * sum(map(len, lines)) else None


@lru_cache(maxsize=2)
def boilerplate_lines(text: str) -> frozenset[int]:
    """The numbers of the lines, from 0, that a site puts around its texts; code has none.

    Those of the last text are kept, because an edit and a filter ask for them in turn.
    """
    phrases = _PHRASE.search(text) is not None
    found = [
        number
        for number, line in enumerate(text.split("\n"))
        if 1 < len(line) <= MAX_LINE
        and (phrases or line.lstrip(_GAPS)[:1] in _FIRST)
        and _is_boilerplate(line.strip(), phrases)
    ]
    if found and ("```" in text or "~~~" in text):
        fenced = [inside for _, inside in marked_lines(text)]
        found = [number for number in found if not fenced[number]]
    return frozenset(found)


def _is_boilerplate(line: str, phrases: bool) -> bool:
    menu = not line.endswith(_SENTENCE_END) and _MENU_LINE.match(line)
    return bool(menu or (phrases and _PHRASE.search(line)))
