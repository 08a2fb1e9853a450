"""Facts to hide in idle talk, and the question for one of them: who likes which fruit, who brought what.

Four people differ in one thing, so that all four values stand in the text and only reading tells which is
right. Takes random numbers; gives text. Knows no tokens.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from mengya.world.lexicon import GIVEN_FEMALE, GIVEN_MALE, SURNAMES

PEOPLE = 4
# What of a person, and what it may be: all of two characters, none of which stands in the idle talk.
_THINGS = {
    "最喜欢的水果": "苹果 香蕉 葡萄 西瓜 樱桃 石榴 柿子 荔枝 菠萝 杨梅",
    "最喜欢的颜色": "红色 蓝色 绿色 紫色 黄色 黑色 白色 橙色 灰色 棕色",
    "收到的礼物": "手表 钢笔 围巾 帽子 相机 口琴 风筝 雨伞 花瓶 台灯",
    "打算去的城市": "北京 上海 广州 成都 西安 杭州 南京 武汉 昆明 青岛",
    "家里养的动物": "小狗 白猫 兔子 乌龟 鹦鹉 金鱼 山羊 仓鼠 刺猬 鸽子",
    "正在学的乐器": "古筝 钢琴 吉他 笛子 琵琶 长号 大鼓 竖琴 唢呐 箜篌",
    "早饭吃的东西": "包子 油条 面条 馒头 米粥 豆浆 饺子 烧饼 鸡蛋 汤圆",
    "报名的比赛": "跳远 游泳 赛跑 象棋 书法 射箭 滑冰 摔跤 跳绳 划船",
}


class HiddenFacts(NamedTuple):
    """
    Attributes:
        facts: one sentence a person, the asked one first.
        beginning: of the answer, which `value` and 。 complete.
        candidates: the values of all facts in the order of their characters, `value` among them.
    """

    facts: list[str]
    question: str
    beginning: str
    value: str
    candidates: list[str]


def draw_facts(rng: random.Random) -> HiddenFacts:
    """Four people with one thing each, no two of them equal."""
    thing = rng.choice(list(_THINGS))
    values = rng.sample(_THINGS[thing].split(), PEOPLE)
    surnames = rng.sample(SURNAMES, PEOPLE)
    people = [surname + rng.choice(GIVEN_MALE + GIVEN_FEMALE) for surname in surnames]
    facts = [f"{name}{thing}是{value}。" for name, value in zip(people, values, strict=True)]
    beginning = f"{people[0]}{thing}是"
    return HiddenFacts(facts, f"{beginning}什么？", beginning, values[0], sorted(values))
