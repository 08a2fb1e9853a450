"""The page of mengya's own server: its headers, its starters, an answer that is continued."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, FilePayload, Page, expect
from transformers import PreTrainedTokenizerFast

from mengya.serving.settings import ServerSettings
from tests.helpers.live_server import Running, serving


@pytest.fixture(scope="module")
def own(tokenizer: PreTrainedTokenizerFast) -> Iterator[Running]:
    settings = ServerSettings(starters=["天上有什么？", "<b>地上</b>有什么？"])
    with serving(tokenizer, settings=settings) as running:
        yield running


@pytest.fixture
def page(browser: Browser, own: Running) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []

    def console(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    page.on("console", console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(own.url)
    yield page
    context.close()
    assert complaints == []


def test_its_starters_and_an_answer_that_is_continued(page: Page) -> None:
    expect(page.locator(".greeting .starter")).to_have_text(["天上有什么？", "<b>地上</b>有什么？"])
    page.locator(".greeting .starter").first.click()
    expect(page.locator("#message")).to_have_value("天上有什么？")
    page.locator("#open-settings").click()
    page.locator("#field-max_tokens").fill("5")
    page.locator("#field-seed").fill("3")
    page.locator("#send").click()
    more = page.get_by_role("button", name="继续回答")
    more.click()
    expect(page.locator(".counts")).to_contain_text("10 个 token")
    expect(page.locator("#gauge-words")).to_contain_text("/ 1024 token")


def test_its_policy_lets_the_renderer_draw(page: Page) -> None:
    reply = {
        "model": "tiny",
        "content": r"\[ \boxed{\frac{1}{2}} \]",
        "reasoning": "",
        "finish": "stop",
    }
    turn = {"id": "1", "parent": None, "after": [], "question": "?", "touched": 1, "chosen": [0]}
    kept = {"id": "a", "title": "t", "created": 1, "updated": 1, "system": "", "models": ["tiny"]}
    turns = [{**turn, "replies": [[{**reply, "toolCalls": []}]]}]
    form = {
        "format": "mengya-conversations",
        "version": 1,
        "conversations": [{**kept, "turns": turns}],
    }
    content = json.dumps(form).encode()
    file: FilePayload = {"name": "x.json", "mimeType": "application/json", "buffer": content}
    page.locator("#import-file").set_input_files([file])
    page.locator(".entry").click()
    expect(page.locator(".formula.drawn .frac-line")).to_be_attached()
    page.wait_for_function("() => [...document.fonts].some((font) => font.status === 'loaded')")
