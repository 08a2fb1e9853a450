"""A phone: Enter is a new line, a tap outside closes what lies over the page, nothing is too wide."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ViewportSize, expect

from tests.helpers.page_reader import Reader, listen
from tests.helpers.scripted_server import ScriptedServer, chat


@pytest.fixture
def phone(browser: Browser, server: ScriptedServer) -> Iterator[Reader]:
    size: ViewportSize = {"width": 390, "height": 780}
    context = browser.new_context(viewport=size, has_touch=True, is_mobile=True)
    reader = listen(context, server)
    yield reader
    context.close()
    assert reader.complaints == []


def test_enter_is_a_new_line_on_a_touch_keyboard(phone: Reader) -> None:
    page = phone.open()
    expect(page.locator("#message")).not_to_be_focused()  # or the keyboard would cover the page
    expect(page.locator("#message")).to_have_attribute("placeholder", "输入消息")
    page.locator("#message").tap()
    page.keyboard.type("一")
    page.keyboard.press("Enter")
    page.keyboard.type("二")
    assert phone.server.requests == []
    page.locator("#send").tap()
    phone.answered()
    assert phone.server.requests[0]["messages"][0]["content"] == "一\n二"


def test_a_tap_outside_closes_the_drawers(phone: Reader) -> None:
    page = phone.open()
    for button, panel, outside in (
        ("#open-menu", "#sidebar", 380),
        ("#open-settings", "#settings", 8),
    ):
        page.locator(button).tap()
        expect(page.locator(panel)).to_be_visible()
        page.touchscreen.tap(outside, 400)
        expect(page.locator(panel)).to_be_hidden()
        expect(page.locator("#veil")).to_be_hidden()


def test_nothing_is_wider_than_the_screen(phone: Reader) -> None:
    formula = "$$" + "+".join(f"x_{{{i}}}" for i in range(40)) + "$$"
    wide = f"{formula}\n\n| a |{' b |' * 12}\n|{'---|' * 13}"
    phone.server.answer = lambda _: chat(wide, finish="length")
    page = phone.open()
    page.locator("#message").fill("宽")
    page.locator("#send").tap()
    phone.answered()
    expect(page.locator(".katex").first).to_be_attached()
    page.wait_for_function(  # the end is in sight, with the formula drawn
        """() => {
          const log = document.querySelector("#log");
          return log.scrollHeight - log.scrollTop - log.clientHeight < 2;
        }"""
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#log").evaluate("log => log.scrollWidth <= log.clientWidth")
