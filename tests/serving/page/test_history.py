"""Conversations in the browser's storage: they survive, and are renamed, removed, exported, imported."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import expect

from tests.helpers.page_reader import Reader
from tests.helpers.scripted_server import chat


def test_conversations_survive_a_reload_and_can_be_renamed_and_removed(reader: Reader) -> None:
    page = reader.open()
    reader.ask("第一个")
    reader.answered()
    page.locator("#new-chat").click()
    reader.ask("第二个")
    reader.answered()
    page.reload()
    expect(page.locator(".entry")).to_have_text(["第二个", "第一个"])
    expect(page.locator(".bubble")).to_have_text("第二个")
    page.locator(".entry").nth(1).click()
    expect(page.locator(".bubble")).to_have_text("第一个")
    expect(page).to_have_title("第一个 · 萌芽 · 对话")
    page.locator("li.current [aria-label=重命名]").click()
    page.locator("dialog input").fill("新名字")
    page.locator("dialog input").press("Enter")
    expect(page.locator("li.current .entry")).to_have_text("新名字")
    page.locator("#search").fill("第二")
    expect(page.locator(".entry")).to_have_text(["第二个"])
    page.locator("#search").fill("第三")
    expect(page.locator("#history-none")).to_have_text("没有包含“第三”的对话。")
    page.locator("#search").fill("")
    page.locator("li.current [aria-label=删除]").click()
    page.locator("dialog .danger").click()
    expect(page.locator(".entry")).to_have_text(["第二个"])
    page.reload()
    expect(page.locator(".entry")).to_have_text(["第二个"])


def test_export_and_import_give_the_same_conversation(reader: Reader, tmp_path: Path) -> None:
    reader.server.answer = lambda _: chat("答案", usage=(3, 9))
    page = reader.open()
    reader.ask("问题")
    reader.answered()
    with page.expect_download() as saved:
        page.locator("li.current [aria-label='导出 JSON']").click()
    file = tmp_path / "x.json"
    saved.value.save_as(file)
    with page.expect_download() as written:
        page.locator("li.current [aria-label='导出 Markdown']").click()
    text = Path(written.value.path()).read_text(encoding="utf-8")
    assert "## 你\n\n问题\n\n## sft\n\n答案" in text
    page.locator("li.current [aria-label=删除]").click()
    page.locator("dialog .danger").click()
    page.locator("#import-file").set_input_files(file)
    page.locator(".entry").click()
    expect(page.locator(".reply")).to_contain_text("答案")
    expect(page.locator(".counts")).to_contain_text("9 个 token")
    with page.expect_download() as again:
        page.locator("li.current [aria-label='导出 JSON']").click()
    first, second = (
        json.loads(Path(path).read_text(encoding="utf-8"))["conversations"][0]
        for path in (file, again.value.path())
    )
    assert first["id"] != second["id"]
    assert {**first, "id": ""} == {**second, "id": ""}


def test_a_full_storage_is_reported_and_the_conversation_continues(reader: Reader) -> None:
    page = reader.open()
    page.evaluate(
        """() => {
          for (let size = 1 << 22; size >= 1; size >>= 1) {
            try {
              for (let i = 0; ; i++) localStorage.setItem(`fill${size}.${i}`, "x".repeat(size));
            } catch {}
          }
        }"""
    )
    reader.ask("还能说话吗？")
    expect(reader.answered()).to_contain_text("好的。")
    expect(page.locator(".notice.trouble")).to_contain_text("存储空间已满")


def test_another_tab_sees_what_this_one_wrote(reader: Reader) -> None:
    page = reader.open()
    other = page.context.new_page()
    other.goto(reader.server.address)
    reader.ask("从另一个标签页来")
    reader.answered()
    expect(other.locator(".entry")).to_have_text(["从另一个标签页来"])
