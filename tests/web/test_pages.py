"""The files of a page as a browser gets them: every import is there, every word is in both languages."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from mengya.serving.app import PAGE
from mengya.web.app import make_app
from mengya.web.gate import Traffic
from mengya.web.pages import KIT, add_page
from mengya.web.settings import WebSettings

WORD = re.compile(r'^ +(\w+): "(.*)",$', re.MULTILINE)


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = make_app(WebSettings(), Traffic(), None)
    add_page(app, PAGE)
    return TestClient(app, base_url="http://127.0.0.1")


def named_in(path: str, name: str) -> str:
    """The path of what a file names relative to itself."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), name))


def test_every_file_that_the_page_asks_for_is_served(client: TestClient) -> None:
    index = client.get("/")
    found = set(re.findall(r'(?:src|href)="([\w/.]+)"', index.text))
    todo, seen = list(found), set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        response = client.get(f"/{path}")
        assert response.status_code == 200, path
        if path.endswith(".js"):
            assert response.headers["content-type"].startswith("text/javascript")
            imports = re.findall(r'^(?:import|\}) .*from "([^"]+)";$', response.text, re.MULTILINE)
            imports += re.findall(r'\bimport\("([^"]+)"\)', response.text)
            todo += [named_in(path, name) for name in imports]
            todo += re.findall(r'\bhref: "([^"]+)"', response.text)  # relative to the page
        elif path.endswith(".css"):
            todo += [
                named_in(path, url) for url in re.findall(r"url\(([^)]+\.woff2)\)", response.text)
            ]
        elif path.endswith(".woff2"):
            assert response.headers["content-type"] == "font/woff2"
    files = {path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*.*")} - {"index.html"}
    files -= {path for path in files if path.endswith((".md", "OFL.txt"))}  # for people
    kit = {f"kit/{path.name}" for path in KIT.iterdir()}
    assert files | kit == seen, "a file that nothing asks for, or one from elsewhere"


def test_headers_and_addresses_of_the_api(client: TestClient) -> None:
    for path in ("/", "/kit/dom.js", "/chat/chat.js"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    again = client.get("/app.js", headers={"If-None-Match": client.get("/app.js").headers["etag"]})
    assert again.status_code == 304
    for path in ("/v1", "/v1/app.js", "/kit/missing.js", "/kit/", "/kit/..%2fapp.py"):
        missing = client.get(path)
        assert missing.status_code == 404 and missing.json()["error"]["type"] == "not_found_error"


def words(text: str) -> dict[str, str]:
    return dict(WORD.findall(text))


def test_every_word_is_there_in_both_languages() -> None:
    kit = (KIT / "words.js").read_text(encoding="utf-8").split("export const ZH")
    pages = [(PAGE / "words" / f"{name}.js").read_text(encoding="utf-8") for name in ("en", "zh")]
    english, chinese = ({**words(k), **words(p)} for k, p in zip(kit, pages, strict=True))
    assert english.keys() == chinese.keys()
    for name, word in english.items():
        values = [sorted(re.findall(r"\{(\w+)\}", text)) for text in (word, chinese[name])]
        assert values[0] == values[1], name
    sources = [path for folder in (PAGE, KIT) for path in folder.rglob("*") if is_source(path)]
    used = {
        name
        for path in sources
        for name in re.findall(
            r'\bt\("(\w+)"|data-t(?:-label|-placeholder)?="(\w+)"', path.read_text(encoding="utf-8")
        )
    }
    missing = {name for pair in used for name in pair if name} - english.keys()
    assert not missing and len(used) > 50


def is_source(path: Path) -> bool:
    return path.suffix in (".js", ".html")
