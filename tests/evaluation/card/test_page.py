"""card.html in the real Chromium: desktop and phone, both languages, hostile names, charts that zoom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from mengya.cli import read_arguments
from mengya.stages.report import ReportConfig, run
from tests.evaluation.card.life import add_loops, add_run, add_text
from tests.helpers.chromium import chromium

HOSTILE = '<img src=x onerror="alert(1)">\u202eevil</script><script>alert(2)</script>'
LONG = "长" * 20000
ANSWERS = {0: HOSTILE, 1: LONG, 2: "مرحبا بالعالم", 3: "👩‍👩‍👧‍👦🐉", 4: "", 5: "`|*_#\n> 引用"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def card(checkpoint: Path, tmp_path: Path) -> Path:
    """The folder of a card of two stages, one with a hostile name."""
    base = add_run(checkpoint, tmp_path / "life/base", "pretrain")
    name = "<b>微调&'\"" + "长名" * 40
    tuned = add_run(checkpoint, tmp_path / "life" / name, "sft", base)
    bits = [20.0 + i % 7 for i in range(20)]
    add_text(base, bits)
    add_text(tuned, [each + 6 for each in bits])
    add_loops(base, 40, answers=ANSWERS)
    add_loops(tuned, 10, answers=ANSWERS)
    arguments = [str(tmp_path / "life"), "measure=false"]
    run(read_arguments(ReportConfig, "stages", arguments))
    return tmp_path / "life/card"


def opened(browser: Browser, card: Path, complaints: list[str], phone: bool = False) -> Page:
    size = {"width": 390, "height": 780} if phone else {"width": 1280, "height": 900}
    context = browser.new_context(viewport=size, is_mobile=phone, has_touch=phone)  # type: ignore[arg-type]
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto((card / "card.html").as_uri())
    complaints += requested[1:]  # it asks for nothing but itself
    return page


def test_figures_marks_and_their_origin(browser: Browser, card: Path) -> None:
    complaints: list[str] = []
    page = opened(browser, card, complaints)
    headline = page.locator("#headline")
    expect(headline).to_contain_text("通用文本")
    cell = headline.locator("[data-row='loops/greedy'][data-stage='1']")
    expect(cell).to_contain_text("10.0%")
    expect(cell).to_contain_text("变好")  # in words, not by colour alone
    cell.click()
    details = page.locator("#details")
    for text in (
        "mengya evaluate CKPT",
        "7",
        "a slow CPU",
        "not checked for exam items",
        "5.5",
        "a note",
    ):
        expect(details).to_contain_text(text)
    page.keyboard.press("Escape")
    page.locator("#language").click()
    expect(cell).to_contain_text("better")
    expect(page.locator("h1")).to_have_text("Report card", use_inner_text=True)
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page.locator("#findings")).to_contain_text("bits per character")
    assert complaints == []


def test_hostile_names_and_answers_are_text(browser: Browser, card: Path) -> None:
    complaints: list[str] = []
    page = opened(browser, card, complaints)
    samples = page.locator("#samples")
    expect(samples).to_contain_text('<img src=x onerror="alert(1)">')
    expect(samples).to_contain_text("<U+202E>")
    expect(samples).to_contain_text("👩‍👩‍👧‍👦🐉")
    assert page.locator("img, #samples script, th b").count() == 0
    rtl = samples.locator("p[dir=auto]", has_text="مرحبا").first
    assert rtl.evaluate("node => getComputedStyle(node).direction") == "rtl"
    assert complaints == []
    text = (card / "card.md").read_text("utf-8")
    assert "<img" not in text.replace(r"\<img", "") and "<b>" not in text.replace(r"\<b\>", "")
    json.loads((card / "card.json").read_text("utf-8"))


@pytest.mark.parametrize("phone", [False, True])
def test_nothing_is_wider_than_the_screen(browser: Browser, card: Path, phone: bool) -> None:
    complaints: list[str] = []
    page = opened(browser, card, complaints, phone)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= (390 if phone else 1280)
    chart = page.locator(".chart").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None and box["width"] > 300
    assert complaints == []


def test_charts_zoom_compare_and_show_marks(browser: Browser, card: Path) -> None:
    complaints: list[str] = []
    page = opened(browser, card, complaints)
    chart = page.locator(".chart").first
    chart.scroll_into_view_if_needed()
    assert chart.locator("path.curve").count() == 4  # loss and held-out loss of two stages
    assert chart.locator(".mark-symbol", has_text="▲").count() == 2
    assert chart.locator(".mark-symbol", has_text="┊").count() == 4
    box = chart.bounding_box()
    assert box is not None

    def ticks() -> list[str]:
        return chart.locator("text[text-anchor=middle]:not(.mark-symbol)").all_text_contents()

    before, other = ticks(), page.locator(".chart").nth(1)
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 100, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, middle, steps=4)
    page.mouse.up()
    assert ticks() != before
    zoomed = other.locator("text[text-anchor=middle]:not(.mark-symbol)").all_text_contents()
    assert zoomed == ticks()  # one axis for all charts
    page.mouse.move(box["x"] + 300, middle)
    expect(chart.locator(".tip")).to_contain_text("loss")
    chart.dblclick()
    assert ticks() == before
    page.locator("#stages .chip").first.click()
    assert chart.locator("path.curve").count() == 2
    page.locator("[data-mode=tokens]").click()
    assert any("k" in tick for tick in ticks())
    page.locator("#log").click()
    assert chart.locator("path.curve").count() == 2
    assert complaints == []


def test_two_fingers_zoom_on_a_phone(browser: Browser, card: Path) -> None:
    complaints: list[str] = []
    page = opened(browser, card, complaints, phone=True)
    chart = page.locator(".chart").first
    chart.evaluate("node => node.scrollIntoView({block: 'center'})")
    box = chart.bounding_box()
    assert box is not None
    middle, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def between_ticks() -> float:
        """Of the horizontal axis: less where the chart is zoomed in."""
        texts = chart.locator("text[text-anchor=middle]:not(.mark-symbol)").all_text_contents()
        first, second, *_ = map(float, texts)
        return second - first

    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *apart: float) -> None:
        points = [{"x": middle + each, "y": y, "id": i} for i, each in enumerate(apart)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    before = between_ticks()
    fingers("touchStart", -30, 30)
    for apart in (45, 60, 90):
        fingers("touchMove", -apart, apart)
    fingers("touchEnd")
    assert between_ticks() < before
    assert complaints == []


def test_the_theme_follows_the_reader(browser: Browser, card: Path) -> None:
    page = opened(browser, card, [])
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.locator("#theme").click()
    assert page.evaluate(paper) != light


def test_the_card_measures_what_is_missing(checkpoint: Path, tmp_path: Path) -> None:
    add_run(checkpoint, tmp_path / "life/base", "pretrain")
    arguments = [
        str(tmp_path / "life/base"), "evaluate.yardsticks=reference_text", "evaluate.yardstick.limit=1",
        "evaluate.device=cpu", "language=en", f"out={tmp_path / 'card'}",
    ]  # fmt: skip
    run(read_arguments(ReportConfig, "stages", arguments))
    first = {file.name: file.read_bytes() for file in (tmp_path / "card").glob("card.*")}
    values = json.loads(first["card.json"])
    assert any(row["name"] == "reference_text/law" for row in values["rows"])
    assert "mengya report" in values["command"] and "# Report card" in first["card.md"].decode()
    run(read_arguments(ReportConfig, "stages", arguments))
    assert {file.name: file.read_bytes() for file in (tmp_path / "card").glob("card.*")} == first
