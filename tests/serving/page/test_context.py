"""How full the context is: counted by the server, or estimated; what is said when it is full."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect

from tests.helpers.page_reader import Reader
from tests.helpers.scripted_server import Script, chat


def contents(body: dict[str, Any]) -> list[str]:
    return [message["content"] for message in body["messages"]]


def test_the_gauge_follows_the_usage_and_what_is_typed(reader: Reader) -> None:
    reader.server.answer = lambda _: chat("好" * 20, usage=(100, 40))
    page = reader.open()
    expect(page.locator("#gauge")).to_be_hidden()
    reader.ask("春眠不觉晓")
    reader.answered()
    expect(page.locator("#gauge-words")).to_have_text("上下文：约 140 / 512 token")
    page.locator("#message").fill("处处闻啼鸟" * 10)
    expect(page.locator("#gauge-words")).not_to_contain_text("约 140")
    expect(page.locator("#gauge-words")).not_to_contain_text("快满了")
    page.locator("#message").fill("处处闻啼鸟" * 30)
    expect(page.locator("#gauge-words")).to_contain_text("快满了")
    page.locator("#message").fill("处处闻啼鸟" * 300)
    expect(page.locator("#gauge-words")).to_contain_text("请缩短")
    page.reload()
    expect(page.locator("#gauge-words")).to_have_text("上下文：约 140 / 512 token")


def test_a_server_that_can_count_is_asked_but_not_about_drafts(reader: Reader) -> None:
    asked: list[Any] = []

    def tokens(body: dict[str, Any]) -> int:
        asked.append(body)
        return 77

    reader.server.tokens = tokens
    page = reader.open()
    page.locator("#message").fill("还没有发送")
    reader.ask("喂")
    reader.answered()
    expect(page.locator("#gauge-words")).to_have_text("上下文：77 / 512 token")
    assert [contents(body) for body in asked] == [["喂", "好的。"]]
    page.locator("#message").fill("草稿")
    expect(page.locator("#gauge-words")).to_contain_text("约")
    assert len(asked) == 1
    page.locator("#message").fill("")
    page.locator("#open-settings").click()
    page.locator("#thinking").select_option("off")  # part of the prompt: counted again
    page.wait_for_timeout(900)
    assert asked[1] == {**asked[0], "chat_template_kwargs": {"enable_thinking": False}}


def test_a_context_that_is_known_once_the_model_is_loaded(reader: Reader) -> None:
    assert isinstance(reader.server.models, list)
    (model, _) = reader.server.models
    reader.server.models = [{**model, "mengya": {"kind": None, "context": None}}]
    page = reader.open()
    reader.server.models = [model]
    expect(page.locator("#chat")).to_be_visible()
    reader.ask("喂")
    reader.answered()
    expect(page.locator("#gauge-words")).to_contain_text("/ 512 token")


def test_the_line_stands_where_the_prompt_began(reader: Reader) -> None:
    """The server takes four messages; its refusal is the one that mengya's own server sends."""

    def answer(body: dict[str, Any]) -> Script:
        if len(body["messages"]) <= 4:
            return chat(f"答：{body['messages'][-1]['content']}")
        return Script(status=400, message="the context is full", code="context_length_exceeded")

    reader.server.answer = answer
    page = reader.open()
    for number, text in enumerate("甲乙丙", 1):
        reader.ask(text)
        reader.answered(number)
    expect(page.locator(".reply").nth(2)).to_contain_text("答：丙")
    assert contents(reader.server.requests[-1]) == ["乙", "答：乙", "丙"]
    expect(page.locator(".problem")).to_have_count(0)
    for _ in range(2):
        expect(page.locator("#log > *").nth(1)).to_contain_text("上下文已满：此线以上")
        expect(page.locator("#log > *").nth(2)).to_contain_text("乙")
        page.reload()  # and it is still known


def test_room_is_left_for_the_answer(reader: Reader) -> None:
    """The context is 512: a prompt of 400 tokens would leave the next answer too little."""
    reader.server.answer = lambda _: chat("好", usage=(400, 20))
    reader.open()
    for number in (1, 2):
        reader.ask("春眠不觉晓" * 20)
        reader.answered(number)
    assert len(reader.server.requests[-1]["messages"]) == 1


def test_the_last_question_alone_is_refused_in_words(reader: Reader) -> None:
    reader.server.answer = lambda _: Script(
        status=400, message="shorten it", code="context_length_exceeded"
    )
    page = reader.open()
    reader.ask("长")
    expect(page.locator(".problem p").first).to_contain_text("超过了模型的上下文，请缩短")
    expect(page.locator(".problem .detail")).to_be_hidden()  # in English, for who wants it
    page.locator(".problem summary").click()
    expect(page.locator(".problem .detail")).to_have_text("shorten it")
    assert len(reader.server.requests) == 1


def test_max_tokens_above_the_context_are_named_and_no_question_is_left_out(reader: Reader) -> None:
    page = reader.open()
    reader.ask("甲")
    reader.answered()
    reader.server.answer = lambda _: Script(
        status=400, message="ask for less", code="context_length_exceeded", param="max_tokens"
    )
    page.locator("#open-settings").click()
    page.locator("#field-max_tokens").fill("4000")
    reader.ask("乙")
    expect(page.locator(".problem p").first).to_contain_text("最大生成长度")
    assert len(reader.server.requests) == 2
    expect(page.locator(".cut")).to_have_count(0)


def test_an_answer_cut_by_its_length_is_continued(reader: Reader) -> None:
    reader.server.answer = lambda body: (
        chat("，处处闻啼鸟。", usage=(12, 6))
        if body["messages"][-1]["role"] == "assistant"
        else chat("春眠不觉晓", finish="length", usage=(7, 5))
    )
    page = reader.open()
    reader.ask("背诗")
    expect(reader.answered()).to_contain_text("已达到最大生成长度")
    page.get_by_role("button", name="继续回答").click()
    expect(page.locator(".reply p").first).to_have_text("春眠不觉晓，处处闻啼鸟。")
    sent = reader.server.requests[-1]
    assert contents(sent) == ["背诗", "春眠不觉晓"]
    assert sent["continue_final_message"] is True and sent["add_generation_prompt"] is False
    expect(page.locator(".counts")).to_contain_text("11 个 token")
    expect(page.locator(".counts")).to_contain_text("输入 7")
    expect(page.get_by_role("button", name="继续回答")).to_have_count(0)


def test_an_answer_that_fills_the_context_and_cannot_be_continued(reader: Reader) -> None:
    full = Script(status=400, message="full", code="context_length_exceeded")
    scripts = [chat("很长", finish="length", usage=(500, 12)), full]
    reader.server.answer = lambda _: scripts.pop(0)
    page = reader.open()
    reader.ask("长")
    expect(reader.answered()).to_contain_text("模型的上下文（512 个 token）已满")
    page.get_by_role("button", name="继续回答").click()
    expect(page.locator("#notices")).to_contain_text("请新建对话")
    expect(page.locator(".reply p").first).to_have_text("很长")
    expect(page.locator(".problem")).to_have_count(0)
    expect(page.get_by_role("button", name="继续回答")).to_be_visible()
