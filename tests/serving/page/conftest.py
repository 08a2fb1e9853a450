"""The real Chromium, a fresh profile a test, and the scripted server.

Any error in the page's console fails the test.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.helpers.chromium import chromium
from tests.helpers.page_reader import Reader, listen
from tests.helpers.scripted_server import ScriptedServer, serving


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving() as server:
        yield server


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
