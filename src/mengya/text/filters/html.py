"""Remains of HTML: removed from prose, and text that is full of them dropped.

Only tags of HTML are tags: `List<String>` and `<name>` are not, nor is what stands in code, nor a tag that
the text speaks about (`<div> 标签`).
"""

from __future__ import annotations

import html
import re

from mengya.text.filters.config import HtmlFilter
from mengya.text.filters.markdown import change_prose, prose

_BLOCKS = (
    "address|article|aside|blockquote|body|br|caption|center|dd|details|dir|div|dl|dt|fieldset|figcaption"
    "|figure|footer|form|frameset|h[1-6]|head|header|hr|html|legend|li|link|main|menu|meta|nav|noframes"
    "|ol|optgroup|option|p|pre|section|select|summary|table|tbody|textarea|tfoot|thead|title|tr|ul"
)
_SPANS = (
    "a|abbr|acronym|area|audio|b|base|bdi|bdo|big|button|canvas|cite|code|col|colgroup|data|datalist|del"
    "|dfn|em|embed|font|frame|i|iframe|img|input|ins|kbd|label|map|mark|marquee|nobr|noscript|object|output"
    "|param|picture|progress|q|rp|rt|ruby|s|samp|script|small|source|span|strike|strong|style|sub|sup|svg"
    "|td|template|th|time|tt|u|var|video|wbr"
)
_ABOUT = r"(?!\s*(?:标签|元素|标记|[Tt]ags?\b|elements?\b))"
_ATTRIBUTES = r"(?:\s(?:[^<>\"']|\"[^\"]*\"|'[^']*')*)?"
_BLOCK_TAG = re.compile(rf"</?(?:{_BLOCKS})\b{_ATTRIBUTES}/?>{_ABOUT}", re.IGNORECASE)
_CELL = re.compile(rf"</t[dh]\s*>{_ABOUT}", re.IGNORECASE)
# A letter before a bare tag of one letter is a type or a comparison: vector<a>, x<b>.
_SPAN_TAG = re.compile(
    rf"<(?:(?<![A-Za-z0-9_.]<)[abiqsu]>|(?![abiqsu]>)/?(?:{_SPANS})\b{_ATTRIBUTES}/?>){_ABOUT}",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"<!--.*?-->|<!doctype[^<>]*>|<!\[CDATA\[|\]\]>|<\?xml[^<>]*\?>", re.I | re.S)
_UNSEEN = re.compile(
    rf"<(script|style|noscript|iframe|template|svg)\b{_ATTRIBUTES}>{_ABOUT}.*?</\1\s*>", re.I | re.S
)
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_RAISED = re.compile(r"<(sup|sub)>([0-9+\-=()n]{1,6})</\1>", re.IGNORECASE)
_HEIGHTS = {
    "sup": str.maketrans("0123456789+-=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿ"),
    "sub": str.maketrans("0123456789+-=()n", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙ"),
}
_READING = re.compile(
    r"(?:<rp>[^<>]{0,3}</rp>)?<rt\b[^<>]*>(.*?)(?:</rt>|(?=</ruby>))(?:<rp>[^<>]{0,3}</rp>)?"
)
_BREAK_IN_ROW = re.compile(r"<br\s*/?>(?=[^\n]*\|[ \t]*$)", re.IGNORECASE | re.MULTILINE)
# Where a block began or ended: a line end, two where the text had two.
_MARK = "\ufdd0"
_MARKS = re.compile(rf"[ \t]*(?:\n[ \t]*)*{_MARK}(?:[ \t]*(?:\n|{_MARK}))*")
# A line of JavaScript or of a style sheet.
_SCRIPT_CODE = re.compile(
    r"function\s*\w*\([^()]*\)\s*\{|document\.(?:write|getElement|cookie|createElement)"
    r"|\bvar \w+ ?=|!important|\$\(document\)|(?<!-)\{\s*[a-z-]+\s*:[^{};]+;"
)
_CUT_TAG = re.compile(
    r"<(?:div|span|a|img|p|td|tr|li|ul|table|font|script) [^<>]*\Z", re.IGNORECASE
)


def remove_html(text: str) -> str:
    """The text without tags and comments, and with its entities decoded; code stays as it is."""
    if "<" not in text and "&" not in text:
        return text
    edited = change_prose(text, _without_html)
    return edited.lstrip("\n") if text[:1] == "<" else edited


def _without_html(text: str) -> str:
    if "<" in text:
        plain = _UNSEEN.sub("", _COMMENT.sub(_comment, text))
        plain = _RAISED.sub(lambda m: m[2].translate(_HEIGHTS[m[1].lower()]), plain)
        plain = _READING.sub(r"（\1）", _BREAK_IN_ROW.sub(" ", plain))
        plain = _SPAN_TAG.sub("", _BLOCK_TAG.sub(_MARK, _CELL.sub(" ", plain)))
        text = _MARKS.sub(_line_ends, plain) if _MARK in plain else plain
    if "&" in text:
        text = _ENTITY.sub(_character, text.replace("&amp;", "&"))
    return text


def _comment(found: re.Match[str]) -> str:
    """Of a comment on lines of its own no empty line is left."""
    text, start = found.string, found.start()
    return _MARK if start == 0 or text[start - 1] == "\n" else ""


def _line_ends(found: re.Match[str]) -> str:
    """A line end, and an empty line where the text had one: lines of tags alone are none."""
    inner = found[0].split("\n")[1:-1]
    return "\n\n" if any(not line.strip() for line in inner) else "\n"


def _character(found: re.Match[str]) -> str:
    return html.unescape(found[0]).replace("\xa0", " ")


class HtmlRemains:
    """html_remains."""

    def __init__(self, config: HtmlFilter) -> None:
        self._config = config

    def __call__(self, text: str) -> str | None:
        """The reason for which the text is dropped, or None."""
        if "<" not in text and "&" not in text and "{" not in text:
            return None
        text = prose(text)
        remains = _length_of_tags(text) + _length_of_code(text)
        return "html_remains" if remains > self._config.max_share * len(text) else None


def _length_of_tags(text: str) -> int:
    patterns = [_BLOCK_TAG, _SPAN_TAG, _COMMENT, _CUT_TAG] if "<" in text else []
    patterns += [_ENTITY] if "&" in text else []
    return sum(found.end() - found.start() for p in patterns for found in p.finditer(text))


def _length_of_code(text: str) -> int:
    if "{" not in text and "!important" not in text:
        return 0
    return sum(len(line) for line in text.split("\n") if _SCRIPT_CODE.search(line))
