"""Hostile text, from a model, a person or a file: it stays text, and the page stays quick."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.helpers.page_reader import Reader
from tests.helpers.scripted_server import chat, completion, deltas

ATTACKS = """<img src=x onerror="window.hit=1"><script>window.hit=1</script>
<svg onload=window.hit=1><iframe srcdoc="<script>parent.hit=1</script>"></iframe>
[a](javascript:window.hit=1) [b](JaVaScRiPt:window.hit=1) [c](data:text/html,<script>hit=1</script>)
[d](//evil.example) [e](/v1/models) [f](http://x" onmouseover="window.hit=1) ![g](http://evil.example/p.png)
<a href="javascript:window.hit=1">x</a> [ok](https://example.com/a?b=1)
| <b>x</b> | y |
|---|---|
| <img src=x onerror=window.hit=1> | z |
```html"><img src=x onerror=window.hit=1>
<script>window.hit=1</script>"""


def unharmed(reader: Reader) -> None:
    page = reader.page
    assert page.evaluate("window.hit") is None
    inside = page.locator("#log, #history, #completion-result")
    assert inside.locator("script, iframe, object, embed, style").count() == 0
    assert inside.locator("img:not(.greeting img)").count() == 0
    hrefs = page.locator("#log a").evaluate_all(
        "links => links.map((link) => [link.href, link.rel])"
    )
    assert all(h.startswith(("http://", "https://")) and "noopener" in rel for h, rel in hrefs)


def test_a_hostile_answer_is_shown_as_text(reader: Reader) -> None:
    reader.server.answer = lambda _: deltas(
        {"reasoning_content": ATTACKS},
        *({"content": ATTACKS[i : i + 3]} for i in range(0, len(ATTACKS), 3)),
        {"tool_calls": [{"index": 0, "function": {"name": ATTACKS, "arguments": ATTACKS}}]},
    )
    page = reader.open()
    reader.ask("x")
    reply = reader.answered()
    expect(reply).to_contain_text('<img src=x onerror="window.hit=1">')
    expect(reply.locator("a[href='https://example.com/a?b=1']").last).to_have_text("ok")
    unharmed(reader)
    page.reload()  # and from the browser's storage
    reader.answered()
    unharmed(reader)


def test_a_hostile_question_and_model_name_are_text(reader: Reader) -> None:
    reader.server.models = [{"id": ATTACKS[:80]}]
    page = reader.open()
    page.locator("#message").fill(ATTACKS)
    page.locator("#send").click()
    reader.answered()
    expect(page.locator(".bubble")).to_have_text(ATTACKS)
    page.locator(".bubble").hover()
    page.locator("[aria-label=编辑]").first.click()
    expect(page.locator(".editor textarea")).to_have_value(ATTACKS)
    unharmed(reader)


def test_hostile_tokens_are_text(reader: Reader) -> None:
    attack = "<img src=x onerror=window.hit=1>"
    reader.server.answer = lambda _: completion((attack, -1.0, {attack: -1.0, "<script>": -2.0}))
    page = reader.open()
    page.locator("#completion-mode").click()
    page.locator("#prompt").fill("x")
    page.locator("#continue").click()
    page.locator(".token").click()
    expect(page.locator(".card-head code")).to_have_text(attack.replace(" ", "␣"))
    unharmed(reader)


def test_html_that_a_script_would_parse_is_refused_by_the_browser(reader: Reader) -> None:
    page = reader.open()
    page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; window.hit = 1 } catch { window.refused = 1 } }"
    )
    assert page.evaluate("window.refused") == 1
    reader.complaints.clear()  # the browser reports the attempt
    unharmed(reader)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(unit * (100_000 // len(unit)), id=repr(unit))
        for unit in (
            "*",
            "_a ",
            "[",
            "[a](",
            "`",
            "``a`",
            "> ",
            "- ",
            "1. ",
            "|",
            "#",
            "$",
            "\n",
            " ",
            "字",
        )
    ]
    + [
        pytest.param("```" + " " * 100_000 + "`", id="fence"),
        pytest.param("|-" * 50_000 + "\n" + "|-" * 50_000, id="table"),
        pytest.param("http://" * 15_000, id="address"),
        pytest.param("\n".join("  " * d + "- x" for d in range(300)), id="nesting"),
    ],
)
def test_a_hundred_thousand_characters_of_anything_are_drawn_in_a_moment(
    reader: Reader, text: str
) -> None:
    page = reader.open()
    # The renderer's own time, without the browser's layout.
    milliseconds = page.evaluate(
        """async (text) => {
          const { LiveMarkdown } = await import("./markdown/markdown.js");
          const host = document.createElement("div");
          const began = performance.now();
          new LiveMarkdown(host).update(text);
          return performance.now() - began;
        }""",
        text,
    )
    assert milliseconds < 5_000  # a quadratic one takes minutes


def test_a_growing_text_ends_as_the_full_text(reader: Reader) -> None:
    text = (Path(__file__).parents[3] / "README.zh.md").read_text(encoding="utf-8") + ATTACKS
    page = reader.open()
    grown, full = page.evaluate(
        """async (text) => {
          const { LiveMarkdown } = await import("./markdown/markdown.js");
          const [one, other] = [document.createElement("div"), document.createElement("div")];
          const live = new LiveMarkdown(one);
          for (let end = 5; end < text.length + 5; end += 5) live.update(text.slice(0, end));
          new LiveMarkdown(other).update(text);
          return [one.innerHTML, other.innerHTML];
        }""",
        text,
    )
    assert "<table>" in full
    assert grown == full


def exported(turns: list[Any], **fields: Any) -> str:
    conversation = {
        "id": "a",
        "title": "t",
        "created": 1,
        "updated": 1,
        "system": "",
        "models": ["m"],
    }
    return json.dumps(
        {
            "format": "mengya-conversations",
            "version": 1,
            "conversations": [{**conversation, "turns": turns, **fields}],
        }
    )


def turn(**fields: Any) -> dict[str, Any]:
    reply = {"model": ATTACKS, "content": ATTACKS, "reasoning": ATTACKS, "finish": "stop"}
    reply |= {"toolCalls": [{"id": "", "name": ATTACKS[:60], "arguments": ATTACKS}]}
    reply["model"] = ATTACKS[:60]
    shape = {"id": "1", "parent": None, "after": [], "question": ATTACKS, "replies": [[reply]]}
    return {**shape, "chosen": [0], "touched": 1, **fields}


def give(reader: Reader, text: str) -> None:
    file = {"name": "x.json", "mimeType": "application/json", "buffer": text.encode()}
    reader.page.locator("#import-file").set_input_files([file])  # pyright: ignore[reportArgumentType]


def test_an_imported_hostile_conversation_is_text(reader: Reader) -> None:
    page = reader.open()
    give(reader, exported([turn()], title=ATTACKS[:200], extra={"__proto__": {"hit": 1}}))
    page.locator(".entry").click()
    expect(page.locator(".bubble")).to_have_text(ATTACKS)
    unharmed(reader)
    assert page.evaluate("({}).hit") is None


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "null",
        "[]",
        '{"format": "mengya-conversations", "version": 1, "conversations": {"length": 3}}',
        exported([turn(parent="1")]),
        exported([turn(), turn()]),
        exported([turn(), turn(id="2", parent="3")]),
        exported([turn(replies=[[{"model": "m", "content": {"toString": 1}}]])]),
        exported([turn(chosen=[5])]),
        exported([turn(touched="many")]),
        exported([], models=[]),
    ],
)
def test_a_broken_file_is_refused_completely_with_the_reason(reader: Reader, text: str) -> None:
    page = reader.open()
    give(reader, text)
    expect(page.locator(".notice.trouble")).to_contain_text("导入失败")
    assert (
        page.evaluate("Object.keys(localStorage).filter((k) => k.includes('conversation'))") == []
    )


def test_a_long_answer_does_not_freeze_the_page(reader: Reader) -> None:
    pieces = [f"第{i}句话，**重点**在这里。\n\n" if i % 5 == 0 else f"{i}，" for i in range(8_000)]
    reader.server.answer = lambda _: chat(*pieces)
    page = reader.open()
    began = time.monotonic()
    reader.ask("x")
    page.locator(".reply[aria-busy=false]").wait_for(timeout=30_000)
    assert time.monotonic() - began < 30
    expect(page.locator(".reply")).to_contain_text("7999，")
