"""Changing what is there: delete a question or an answer, edit an answer; files that are added."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import FilePayload, expect

from tests.helpers.page_reader import Reader
from tests.helpers.scripted_server import chat, deltas


def contents(reader: Reader) -> list[Any]:
    return [message["content"] for message in reader.server.requests[-1]["messages"]]


def delete(reader: Reader, label: str, index: int = 0) -> None:
    page = reader.page
    page.locator(f".actions [aria-label='{label}']").nth(index).click(force=True)
    page.locator("dialog .danger").click()


def test_a_question_is_deleted_and_what_follows_stays(reader: Reader) -> None:
    reader.server.answer = lambda body: chat(f"答{body['messages'][-1]['content']}")
    page = reader.open()
    for number, text in enumerate("甲乙丙", 1):
        reader.ask(text)
        reader.answered(number)
    delete(reader, "删除这个问题及其回答", 1)
    expect(page.locator(".bubble")).to_have_text(["甲", "丙"])
    page.reload()
    expect(page.locator(".bubble")).to_have_text(["甲", "丙"])
    reader.ask("丁")
    reader.answered(3)
    assert contents(reader) == ["甲", "答甲", "丙", "答丙", "丁"]
    for left in (2, 1):
        delete(reader, "删除这个问题及其回答")
        expect(page.locator(".bubble")).to_have_count(left)
    delete(reader, "删除这个问题及其回答")  # the last one: the conversation is gone
    expect(page.locator(".entry")).to_have_count(0)
    expect(page.locator(".greeting")).to_be_visible()


def test_a_question_goes_with_the_results_of_its_calls(reader: Reader) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "now", "arguments": "{}"}}
    reader.server.answer = lambda body: (
        deltas({"tool_calls": [call]}, finish="tool_calls")
        if body["messages"][-1]["content"] == "几点？"
        else chat("好")
    )
    page = reader.open()
    reader.ask("几点？")
    page.get_by_label("now 的结果").fill("三点")
    page.get_by_role("button", name="发送结果").click()
    reader.answered(2)
    reader.ask("谢谢")
    reader.answered(3)
    delete(reader, "删除这个问题及其回答")
    expect(page.locator(".turn")).to_have_count(1)
    reader.ask("再见")
    reader.answered(2)
    assert contents(reader) == ["谢谢", "好", "再见"]


def test_a_version_of_an_answer_is_deleted_with_what_followed_it(reader: Reader) -> None:
    reader.server.answer = lambda _: chat(f"答{len(reader.server.requests)}")
    page = reader.open()
    reader.ask("甲")
    reader.answered()
    expect(page.locator("[aria-label='删除这个版本的回答']")).to_have_count(0)  # the only one
    reader.ask("乙")
    reader.answered(2)
    page.locator(".reply [aria-label=重新回答]").first.click()
    expect(page.locator(".reply")).to_contain_text("答3")
    delete(reader, "删除这个版本的回答")
    expect(page.locator(".bubble")).to_have_text(["甲", "乙"])  # those of the other version
    expect(page.locator(".switcher")).to_have_count(0)
    page.locator(".reply [aria-label=重新回答]").first.click()
    expect(page.locator(".reply")).to_contain_text("答4")
    page.locator(".reply [aria-label=上一个版本]").click()
    delete(reader, "删除这个版本的回答")
    expect(page.locator(".bubble")).to_have_text(["甲"])
    expect(page.locator(".reply")).to_contain_text("答4")


def test_an_edited_answer_is_a_version_and_can_be_continued(reader: Reader) -> None:
    reader.server.answer = lambda _: chat("原来的话")
    page = reader.open()
    reader.ask("甲")
    reader.answered()
    page.locator("[aria-label=编辑回答]").click()
    area = page.locator(".reply .editor textarea")
    expect(area).to_be_focused()
    expect(area).to_have_value("原来的话")
    area.press("Escape")
    expect(page.locator(".reply p").first).to_have_text("原来的话")
    page.locator("[aria-label=编辑回答]").click()
    area.fill("改过的话")
    area.press("Enter")  # a new line: answers have many
    expect(area).to_have_value("改过的话\n")
    area.press("Control+Enter")
    expect(page.locator(".reply p").first).to_have_text("改过的话")
    expect(page.locator(".reply .switcher span")).to_have_text("2/2")
    page.reload()
    expect(page.locator(".reply")).to_contain_text("已由你编辑")
    page.get_by_role("button", name="继续回答").click()
    expect(page.locator(".reply p").first).to_contain_text("原来的话")
    assert contents(reader) == ["甲", "改过的话\n"]
    reader.ask("乙")
    reader.answered(2)
    assert contents(reader) == ["甲", "改过的话\n原来的话", "乙"]


def test_text_files_go_into_the_message(reader: Reader) -> None:
    page = reader.open()
    page.locator("#message").fill("总结：")
    files: list[FilePayload] = [
        {"name": "甲.txt", "mimeType": "text/plain", "buffer": "春眠\r\n不觉晓".encode("gb18030")},
        {"name": "b.md", "mimeType": "", "buffer": "```\ncode\n```".encode("utf-16")},
    ]
    page.locator("#message-file").set_input_files(files)
    expect(page.locator("#message")).to_have_value(
        "总结：\n\n文件 甲.txt：\n```\n春眠\n不觉晓\n```\n\n文件 b.md：\n````\n```\ncode\n```\n````\n"
    )
    expect(page.locator("#gauge-words")).to_contain_text("约")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "不是文本文件"),
        (b"a" * 300 * 1024, "有 300 KiB，超过 256 KiB"),
        (b" \n", "是空文件"),
    ],
)
def test_other_files_are_refused_with_the_reason(
    reader: Reader, content: bytes, words: str
) -> None:
    page = reader.open()
    file: FilePayload = {"name": "x", "mimeType": "", "buffer": content}
    page.locator("#message-file").set_input_files([file])
    expect(page.locator(".notice.trouble")).to_contain_text(words)
    expect(page.locator("#message")).to_have_value("")
