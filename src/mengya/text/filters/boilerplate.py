"""Lines that a site puts around every text: navigation, copyright, registration, calls to share.

Removed line by line; a text in which they dominate is left as it is, and dropped.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mengya.text.filters.config import BoilerplateFilter

MAX_LINE = 80  # characters; a longer line is a paragraph that speaks of these things

# Words that a line of navigation consists of.
_MENU = (
    "首页|主页|网站首页|返回首页|返回顶部|回到顶部|返回列表|返回目录|返回上一页|返回|上一篇|下一篇|上一页|下一页|上一章|下一章|末页|尾页"
    "|加入收藏|设为首页|收藏本站|网站地图|联系我们|关于我们|帮助中心|友情链接|广告服务|广告合作|招聘信息|法律声明|隐私政策|用户协议"
    "|登录|注册|登陆|退出|搜索|更多|查看更多|更多内容|阅读全文|展开全文|收起全文|展开|收起|点击加载更多|加载更多|打印|打印本页|关闭|关闭窗口"
    "|分享|分享到|收藏|点赞|举报|评论|我要评论|发表评论|全部评论|最新评论|网友评论|回复|转发|微博|微信|微信好友|朋友圈|新浪微博|腾讯微博|QQ空间"
    "|推荐阅读|相关阅读|相关推荐|相关文章|相关新闻|热门推荐|热门文章|猜你喜欢|精彩推荐|为您推荐|热点新闻|最新文章|大家都在看|标签|字号|大|中|小"
)
_MENU_LINE = re.compile(
    rf"[\W\d_]*(?:(?:{_MENU})(?:[\W\d_]+|$)){{1,40}}$"
    r"|(?:上|下)一(?:篇|页|章|条)\s*[:：].*"
    r"|(?:当前位置|您的位置|您现在的位置|你的位置|当前所在位置|所在位置)\s*[:：].*"
    r"|(?:责任编辑|责编|编辑|浏览次数|浏览量|点击数|点击次数|阅读次数|阅读量|阅读数|字体大小)\s*[:：]\s*\S{0,12}$"
)
# Every alternative below begins with a letter, which the engine skips to.
_PHRASE = re.compile(
    r"版权所有|版权归.{0,12}所有|著作权归.{0,12}所有|ll [Rr]ights [Rr]eserved|LL RIGHTS RESERVED"
    r"|Copyright\s*(?:©|\(c\)|&copy;|\d{4})|©\s*\d{4}|转载请(?:注明|联系|标明|保留)|如需转载"
    r"|谢绝转载|禁止转载|严禁转载|不得转载|请勿转载|侵权必究|如有侵权|侵权.{0,6}删除"
    r"|ICP备|ICP证|公网安备|备案号"
    r"|网络文化经营许可证|增值电信业务|视听节目许可证|不良信息举报|违法和不良信息"
    r"|扫描?(?:一扫|描)?.{0,6}(?:二维码|[关加]注)|扫码|长按.{0,8}(?:二维码|识别|图片)|识别.{0,4}二维码"
    r"|关注.{0,16}(?:公众号|微信号|订阅号|视频号|微博)|点击.{0,6}(?:关注|蓝字|在看|原文链接|阅读原文)|微信公众号\s*[:：]"
    r"|点个?(?:赞|在看).{0,12}(?:关注|收藏|转发|在看|分享)|分享(?:到|给).{0,6}(?:朋友圈|微信|微博)|一键三连"
    r"|下载.{0,8}(?:APP|App|app|客户端)"
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
        lines = text.split("\n")
        return "\n".join(line for number, line in enumerate(lines) if number not in found)

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        found = boilerplate_lines(text)
        if not found:
            return None
        lines = text.split("\n")
        size = sum(len(lines[number]) for number in found)
        return "boilerplate" if size > self._config.max_share * sum(map(len, lines)) else None


@lru_cache(maxsize=2)
def boilerplate_lines(text: str) -> frozenset[int]:
    """The numbers of the lines, from 0, that a site puts around its texts; those of the last text are kept."""
    phrases = _PHRASE.search(text) is not None
    return frozenset(
        number
        for number, line in enumerate(text.split("\n"))
        if 1 < len(line) <= MAX_LINE and _is_boilerplate(line.strip(), phrases)
    )


def _is_boilerplate(line: str, phrases: bool) -> bool:
    return bool(_MENU_LINE.match(line) or (phrases and _PHRASE.search(line)))
