"""Completion mode: tokens, their probabilities and alternatives; the same of the prompt's tokens."""

from __future__ import annotations

import math

from playwright.sync_api import expect

from tests.helpers.page_reader import Reader
from tests.helpers.scripted_server import Script, completion

TOKENS = (
    ("春", None, {}),
    ("天", math.log(0.25), {"天": math.log(0.25), "风": math.log(0.5)}),
    ("来", math.log(0.9), {"来": math.log(0.9)}),
    ("bytes:\\xe4\\xba", math.log(0.5), {"bytes:\\xe4\\xba": math.log(0.5)}),
    ("bytes:\\x86", math.log(0.5), {}),
    ("。", math.log(0.001), {"，": math.log(0.8)}),
)


def start(reader: Reader, prompt: str) -> None:
    page = reader.open()
    page.locator("#completion-mode").click()
    page.locator("#prompt").fill(prompt)
    page.locator("#continue").click()
    page.locator("#continue").wait_for(state="visible")


def test_each_token_tells_its_probability_and_its_alternatives(reader: Reader) -> None:
    reader.server.answer = lambda _: completion(*TOKENS)
    start(reader, "春天")
    page = reader.page
    sent = reader.server.requests[0]
    assert (sent["prompt"], sent["echo"], sent["logprobs"], sent["max_tokens"]) == (
        "春天",
        True,
        5,
        64,
    )
    tokens = page.locator(".token")
    expect(tokens).to_have_text(
        ["春", "天", "来", "了", "", "。"]
    )  # a character of two tokens is joined
    expect(page.locator(".token.of-prompt")).to_have_text(["春", "天"])
    tokens.nth(1).hover()
    expect(page.locator(".card-head")).to_contain_text("25%")
    expect(page.locator(".alternative code")).to_have_text(["风", "天"])
    tokens.nth(0).hover()
    expect(page.locator(".card")).to_contain_text("没有概率")
    classes = [tokens.nth(i).get_attribute("class") or "" for i in (2, 1, 5)]
    steps = [int(names.split("surprise-")[1][0]) for names in classes]
    assert steps == sorted(set(steps)), "the less likely, the stronger the tint"
    expect(page.locator("#completion-result .counts")).to_contain_text("开头：平均 2.00 bit/token")


def test_arrow_keys_walk_and_an_alternative_continues_from_there(reader: Reader) -> None:
    reader.server.answer = lambda _: completion(*TOKENS)
    start(reader, "春天")
    page = reader.page
    page.locator(".ribbon").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".token.active")).to_have_text("。")
    page.locator(".alternative").first.click()
    expect(page.locator("#prompt")).to_have_value("春天来了，")
    page.locator("#continue").wait_for(state="visible")
    assert reader.server.requests[-1]["prompt"] == "春天来了，"


def test_without_echo_the_kept_text_is_prompt_and_continuation(reader: Reader) -> None:
    reader.server.answer = lambda _: completion(*TOKENS[2:3])
    page = reader.open()
    page.locator("#completion-mode").click()
    page.locator("#echo").uncheck()
    page.locator("#prompt").fill("春天")
    page.locator("#continue").click()
    expect(page.locator(".token")).to_have_text(["来"])
    expect(page.locator(".token.of-prompt")).to_have_count(0)
    page.get_by_role("button", name="追加到开头").click()
    expect(page.locator("#prompt")).to_have_value("春天来")


def test_refusals_and_missing_probabilities_are_said(reader: Reader) -> None:
    scripts = [
        Script(status=400, message="prompt too long"),
        Script([{"choices": [{"text": "x", "finish_reason": "stop"}]}]),
    ]
    reader.server.answer = lambda _: scripts.pop(0)
    start(reader, "春天")
    expect(reader.page.locator("#completion-result .problem")).to_contain_text("prompt too long")
    reader.page.locator("#continue").click()
    expect(reader.page.locator("#completion-result")).to_contain_text("没有返回概率")
