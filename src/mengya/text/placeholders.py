"""Placeholders that nobody filled in: `<NAME>`, `{{author}}`, `[姓名]`, XXX公司.

A model learns to say them. What is found is a list of names that only the owner of the data can fill in, in
the brackets that data sets use; brackets around other words are code, mathematics, Markdown or emphasis.
Code in Markdown is skipped, and so is a template in the answer that the question asked for.
"""

from __future__ import annotations

import re

_NAMES = (
    "name", "author", "company", "organization", "organisation", "developer", "creator", "owner", "team",
    "model", "bot", "assistant", "institution", "university", "school", "department", "position",
    "address", "phone", "email", "date", "city", "signature", "recipient", "model name", "bot name",
    "assistant name", "company name", "organization name", "product name", "school name", "university name",
    "brand name", "author name", "first name", "last name", "full name", "job title", "phone number",
    "email address", "contact information",
)  # fmt: skip
_CHINESE_NAMES = (
    "姓名", "名字", "名称", "作者", "作者名", "开发者", "公司", "公司名", "公司名称", "机构", "机构名称",
    "组织", "组织名称", "团队", "团队名称", "单位名称", "学校", "学校名称", "大学名称", "部门", "部门名称",
    "职位", "职位名称", "日期", "地址", "公司地址", "电话", "电话号码", "联系电话", "手机号", "手机号码",
    "邮箱", "邮箱地址", "电子邮件", "电子邮件地址", "联系方式", "产品名称", "产品名", "品牌名称", "品牌名",
    "城市", "城市名", "收件人", "收件人姓名", "客户姓名", "客户名称", "签名", "模型名", "模型名称",
)  # fmt: skip
_WORDS = "|".join(sorted((n.replace(" ", "[ _-]?") for n in _NAMES), key=len, reverse=True))
_HAN_WORDS = "|".join(sorted(_CHINESE_NAMES, key=len, reverse=True))
_OWN = rf"(?:[你您贵我]的?)?(?:{_HAN_WORDS})"
_HAN = r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"

# Capitals in angle brackets: <name> is a tag.
_ANGLE = re.compile(rf"<(?:(?:YOUR[ _-])?(?:{_WORDS.upper()})|{_OWN})>")
_DOUBLE = re.compile(rf"\{{\{{\s?(?:(?:your[ _-]?)?(?:{_WORDS})|{_OWN})\s?\}}\}}", re.IGNORECASE)
# One brace is also a format string: it counts between Chinese, in a line without quotes and assignments.
_SINGLE = re.compile(
    rf"(?:(?<={_HAN})\{{(?:{_WORDS}|{_OWN})\}}|(?<!\{{)\{{(?:{_WORDS}|{_OWN})\}}(?={_HAN}))",
    re.IGNORECASE,
)
_CODE_LINE = re.compile(r"""["'`=;\\]""")
# Not an index of an array, nor the text of a link; a field with its value behind it is filled.
_SQUARE = re.compile(
    rf"(?<![\w\])])\[\s?(?:(?:(?:[Yy]our|[Ii]nsert|YOUR|INSERT)[ _])(?:(?i:{_WORDS}))|"
    rf"(?=[A-Z])(?:(?i:{_WORDS}))|(?:插入|填写|填入)?{_OWN})\s?\](?![(\[:：])"
)
_LENTICULAR = re.compile(
    rf"(?<=[^\n【】])【(?:插入|填写|填入)?{_OWN}】(?![:：])|^【{_OWN}】$", re.MULTILINE
)
_CROSSES = re.compile(
    r"(?<![A-Za-z])(?:[Xx]{2,5}|[×○]{2,5})(?:股份|科技|信息)?(?:有限)?"
    r"(?:公司|集团|企业|大学|学校|学院|团队|银行|医院)"
    r"|(?:我是|我叫|名叫)(?:[Xx]{2,5}|[×○]{2,5})(?![A-Za-z])"
)
_MAYBE = re.compile(
    rf"[<{{\[【]\s?(?:[你您贵我]|插入|填写|填入|{_HAN_WORDS}|(?i:your|insert|{_WORDS}))|[Xx×○]{{2}}"
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|\$\$.*?\$\$|\\\(.*?\\\)|\\\[.*?\\\]", re.DOTALL)


def unfilled(answer: str, question: str = "") -> list[str]:
    """The placeholders in an answer, each once.

    Args:
        question: what was asked: brackets and crosses that stand in it too are no fault of the answer.
    """
    if not _MAYBE.search(answer):
        return []
    text = _CODE.sub(" ", answer)
    sure = [found[0] for pattern in (_ANGLE, _DOUBLE) for found in pattern.finditer(text)]
    sure += [found[0] for found in _SINGLE.finditer(text) if not _in_code_line(text, found.start())]
    likely = [
        found[0] for pattern in (_SQUARE, _LENTICULAR, _CROSSES) for found in pattern.finditer(text)
    ]
    return list(dict.fromkeys([*sure, *(one for one in likely if one not in question)]))


def _in_code_line(text: str, at: int) -> bool:
    end = text.find("\n", at)
    line = text[text.rfind("\n", 0, at) + 1 : end if end >= 0 else len(text)]
    return _CODE_LINE.search(line) is not None
