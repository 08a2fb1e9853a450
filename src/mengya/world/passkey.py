"""A key hidden in idle talk: does a model find it again, far behind?

The test of Mohtashami & Jaggi 2023 (arXiv:2305.16300, section 4.2), in Chinese: many sentences of no
importance, among them one that names a key, and at the end the question for it. Takes random numbers;
gives text. Knows no tokens.
"""

from __future__ import annotations

import hashlib
import random

QUESTION = "问：密钥是多少？答：密钥是"
"""What the text ends with; the key follows."""

_WHEN = ["清早", "午后", "傍晚", "下雨的时候", "天晴以后", "放学路上", "赶集那天", "夜里", "雪停之后", "茶余饭后"]  # fmt: skip
_WHO = ["老人", "邻家的孩子", "卖菜的婶婶", "修车的师傅", "新来的老师", "船夫", "木匠", "裁缝", "守门的大爷", "两个学徒"]  # fmt: skip
_WHERE = ["桥头", "井边", "巷口", "河岸上", "院子里", "茶馆门前", "田埂上", "渡口", "老槐树下", "磨坊旁边"]  # fmt: skip
_WHAT = ["看云", "晒太阳", "数着落叶", "补一张网", "听人讲古", "等一封信", "喂几只鸭子", "磨一把刀", "哼着小调", "收拾柴火"]  # fmt: skip
_THEN = ["没有什么要紧的事", "日子就这样过去了", "风把帘子吹起又放下", "远处传来几声狗叫", "谁也没有多说一句话"]  # fmt: skip


def idle_sentence(rng: random.Random) -> str:
    """One sentence of no importance, without any figure in it."""
    when, who, where, what, then = map(rng.choice, (_WHEN, _WHO, _WHERE, _WHAT, _THEN))
    return f"{when}，{who}在{where}{what}，{then}。"


def key_sentence(key: str) -> str:
    """The sentence to be remembered."""
    return f"请记住：密钥是{key}。"


def draw_key(rng: random.Random, held_out: bool) -> str:
    """Five figures. Half of all keys, chosen by their hash, are held out: training never draws them."""
    while True:
        key = "".join(rng.choices("0123456789", k=5))
        if (hashlib.blake2b(key.encode()).digest()[0] % 2 == 1) == held_out:
            return key
