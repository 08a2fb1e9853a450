"""What fails at the page leaves the reader able to continue: no models, no answer, a base model."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect

from tests.helpers.scripted_server import Script, chat
from tests.serving.page.conftest import Reader


def contents(body: dict[str, Any]) -> list[str]:
    return [message["content"] for message in body["messages"]]


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


def test_a_base_model_opens_in_completion_mode_with_the_reason(reader: Reader) -> None:
    assert isinstance(reader.server.models, list)
    reader.server.models = reader.server.models[1:]
    page = reader.open()
    expect(page.locator("#completion")).to_be_visible()
    expect(page.locator("#base-note")).to_contain_text("base 是基座模型")
    page.get_by_role("button", name="从前有一座山，").click()
    expect(page.locator("#prompt")).to_have_value("从前有一座山，")
    expect(page.locator("#completion-starters button")).to_have_count(0)
    page.locator("#chat-mode").click()  # whoever wants to chat may
    expect(page.locator("#notices")).to_contain_text("基座模型")
    reader.ask("喂")
    reader.answered()
    page.reload()
    expect(page.locator(".bubble")).to_be_visible()


def test_a_chat_model_is_chosen_before_the_base(reader: Reader) -> None:
    assert isinstance(reader.server.models, list)
    reader.server.models = reader.server.models[::-1]
    page = reader.open()
    expect(page.locator("#model")).to_have_value("sft")
    expect(page.locator("#chat")).to_be_visible()


def test_refusals_are_said_in_the_language_of_the_page(reader: Reader) -> None:
    reader.server.answer = lambda _: Script(
        status=400, message="top_k: too big", code="invalid_value", param="top_k"
    )
    page = reader.open()
    reader.ask("喂")
    expect(page.locator(".problem p").first).to_contain_text("top_k 的值不合要求")
    page.locator("#language").click()
    expect(page.locator(".problem p").first).to_contain_text("top_k has a value that cannot be")
