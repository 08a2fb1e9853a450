"""Personal data is found with its check digits; numbers that look alike are not. All numbers are made up."""

from __future__ import annotations

import pytest

from mengya.text.filters.config import PiiFilter
from mengya.text.filters.pii import Pii, passes_luhn
from tests.text.filters.texts import GOOD


def identity_number(first_17: str) -> str:
    """With its check digit: ISO 7064 MOD 11-2 by its definition, not by the table of weights."""
    for last in "0123456789X":
        value = 0
        for character in first_17 + last:
            value = (value * 2 + (10 if character == "X" else int(character))) % 11
        if value == 1:
            return first_17 + last
    raise AssertionError


def card_number(start: str, length: int) -> str:
    """Digits that begin so and pass the check of Luhn."""
    body = (start + "20481632640975318642")[: length - 1]
    return next(body + last for last in "0123456789" if passes_luhn(body + last))


def in_groups(digits: str, separator: str) -> str:
    return separator.join(digits[i : i + 4] for i in range(0, len(digits), 4))


ID = identity_number("11010519491231002")
ID_X = next(n for s in range(100) if (n := identity_number(f"440524188001010{s:02}"))[-1] == "X")
UNIONPAY, VISA = card_number("622848", 19), card_number("4", 16)


def test_the_examples_are_right() -> None:
    assert ID == "11010519491231002X" or ID[-1].isdigit()
    assert passes_luhn("79927398713") and not passes_luhn("79927398710")


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("请打13912345678找我", "请打【手机号】找我"),
        ("手机：139-1234-5678。", "手机：【手机号】。"),
        ("tel:139 1234 5678", "tel:【手机号】"),
        ("+86 13912345678，008613912345678", "【手机号】，【手机号】"),
        (f"身份证号码{ID}，", "身份证号码【身份证号】，"),
        (f"证件（{ID_X.lower()}）", "证件（【身份证号】）"),
        (f"汇至{UNIONPAY}。", "汇至【银行卡号】。"),
        (f"卡号：{in_groups(UNIONPAY, ' ')}", "卡号：【银行卡号】"),
        (f"信用卡 {VISA} 有效", "信用卡 【银行卡号】 有效"),
        (in_groups(VISA, "-"), "【银行卡号】"),
        ("写信给zhang.san+work@mail.sina.com.cn。", "写信给【邮箱】。"),
        ("a1@qq.com,b2@163.com", "【邮箱】,【邮箱】"),
        ("登录来自 202.96.134.133 的主机", "登录来自 【IP地址】 的主机"),
        ("http://202.96.134.133:8080/x", "http://【IP地址】:8080/x"),
    ],
)  # fmt: skip
def test_what_is_replaced(text: str, replaced: str) -> None:
    assert Pii(PiiFilter()).edit(text) == replaced
    assert Pii(PiiFilter(action="drop"))(text) == "pii"
    assert Pii(PiiFilter())(replaced) is None


@pytest.mark.parametrize(
    "text",
    [
        *GOOD.values(),
        "圆周率的一段：3.13912345678901，13912345678.5",
        "订单 20213912345678，编号 A13912345678，流水13912345678901",
        "产值 13912345678 元，约合13912345678万，共13912345678人次",
        "打 10086 或 400-820-8820，座机 010-62345678，短号 12345",
        "隐去的 139****5678 与 139XXXX5678",
        "1994年到2013年，2008-2018，13900000-13999999",
        "ISBN 978-7-302-51234-5，条码 6901234567892",
        f"校验位错误的 {ID[:-1]}{'0' if ID[-1] != '0' else '1'}",
        "440524199913010014 的月份不对，990524188001010014 没有这样的省",
        f"十九位的 {ID[:17]}99 与 0x{ID[:17]}",
        f"校验不过的 {UNIONPAY[:-1]}{(int(UNIONPAY[-1]) + 1) % 10}",
        f"时间戳 {VISA}，与银子无关",
        f"更长的数 {UNIONPAY}123，小数 0.{VISA}",
        "git@github.com:user/repo.git 与 user@example.com、name@localhost",
        "图标 icon@2x.png、装饰器\n@tf.function 与 @app.route('/')",
        "this@Outer.field，npm i vue@3.2.1",
        "10.0.0.1、192.168.1.254、172.16.31.4、127.0.0.1、224.0.0.251、255.255.255.0、0.0.0.0",
        "公共 DNS 有 8.8.8.8、114.114.114.114 与 223.5.5.5",
        "版本 91.0.4472.124，v2.30.1.104，Version 10.15.7.33，第 2.4.7.11 节",
        "202.96.134.0/24，1.202.96.134.133，999.1.1.1，202.96.134.256",
    ],
)
def test_what_only_looks_so(text: str) -> None:
    assert Pii(PiiFilter()).edit(text) == text
    assert Pii(PiiFilter(action="drop"))(text) is None


def test_kinds_and_placeholders_can_be_chosen() -> None:
    text = "电话13912345678，邮箱a1@qq.com"
    assert Pii(PiiFilter(kinds=["email"])).edit(text) == "电话13912345678，邮箱【邮箱】"
    own = PiiFilter(placeholders={"phone": "某手机号"})
    assert Pii(own).edit(text) == "电话某手机号，邮箱【邮箱】"
