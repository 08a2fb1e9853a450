"""Asking, stopping, answering again, editing, comparing; and what the page says when the server refuses."""

from __future__ import annotations

import threading

import pytest
from playwright.sync_api import expect

from tests.helpers.page_reader import Reader
from tests.helpers.scripted_server import Script, chat, deltas


def test_an_answer_streams_with_its_thinking_folded_and_its_counts(reader: Reader) -> None:
    hold = threading.Event()
    reader.server.answer = lambda _: deltas(
        {"reasoning_content": "先想一想。"}, {"content": "**你**好"}, usage=(11, 42), hold=hold
    )
    page = reader.open()
    reader.ask("在吗？")
    expect(page.locator(".reply strong")).to_have_text("你")  # shown before the stream has ended
    hold.set()
    reply = reader.answered()
    expect(reply.locator(".counts")).to_contain_text("42 个 token")
    expect(reply.locator(".counts")).to_contain_text("输入 11")
    expect(reply.locator(".thinking .markdown")).to_be_hidden()
    reply.locator("summary").click()
    expect(reply.locator(".thinking .markdown")).to_have_text("先想一想。")
    expect(page.locator("#status")).to_contain_text("回答完成")


def test_tool_calls_arrive_in_pieces_and_are_shown_complete(reader: Reader) -> None:
    reader.server.answer = lambda _: deltas(
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "add", "arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
        finish="tool_calls",
    )
    page = reader.open()
    reader.ask("1")
    reader.answered()
    expect(page.locator(".tool-head code")).to_have_text("add")
    expect(page.locator(".tool-call pre")).to_have_text('{\n  "x": 1\n}')


def test_results_of_calls_are_typed_and_sent(reader: Reader) -> None:
    calls = [
        {"index": 0, "id": "a", "function": {"name": "add", "arguments": '{"x": 1}'}},
        {"index": 1, "id": "b", "function": {"name": "now", "arguments": "{}"}},
    ]
    reader.server.answer = lambda body: (
        chat("是三。")
        if body["messages"][-1]["role"] == "tool"
        else deltas({"content": "算一下"}, {"tool_calls": calls}, finish="tool_calls")
    )
    page = reader.open()
    reader.ask("一加二？")
    reader.answered()
    page.get_by_role("button", name="发送结果").click()  # nothing is typed: nothing is sent
    assert len(reader.server.requests) == 1
    page.get_by_label("add 的结果").fill("3")
    page.get_by_label("now 的结果").fill("<b>十二点</b>")
    page.get_by_role("button", name="发送结果").click()
    expect(page.locator(".reply p").last).to_have_text("是三。")
    assert reader.server.requests[1]["messages"][-4:] == [
        {"role": "user", "content": "一加二？"},
        {"role": "assistant", "content": "算一下", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}},
            {"id": "b", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "a", "content": "3"},
        {"role": "tool", "tool_call_id": "b", "content": "<b>十二点</b>"},
    ]  # fmt: skip
    expect(page.locator(".tool-results")).to_have_count(0)  # answered: the form is gone
    expect(page.locator(".question pre").last).to_have_text("<b>十二点</b>")
    page.reload()
    expect(page.locator(".reply p").last).to_have_text("是三。")
    expect(page.locator(".question pre").first).to_have_text("3")
    reader.ask("谢谢")
    expect(page.locator(".reply")).to_have_count(3)
    assert [m["role"] for m in reader.server.requests[2]["messages"]][-6:] == [
        "user", "assistant", "tool", "tool", "assistant", "user",
    ]  # fmt: skip


def test_escape_stops_and_the_server_notices(reader: Reader) -> None:
    reader.server.answer = lambda _: chat("一半", hold=threading.Event())
    page = reader.open()
    reader.ask("说")
    expect(page.locator(".reply p").first).to_have_text("一半")
    page.keyboard.press("Escape")
    expect(reader.answered()).to_contain_text("已在此处停止")
    assert reader.server.disconnected.wait(3), "the stream continues after stop"
    expect(page.locator("#send")).to_be_visible()


def test_edit_and_regenerate_make_branches_to_go_between(reader: Reader) -> None:
    reader.server.answer = lambda body: chat(
        f"答{len(reader.server.requests)}：{body['messages'][-1]['content']}"
    )
    page = reader.open()
    reader.ask("甲")
    reader.answered()
    reader.ask("乙")
    reader.answered(2)
    page.locator(
        ".reply [aria-label=重新回答]"
    ).first.click()  # a second answer to the first question
    expect(page.locator(".turn")).to_have_count(1)
    expect(page.locator(".reply")).to_contain_text("答3：甲")
    assert reader.server.requests[-1]["messages"] == [{"role": "user", "content": "甲"}]
    page.locator(".reply [aria-label=上一个版本]").click()
    expect(page.locator(".turn")).to_have_count(2)  # what followed the first answer is back
    expect(page.locator(".reply").nth(1)).to_contain_text("答2：乙")
    page.locator(".bubble").nth(1).hover()
    page.locator(".question [aria-label=编辑]").nth(1).click()
    page.locator(".editor textarea").fill("丙")
    page.locator(".editor textarea").press("Enter")
    expect(page.locator(".reply").nth(1)).to_contain_text("答4：丙")
    assert [m["content"] for m in reader.server.requests[-1]["messages"]] == ["甲", "答1：甲", "丙"]
    expect(page.locator(".question .switcher span")).to_have_text("2/2")
    page.locator(".question [aria-label=上一个版本]").click()
    expect(page.locator(".bubble").nth(1)).to_have_text("乙")


def test_settings_are_sent_only_when_set(reader: Reader) -> None:
    page = reader.open()
    reader.ask("一")
    reader.answered()
    assert set(reader.server.requests[0]) == {"model", "messages", "stream", "stream_options"}
    page.locator("#open-settings").click()
    page.locator("#system").fill("你是诗人。")
    values = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05}
    values |= {"repetition_penalty": 1.1, "max_tokens": 99, "seed": 7}
    for name, value in values.items():
        page.locator(f"#field-{name}").fill(str(value))
    page.locator("#thinking").select_option("off")
    tool = '[{"type": "function", "function": {"name": "add"}}]'
    page.locator("#tools").fill(tool)
    reader.ask("二")
    reader.answered(2)
    sent = reader.server.requests[1]
    assert values.items() <= sent.items()
    assert sent["messages"][0] == {"role": "system", "content": "你是诗人。"}
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent["tools"] == [{"type": "function", "function": {"name": "add"}}]
    page.locator("#field-temperature").fill("9")  # out of bounds: said, and not sent
    expect(page.locator("#field-temperature-problem")).to_be_visible()
    page.locator("#tools").fill("{")
    expect(page.locator("#tools")).to_have_attribute("aria-invalid", "true")
    reader.ask("三")
    reader.answered(3)
    assert not {"temperature", "tools"} & set(reader.server.requests[2])


def test_two_models_answer_the_same_question_each_with_its_own_past(reader: Reader) -> None:
    reader.server.answer = lambda body: chat(f"{body['model']}说")
    page = reader.open()
    page.locator("#compare").click()
    reader.ask("谁？")
    reader.answered(2)
    reader.ask("然后？")
    reader.answered(4)
    later = {r["model"]: r["messages"] for r in reader.server.requests[2:]}
    assert later["sft"][1]["content"] == "sft说"
    assert later["base"][1]["content"] == "base说"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (Script(status=429, headers={"Retry-After": "7"}), "请在 7 秒后重试"),
        (Script(status=503), "模型正在加载"),
        (Script(status=400, message="top_k: too big"), "top_k: too big"),
        (Script(status=404), "没有这个模型"),
        (Script(status=500), "服务器出错"),
        (chat("半句", cut=True), "回答结束前连接中断"),
        (Script([{"error": {"message": "out of memory"}}]), "out of memory"),
    ],
)
def test_what_went_wrong_is_said_in_words_and_can_be_tried_again(
    reader: Reader, script: Script, words: str
) -> None:
    scripts = [script, chat("好了")]
    reader.server.answer = lambda _: scripts.pop(0)
    page = reader.open()
    reader.ask("喂")
    expect(page.locator(".problem")).to_contain_text(words)
    page.get_by_role("button", name="重试").click()
    expect(page.locator(".reply")).to_contain_text("好了")


def test_a_key_is_asked_for_and_kept_in_the_tab_only(reader: Reader) -> None:
    reader.server.key = "secret"
    page = reader.page
    page.goto(reader.server.address)
    for typed in ("wrong", "secret"):
        page.locator("dialog input").fill(typed)
        page.locator("dialog input").press("Enter")
    expect(page.locator("#model")).to_have_value("sft")
    reader.ask("喂")
    reader.answered()
    assert "secret" not in page.evaluate("JSON.stringify(localStorage)")
    assert not any("secret" in url for url in reader.requested)


def test_keys_of_the_keyboard(reader: Reader) -> None:
    page = reader.open()
    expect(page.locator("#message")).to_be_focused()
    page.locator("#message").blur()
    page.keyboard.press("/")
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("一")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("二")
    # An input method is composing: Enter chooses characters, and sends nothing.
    page.locator("#message").dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    assert reader.server.requests == []
    page.keyboard.press("Enter")
    reader.answered()
    assert reader.server.requests[0]["messages"][0]["content"] == "一\n二"


def test_language_theme_and_narrow_screen(reader: Reader) -> None:
    page = reader.open()
    page.locator("#language").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator("#send")).to_have_attribute("aria-label", "Send")
    fonts = "font => getComputedStyle(document.body).getPropertyValue(font)"
    assert page.evaluate(fonts, "font-family").endswith("sans-serif")
    assert page.evaluate(fonts, "--mono").endswith("monospace")
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 26, 23)"
    page.set_viewport_size({"width": 360, "height": 700})
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("#sidebar")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#open-menu").click()
    expect(page.locator("#new-chat")).to_be_visible()
