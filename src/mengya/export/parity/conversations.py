"""Ten conversations that every chat template of ours must render alike in every program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """The input of a prompt; the assistant's turn is opened after the last message."""

    name: str
    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    enable_thinking: bool | None = None


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str, **more: Any) -> Message:
    return {"role": "assistant", "content": content, **more}


def _system(content: str) -> Message:
    return {"role": "system", "content": content}


def _call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


_WEATHER = {
    "type": "function",
    "function": {
        "name": "查天气",
        "description": "查一座城市的天气，例如“北京”；单位是 °C & <mm>。",
        "parameters": {
            "type": "object",
            "properties": {"城市": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["城市"],
        },
    },
}
_SUM = {
    "type": "function",
    "function": {
        "name": "sum",
        "description": "Adds two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
    },
}

CONVERSATIONS = (
    Conversation("one question", [_user("你好，请介绍一下你自己。")]),
    Conversation(
        "system", [_system("你是一位耐心的老师。\n回答要简短。"), _user("什么是光合作用？")]
    ),
    Conversation("empty system", [_system(""), _user("在吗？")]),
    Conversation(
        "several turns",
        [
            _user("一加一等于几？"),
            _assistant("等于二。"),
            _user("那么“二加三”呢？"),
            _assistant("  等于五。\n\n还有别的问题吗？\n"),
            _user("没有了，谢谢！"),
        ],
    ),
    Conversation("thinking off", [_user("9.11 和 9.9 哪个大？")], enable_thinking=False),
    Conversation(
        "thinking on",
        [
            _user("十五是质数吗？"),
            _assistant("不是。", reasoning_content="15 = 3 × 5\n所以不是质数。"),
            _user("十七呢？"),
        ],
        enable_thinking=True,
    ),
    Conversation("tools", [_system("可以用工具。"), _user("明天北京冷吗？")], [_WEATHER, _SUM]),
    Conversation(
        "tool calls and results",
        [
            _user("北京和上海明天哪里更热？"),
            _assistant(
                "我查一下。",
                tool_calls=[_call("查天气", 城市="北京", days=1), _call("查天气", 城市="上海")],
            ),
            {"role": "tool", "content": '{"温度": 31, "备注": "晴 & <微风>"}'},
            {"role": "tool", "content": "上海：28°C，“多云”"},
        ],
        [_WEATHER],
    ),
    Conversation(
        "braces, quotes and markup",
        [
            _user("解释 {{ x }}、{% if y %}、{# z #} 和 \"a\\nb\"、'c'、`d`、<b>&amp;</b>。"),
            _assistant('{"答案": "{}[]", "n": 1}'),
            _user("\\frac{1}{2}\t$x$\r\n% 注释"),
        ],
    ),
    Conversation(
        "rare characters",
        [_system("「」『』《》——……"), _user("  𠮷野家、👨‍👩‍👧、e\u0301、全角ＡＢＣ。\n\n")],
    ),
)
