"""What fails at the page leaves the reader able to continue: a full context, no models, no answer."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect

from tests.helpers.scripted_server import Script, chat
from tests.serving.page.conftest import Reader


def contents(body: dict[str, Any]) -> list[str]:
    return [message["content"] for message in body["messages"]]


def test_a_full_context_slides_and_says_so(reader: Reader) -> None:
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
    expect(page.locator("#notices")).to_contain_text("上下文已满")
    expect(page.locator(".problem")).to_have_count(0)


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
    expect(page.locator(".problem")).to_contain_text("shorten it")
    assert len(reader.server.requests) == 1


def test_the_box_lives_after_a_first_load_that_failed(reader: Reader) -> None:
    models, reader.server.models = reader.server.models, Script(status=500, message="broken")
    page = reader.page
    page.goto(reader.server.address)
    expect(page.locator("#notices")).to_contain_text("服务器出错")
    reader.ask("喂")
    expect(page.locator("#message")).to_have_value("喂")
    reader.server.models = models
    page.locator("#message").press("Enter")
    expect(reader.answered()).to_contain_text("好的。")
    expect(page.locator("#model")).to_have_value("sft")


def test_a_cancelled_key_is_asked_for_again(reader: Reader) -> None:
    reader.server.key = "secret"
    page = reader.page
    page.goto(reader.server.address)
    page.locator("dialog input").press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    reader.ask("喂")
    page.locator("dialog input").fill("secret")
    page.locator("dialog input").press("Enter")
    expect(reader.answered()).to_contain_text("好的。")


def test_a_question_without_an_answer_is_not_sent_again(reader: Reader) -> None:
    scripts = [Script(status=500), chat("好了")]
    reader.server.answer = lambda _: scripts.pop(0)
    page = reader.open()
    reader.ask("甲")
    expect(page.locator(".problem")).to_be_visible()
    reader.ask("乙")
    reader.answered(2)
    assert contents(reader.server.requests[-1]) == ["乙"]


def test_a_base_model_in_chat_mode_is_said(reader: Reader) -> None:
    assert isinstance(reader.server.models, list)
    reader.server.models = reader.server.models[1:]
    page = reader.open()
    expect(page.locator("#notices")).to_contain_text("基座模型")
