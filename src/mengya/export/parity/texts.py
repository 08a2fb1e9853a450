"""Two hundred texts on which tokenizers come apart: written by hand, and made by rules from a fixed seed.

Takes the texts of the tokens; gives texts. Knows no tokenizer. None holds a NUL or half a surrogate
pair, which C strings and UTF-8 cannot.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

COUNT = 200
_SHEETS = 12

_WRITTEN = (
    "", " ", "  ", "\n", "\t", "\r\n", " \n \n", "\n\n\n", "\u3000", "\u00a0", "。",
    # plain Chinese, simplified and traditional
    "你好，世界！", "春眠不觉晓，处处闻啼鸟。", "他说：“明天见。”然后走了。",
    "一九九七年七月一日", "吃了吗？吃了。", "繁體中文：臺灣、香港、澳門的圖書館。",
    "憂鬱的臺灣烏龜，鬱悶的龍鳳。", "這裏「引號」不同，『內層』也不同。",
    "简体和繁體混在一句話裡。", "哈哈哈哈哈哈哈哈哈哈哈哈", "的的的的的的的的",
    # rare characters: Ext A, Ext B and later, compatibility forms, radicals, strokes
    "㐀㐁㐂㒰䶵", "𠀀𠀁𠮷野家𡃁仔𪚥", "𰻞𰻞面", "𫠝𬺰𭁈", "豈更車賈滑", "⺀⺁⻳⼀⼁", "㇀㇁㇂",
    "〇〡〢〣", "龘靐齉爩", "囧槑烎嫑",
    # emoji: skin tones, joined families, flags, keycaps, selectors
    "😀😂🤣", "👍🏽👍🏿", "👨‍👩‍👧‍👦和👩🏻‍💻", "🏳️‍🌈🇨🇳🇭🇰", "1️⃣2️⃣#️⃣", "❤️❤︎", "🫠🫨🪿",
    "🧑‍🤝‍🧑", "a😀b😀c", "😀" * 40,
    # combining marks, other scripts, directions, invisible characters
    "e\u0301 é ñ n\u0303", "Z\u0351\u036b\u0343a\u0310\u0322l\u0334g\u0321o\u035c", "ก็ิ้ ภาษาไทย",
    "हिन्दी क्षत्रिय", "العَرَبِيَّة وَ 中文", "עברית \u202bאבג\u202c abc", "Tiếng Việt ngữ pháp",
    "Ελληνικά Кириллица ёжик", "日本語のカタカナとひらがな", "ｶﾞｷﾞｸﾞ ﾊﾟ",
    "한국어 조합형 \u1112\u1161\u11ab", "a\u200bb\u200cc\u200dd\ufeffe", "\ufeff开头的 BOM",
    "soft\u00adhyphen", "\u2028行分隔\u2029段分隔", "\ue000\uf8ff 私用区", "\ufffd\ufffe",
    # spaces, tabs, line ends
    "a  b   c    d", "  前面两个空格", "后面两个空格  ", "\t缩进\t\t两次",
    "第一行\n第二行\n\n第四行", "第一行\r\n第二行\r\n", "\r单独的回车\r", "a\n b\n  c\n   d",
    "\n开头的换行", "结尾的换行\n", "\x0b\x0c", "中 文 之 间 空 格", "　全角空格　开头",
    "x\u2003y\u2009z\u202fw",
    # numbers
    "0123456789", "3.14159265358979", "1,234,567.89", "1e-10 -2.5E+8", "0x1F 0b1010 0o777",
    "２０２６年１１月", "①②③⑩⑳", "Ⅰ Ⅱ Ⅲ Ⅳ", "½ ⅓ ²³ H₂O",
    "一百二十三万四千五百六十七", "+86 138-0000-0000", "12:34:56.789", "١٢٣٤٥", "100%",
    "￥99.9 $5 €3",
    # code, markup, addresses, paths
    "def f(x):\n    return x ** 2\n", "for (int i=0;i<n;++i){a[i]+=b[i];}",
    "SELECT * FROM `表` WHERE id='1';", '{"名字": "小明", "a": [1, 2.5, null]}',
    "<div class=\"x\">&nbsp;&amp;</div>", "# 标题\n\n- 一\n- 二\n\n```py\nx=1\n```",
    "$$\\int_0^1 x^2\\,dx = \\frac{1}{3}$$", "a->b=>c::d!=e&&f||g",
    "https://例子.测试/路径?q=中文&x=1#锚", "user.name+tag@example.com",
    "C:\\Windows\\系统 /usr/bin/env", "rm -rf /tmp/* && echo \"$HOME\"", "\\n\\t\\u4e2d 不是转义",
    "{{ messages }} {% for x in y %} {# 注释 #}", "{%- generation -%}文本{%- endgeneration -%}",
    "%s %d {0} {} ${var}", "camelCase snake_case SCREAMING kebab-case",
    "don't can't I'm they'll we've", "DON'T I'LL'VE'RE", "'s 't 're", "“弯引号”‘单’\"直\"'单'",
    "—— …… 、；：？！《》【】", "...!!!???", "()[]{}<>（）［］｛｝＜＞",
    # full-width and other forms of Latin letters
    "ＡＢＣａｂｃ１２３！？", "ﬁ ﬂ ﬃ", "𝐀𝑩𝒞𝔇", "ⒶⒷⒸ", "İıſß ẞ", "ǅ ǆ",
    # names of control tokens of other models, as text
    "<s></s><unk>", "[INST] 你好 [/INST]", "<<SYS>>\n<</SYS>>", "<bos><eos>", "[CLS][SEP][MASK]",
    "<|user|><|assistant|>", "<im_start>", "< |im_end| >",
    # control characters
    "\x01\x02\x03", "\x07\x08\x1b[31m红\x1b[0m", "\x7f\x80\x9f", "a\x1fb",
    # mixed scripts without spaces
    "用Python写GPT模型", "iPhone15Pro发布于2023年9月", "A股上涨3.5%，H股下跌2%",
    "β-胡萝卜素C₄₀H₅₆", "第1章Introduction第2章方法", "OK啦lol哈哈XD", "x轴y轴z軸",
    # long runs
    "啊" * 1500, "a" * 2000, " " * 300, "\n" * 200, "=" * 400, "1" * 700, "ab" * 500, "，" * 200,
    "中a" * 300, "\t" * 90, "-" * 77,
)  # fmt: skip


def hostile_texts(special: Sequence[str], vocabulary: Sequence[str]) -> list[str]:
    """COUNT texts, always the same ones for the same tokens.

    Args:
        special: names of special tokens.
        vocabulary: texts of all other tokens; they are in the texts, so that every merge is needed.
    """
    texts = [*_WRITTEN, *_special_as_text(special), *_sheets(vocabulary)]
    rng = random.Random("hostile texts")
    while len(texts) < COUNT:
        texts.append(_mixed(rng))
    return texts[:COUNT]


def _sheets(vocabulary: Sequence[str]) -> list[str]:
    """A token a line, in a few texts."""
    size = -(-len(vocabulary) // _SHEETS)
    return ["\n".join(vocabulary[i * size : (i + 1) * size]) for i in range(_SHEETS)]


def _special_as_text(special: Sequence[str]) -> list[str]:
    """A few sentences that name special tokens."""
    some = [*special[:3], *special[-1:]]
    return [f"他写下了{name}，又写了一遍{name}{name}" for name in dict.fromkeys(some)]


_PIECES: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: chr(rng.randint(0x4E00, 0x9FA5)),
    lambda rng: "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(rng.randint(2, 8))),
    lambda rng: chr(rng.randint(0x20000, 0x2A6D6)),
    lambda rng: chr(rng.randint(0x3400, 0x4DB5)),
    lambda rng: chr(rng.randint(0x1F300, 0x1F64F)),
    lambda rng: chr(rng.randint(0x300, 0x36F)),
    lambda rng: chr(rng.randint(0xFF01, 0xFF5E)),
    lambda rng: chr(rng.randint(0xAC00, 0xD7A3)),
    lambda rng: chr(rng.randint(0x400, 0x44F)),
    lambda rng: rng.choice([" ", "  ", "\n", "\t", "\r\n", "\u3000", "\n\n"]),
    lambda rng: rng.choice("，。！？；：“”、…—（）《》"),
    lambda rng: rng.choice("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~\\"),
    lambda rng: str(rng.randint(0, 10 ** rng.randint(1, 9))),
    lambda rng: "".join(rng.choice("etaoinshrdluETAOIN") for _ in range(rng.randint(1, 9))),
    lambda rng: rng.choice(["'s", "'ll", "n't", "\u200d", "\ufe0f", "://", "=="]),
)


def _mixed(rng: random.Random) -> str:
    return "".join(rng.choice(_PIECES)(rng) for _ in range(rng.randint(3, 40)))
