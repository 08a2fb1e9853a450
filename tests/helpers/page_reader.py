"""Somebody at a page in a browser, who keeps the console's errors."""

from __future__ import annotations

from dataclasses import dataclass, field

from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
)

from tests.helpers.scripted_server import ScriptedServer


@dataclass
class Reader:
    """Somebody at the page: what they do, and what the browser complained of."""

    page: Page
    server: ScriptedServer
    complaints: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def open(self) -> Page:
        self.page.goto(self.server.address)
        self.page.wait_for_function("() => document.querySelector('#model').value")
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
