"""Advertisements, by how many phrases of promotion a text has and how dense they are."""

from __future__ import annotations

import re

from mengya.text.filters.config import AdvertisementFilter

_PHRASE = re.compile(
    # how to get in touch
    r"加(?:我|客服|老师)?(?:微信|QQ|薇信|威信|V信|扣扣)|微信号|微信同号|QQ群"
    r"|咨询(?:热线|电话|微信|QQ)"
    r"|订购(?:热线|电话)|招商(?:热线|电话)|全国(?:统一)?热线|服务热线|客服(?:热线|电话|微信|QQ)"
    r"|24小时热线|400[- ]\d{3}[- ]?\d{4}|扫码|扫描二维码|扫一扫|长按识别"
    r"|点击(?:下载|购买|领取|咨询|报名|链接|关注|进入|下方|上方|阅读原文)"
    r"|公众号|私信我|免费咨询|立即(?:咨询|购买|抢购|下载|注册|报名|领取|加入)|欢迎(?:来电|选购|订购|咨询|致电|新老客户|加盟|前来)"
    # offers
    r"|抢购|秒杀|包邮|优惠券|优惠价|特价|立减|满\d+减\d+|满\d+送\d+|领(?:取)?红包|现金红包|限时(?:特价|优惠|折扣|免费)"
    r"|免费(?:领取|试用|试听|注册|下载|送|获取)|正品保证|正品行货|假一赔|货到付款|厂家直销|批发价|全网最低|最低价|跳楼价|清仓|促销|大放送|低至\d"
    r"|仅需\d+元|只要\d+元|原价\d+|折起|买一送一|售后无忧|全国包邮|旗舰店|代理加盟|招商加盟|诚招|加盟费|加盟商"
    # money, gambling and trade in what is forbidden
    r"|日赚|躺赚|稳赚|月入过?万|高薪兼职|兼职日结|无需押金|秒到账|低息贷款|无抵押|信用卡套现|办理信用卡|博彩|时时彩|六合彩|百家乐|老虎机"
    r"|真人娱乐|真人荷官|娱乐城|澳门威尼斯人|澳门葡京|澳门新葡京|彩金|注册送|开户送|首存|返水|代开发票|开发票|办证|私服|外挂|迷药|催情"
)


class Advertisement:
    """advertisement."""

    def __init__(self, config: AdvertisementFilter) -> None:
        self._config = config

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        found = _PHRASE.findall(text)
        if len(found) < self._config.min_phrases:
            return None
        different = len(set(found)) >= self._config.min_phrases
        dense = sum(map(len, found)) >= self._config.min_share * len(text)
        return "advertisement" if different and dense else None
