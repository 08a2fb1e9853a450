"""The real Chromium, a fresh profile a test, and the scripted server.

Any error in the page's console fails the test.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    sync_playwright,
)

from tests.helpers.scripted_server import ScriptedServer, serving

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving() as server:
        yield server


@dataclass
class Reader:
    """Somebody at the page: what they do, and what the browser complained of."""

    page: Page
    server: ScriptedServer
    complaints: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def open(self) -> Page:
        self.page.goto(self.server.address)
        self.page.wait_for_function("document.querySelector('#model').value")
        return self.page

    def ask(self, text: str) -> None:
        self.page.locator("#message").fill(text)
        self.page.locator("#message").press("Enter")

    def answered(self, count: int = 1) -> Locator:
        """The last reply, once as many replies are on the screen and complete."""
        done = self.page.locator(".reply[aria-busy=false]")
        done.nth(count - 1).wait_for()
        return done.nth(count - 1)


def listen(context: BrowserContext, server: ScriptedServer) -> Reader:
    reader = Reader(context.new_page(), server)

    def console(message: ConsoleMessage) -> None:
        # A refused request is reported there by the browser itself; tests of refusals look at the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            reader.complaints.append(message.text)

    reader.page.on("console", console)
    reader.page.on("pageerror", lambda error: reader.complaints.append(str(error)))
    reader.page.on("request", lambda request: reader.requested.append(request.url))
    reader.page.set_default_timeout(8_000)
    return reader


@pytest.fixture
def reader(browser: Browser, server: ScriptedServer) -> Iterator[Reader]:
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    reader = listen(context, server)
    yield reader
    context.close()
    assert reader.complaints == []
    outside = [
        url for url in reader.requested if not url.startswith((server.address, "blob:", "data:"))
    ]
    assert outside == [], "the page asked another host"
