"""Replies cut into pieces at every place: what a model may write, well-formed or broken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mengya.serving.runtime.choice import StopStrings
from mengya.serving.runtime.reply_parser import (
    CALL,
    THINK,
    Call,
    Part,
    ReplyParser,
    Text,
    parse_call,
)

TOOLS = frozenset({"add", "time"})
GOOD = '<tool_call>\n{"name": "add", "arguments": {"a":  1}}\n</tool_call>'


def parsed(text: str, size: int, tools: frozenset[str] | None = TOOLS, opened: str | None = None):
    """(reasoning, content, calls) of a reply given in pieces of `size` characters."""
    parser = ReplyParser(tools, opened)
    parts: list[Part] = []
    for start in range(0, len(text), size):
        parts += parser.push(text[start : start + size])
    parts += parser.flush()
    texts = {kind: "".join(p.text for p in parts if isinstance(p, Text) and p.kind == kind)
             for kind in ("reasoning", "content")}  # fmt: skip
    return texts["reasoning"], texts["content"], [p for p in parts if isinstance(p, Call)]


CASES = {
    "plain": ("你好 <b>", ("", "你好 <b>", [])),
    "thinking": ("<think>\n想一想\n</think>\n\n好", ("想一想", "好", [])),
    "empty thinking": ("<think>\n\n</think>\n\n好", ("", "好", [])),
    "unfinished thinking": ("<think>\n想", ("想", "", [])),
    "one call": (GOOD, ("", "", [Call("add", '{"a":  1}')])),
    "text, then calls": (
        f"我算算。\n{GOOD}\n{GOOD}",
        ("", "我算算。", [Call("add", '{"a":  1}')] * 2),
    ),
    "thinking, then a call": (f"<think>\n嗯\n</think>\n\n{GOOD}", ("嗯", "", [Call("add", '{"a":  1}')])),
    "bad JSON": ("<tool_call>\n{oops\n</tool_call>", ("", "<tool_call>\n{oops\n</tool_call>", [])),
    "unknown tool": (
        GOOD.replace("add", "rm"),
        ("", GOOD.replace("add", "rm"), []),
    ),
    "a closing tag in a string": (
        '<tool_call>\n{"name": "add", "arguments": {"a": "\\"</tool_call>"}}\n</tool_call>好',
        ("", "好", [Call("add", '{"a": "\\"</tool_call>"}')]),
    ),
    "a stray quote, then a call": (
        f'<tool_call>"</tool_call>{GOOD}',
        ("", '<tool_call>"</tool_call>', [Call("add", '{"a":  1}')]),
    ),
    "never closed": ("<tool_call>\n{\"na", ("", "<tool_call>\n{\"na", [])),
    "closed by the end": (GOOD.removesuffix("\n</tool_call>"), ("", "", [Call("add", '{"a":  1}')])),
    "a tag that is none": ("a <tool_calx> <think>", ("", "a <tool_calx> <think>", [])),
    "ends in half a tag": ("a <tool_", ("", "a <tool_", [])),
    "only half a tag": ("<thi", ("", "<thi", [])),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("name", CASES)
def test_every_way_to_cut_gives_the_same(name: str, size: int) -> None:
    text, expected = CASES[name]
    assert parsed(text, size) == expected


def test_without_tools_a_call_is_text() -> None:
    assert parsed(GOOD, 3, None) == ("", GOOD, [])


def test_what_the_prompt_has_opened() -> None:
    assert parsed("嗯\n</think>\n\n好", 2, opened=THINK) == ("嗯", "好", [])
    inside = GOOD.removeprefix(f"{CALL}\n").removesuffix("\n</tool_call>")
    assert parsed(inside, 2, opened=CALL) == ("", "", [Call("add", '{"a":  1}')])


def test_arguments_stay_as_written_or_become_json() -> None:
    assert parse_call('{"name": "f", "arguments": {"a":1,  "b": "\\u4f60"}}') == Call(
        "f", '{"a":1,  "b": "\\u4f60"}'
    )
    turned = parse_call('{"arguments": {"城市": "北京"}, "name": "f"}')
    assert turned is not None and json.loads(turned.arguments) == {"城市": "北京"}
    assert parse_call('{"name": "f"}') == Call("f", "{}")
    assert parse_call('{"name": "f", "parameters": {"a":1}}') == Call("f", '{"a":1}')
    for broken in ("[]", '{"name": 1}', '{"name": "f", "arguments": [1]}', "[" * 100_000,
                   '{"name": "f", "args": {}}', '{"name": "f", "arguments": {}, "x": 1}'):  # fmt: skip
        assert parse_call(broken) is None


TAGS = st.sampled_from(
    ["<think>", "</think>", "<tool_call>", "</tool_call>", GOOD, "\n", "a", "{}", "<"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(TAGS, max_size=12).map("".join), st.integers(1, 9))
def test_nothing_raises_and_pieces_do_not_matter(text: str, size: int) -> None:
    assert parsed(text, size) == parsed(text, len(text) or 1)


@settings(max_examples=300, deadline=None)
@given(
    st.text("abc", max_size=30),
    st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(1, 5),
)
def test_no_part_of_a_stop_string_is_given_out(text: str, stops: list[str], size: int) -> None:
    """Against plain search in the full text: what is shown must end where the first hit begins."""
    strings = StopStrings(stops)
    shown = ""
    for start in range(0, len(text), size):
        shown += strings.push(text[start : start + size])
        first = [at for stop in stops if (at := text[: start + size].find(stop)) >= 0]
        if first:
            assert strings.found
            break
    shown += strings.flush()
    hits = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert strings.found == bool(hits)
    if size == 1 and hits:
        # One character at a time, the stop string that is complete first decides.
        end = min(text.find(stop) + len(stop) for stop in stops if stop in text)
        begin = min(at for stop in stops if (at := text[:end].find(stop)) >= 0)
        assert shown == text[:begin]
    elif not hits:
        assert shown == text
    assert not any(stop in shown for stop in stops)
