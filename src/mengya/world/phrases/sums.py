"""How the sums of everyday shopping are worded: exercises that need arithmetic, not memory.

{a} and {b} are numbers in words, {v} the answer, {w} a ware, {m} its measure word, {n} a person. Statements
and questions as in phrases_people; the exam asks for facts only, so sums have no wordings of its own.
"""

from mengya.world.phrases.people import Phrases

SUMS: dict[str, Phrases] = {
    "cost": Phrases(
        (
            "一{m}{w}{a}元，{b}{m}一共{v}元",
            "{w}每{m}{a}元，买{b}{m}要付{v}元",
            "每{m}{a}元，买{b}{m}{w}，一共是{v}元",
            "{b}{m}{w}，每{m}{a}元，总价是{v}元",
        ),
        (
            "一{m}{w}{a}元，买{b}{m}一共多少钱？",
            "{w}每{m}{a}元，{b}{m}要付多少元？",
            "{n}买了{b}{m}{w}，每{m}{a}元，一共付多少钱？",
            "每{m}{w}{a}元，{b}{m}一共是（ ）。",
        ),
    ),
    "change": Phrases(
        (
            "付了{a}元，东西{b}元，找回{v}元",
            "{b}元的东西，给{a}元，应找{v}元",
            "{n}买{w}用去{b}元，付了{a}元，找回{v}元",
        ),
        (
            "付了{a}元，东西{b}元，应找回多少钱？",
            "{n}买{w}用去{b}元，给了{a}元，找回多少元？",
            "{b}元的东西，给{a}元，应找（ ）。",
            "买{w}用去{b}元，付了{a}元，要找多少钱？",
        ),
    ),
    "sum": Phrases(
        (
            "{a}加{b}等于{v}",
            "{a}加上{b}是{v}",
            "{n}有{a}{m}{w}，又买了{b}{m}，一共有{v}{m}",
            "先有{a}{m}{w}，再来{b}{m}，合起来是{v}{m}",
        ),
        (
            "{n}有{a}{m}{w}，又买了{b}{m}，一共有几{m}？",
            "{a}加{b}等于多少？",
            "{a}加{b}等于（ ）。",
            "先有{a}{m}{w}，再来{b}{m}，合起来是几{m}？",
        ),
    ),
    "rest": Phrases(
        (
            "{a}减{b}等于{v}",
            "{a}减去{b}是{v}",
            "{n}有{a}{m}{w}，用掉{b}{m}，还剩{v}{m}",
            "从{a}{m}{w}里拿走{b}{m}，剩下{v}{m}",
        ),
        (
            "{n}有{a}{m}{w}，用掉{b}{m}，还剩几{m}？",
            "{a}减{b}等于多少？",
            "{a}减{b}等于（ ）。",
            "从{a}{m}{w}里拿走{b}{m}，剩下几{m}？",
        ),
    ),
}
