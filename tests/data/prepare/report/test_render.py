"""report.html: every section in two languages, nothing from outside, and no text that the page would run."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

from mengya.data.prepare.report.render import Language
from mengya.data.prepare.report.render import render_report as render
from mengya.data.prepare.report.words import say_reason
from mengya.runtime.yaml_values import load_yaml
from mengya.text.scripts import SCRIPTS
from tests.helpers.chromium import chromium

HOSTILE = (
    "</style><script>alert(1)</script><img src=x onerror=alert(2)>\x00\x1b[31m\u202e{{ 7*7 }}&lt;"
)


def render_report(values: dict[str, Any], css: str, language: Language = "en") -> str:
    return render(values, css, language)


def example(text: str, **more: Any) -> dict[str, Any]:
    return {"file": f"data/{text}.jsonl", "line": 3, "text": text, **more}


def facts(text: str) -> dict[str, Any]:
    """Values of data_report.json in which every text is `text`."""
    source = {
        "name": text,
        "read": 12,
        "bad": 1,
        "bad_lines": [{"file": text, "line": 1, "reason": text}],
        "dropped": {text: {"samples": 5, "characters": 500, "examples": [example(text)] * 12}},
        "edits": {text: {"samples": 2, "examples": [example(text, before=f"a{text}b")]}},
        "cut_turns": 0,
        "unused_fields": {},
        "kept": {
            "samples": 6,
            "held_out": 2,
            "characters": 1500,
            "learned_characters": 900,
            "tokens": 1200,
            "learnt_tokens": 700,
            "examples": [example(text)],
        },
    }
    pair = {"similarity": 0.9, "dropped": example(text), "kept": example(text)}
    exam = {"name": text, "items": 50, "contaminated": 4, "documents": 3}
    files = [{"path": text, "bytes": 12345, "sha256": "ab" * 32}]
    return {
        "format": 1,
        "kind": "conversation",
        "sources": [source],
        "histograms": {
            "characters": [{"from": 64, "to": 127, "samples": 4}],
            "tokens": [{"from": 64, "to": 127, "samples": 6}],
            "turns": [{"from": 10, "to": None, "samples": 6}],
            "chinese": [{"from": 0.9, "to": 1.0, "samples": 6}],
            "scripts": {"han": 90, "latin": 10},
        },
        "licenses": [
            {"source": text, "license": text, "characters": 1500, "share": 1.0, "files": files}
        ],
        "placeholders": [
            {"source": text, "placeholder": text, "samples": 3, "examples": [example(text)]}
        ],
        "near_duplicates": {
            "method": text, "threshold": 0.85, "permutations": 128, "ngram": 5, "action": text,
            "near": 4, "dropped": 3, "near_both_splits": 1, "moved": 1, "pairs": [pair],
        },
        "contamination": {"ngram": 13, "action": text, "exams": [exam]},
    }  # fmt: skip


class Tags(HTMLParser):
    """The tags of a page, and the text of all that is not in another language."""

    def __init__(self, language: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden, self._open = f'lang="{"en" if language == "zh" else "zh"}"', [False]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "span":
            self._open.append(self._hidden in (self.get_starttag_text() or ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "span":
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text += "" if any(self._open) else data


def parsed(page: str, language: str = "en") -> Tags:
    tags = Tags(language)
    tags.feed(page)
    return tags


def test_every_section_is_there() -> None:
    page = parsed(render_report(facts("小镇"), "body { color: red }"))
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert ids >= {
        "funnel", "sources", "dropped", "kept", "edits", "placeholders", "histograms", "near",
        "contamination", "licenses", "bad",
    }  # fmt: skip
    links = {str(a["href"])[1:] for tag, a in page.tags if tag == "a"}
    assert links <= ids
    text = " ".join(page.text.split())  # no-break spaces too
    for shown in ("12 records read, 1 bad", "2 conversations held out", "10 or more", "12.3 KB", "4 8.0 %",
                  "6 conversations kept, 54.5 %", "1,500 characters kept, 75.0 %"):  # fmt: skip
        assert shown in text, shown
    assert page.text.count("data/小镇.jsonl:3") >= 10


def test_sections_without_facts_are_left_out() -> None:
    without = copy.deepcopy(facts("小镇"))
    for key in ("placeholders", "near_duplicates", "contamination"):
        del without[key]
    without["sources"][0] |= {"dropped": {}, "edits": {}, "bad": 0, "bad_lines": []}
    without["histograms"] |= {"turns": [], "chinese": [], "scripts": {}}
    page = parsed(render_report(without, ""))
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert not ids & {"dropped", "edits", "placeholders", "near", "contamination", "bad"}


def test_hostile_text_stays_text() -> None:
    page = render_report(facts(HOSTILE), "")
    plain, hostile = parsed(render_report(facts("小镇"), "")), parsed(page)
    assert hostile.tags == plain.tags  # nothing of the data became a tag or an attribute
    assert "<script>alert(1)</script>" in hostile.text and "{{ 7*7 }}" in hostile.text
    assert not re.search("[\x00\x1b\u202e]", page)


def test_a_file_name_that_is_not_utf8_can_be_written() -> None:
    assert "\ufffd" in render_report(facts("a\udcffb"), "").encode().decode()


def test_nothing_comes_from_outside_and_nothing_runs() -> None:
    page = render_report(facts("小镇"), "")
    tags = parsed(page).tags
    assert not {tag for tag, _ in tags} & {"script", "img", "link", "iframe", "object", "form"}
    assert not re.search(r"https?:|//|@import|url\(", page)
    policy = next(a["content"] for t, a in tags if t == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_an_edit_shows_what_was_removed_and_what_was_put_there() -> None:
    with_edit = facts("小镇")
    edit = with_edit["sources"][0]["edits"]["小镇"]["examples"][0]
    edit |= {"before": "电话13812345678。", "text": "电话【手机号】。"}
    page = render_report(with_edit, "")
    assert "电话<del>13812345678</del><ins>【手机号】</ins>。" in page


def test_a_source_names_only_the_reasons_that_dropped_something_of_it() -> None:
    two = facts("小镇")
    other = copy.deepcopy(two["sources"][0]) | {"name": "别处"}
    other["dropped"] = {"garbage": {"samples": 7, "characters": 70, "examples": []}}
    two["sources"].append(other)
    text = " ".join(parsed(render_report(two, "")).text.split())
    assert "5 小镇 (500)" in text and "7 garbage (70)" in text
    assert text.count("7 garbage (70)") == 1


def test_every_section_is_in_chinese_too() -> None:
    page = render_report(facts("小镇"), "", "zh")
    text = " ".join(parsed(page, "zh").text.split())
    for shown in ("12 条记录，其中坏行 1", "2 段对话留作验证集", "10 及以上", "段对话保留，占 54.5 %",
                  "4 段对话与更早的一份近似：丢弃 3（其中与训练、验证两边都近似的 1）"):  # fmt: skip
        assert shown in text, shown


def test_words_are_said_in_two_languages_and_none_is_left_over() -> None:
    folder = files("mengya.data.prepare.report")
    page = folder.joinpath("templates/report.html.jinja").read_text("utf-8")
    plain = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|<[^>]*>", "", page, flags=re.DOTALL)
    assert re.findall("[A-Za-z]{2,}", plain) == []  # no word of one language alone
    words = load_yaml(folder.joinpath("templates/words.yaml").read_text("utf-8"))
    code = page + folder.joinpath("render.py").read_text("utf-8")
    said = {*re.findall(r'"(\w+)"', code), *SCRIPTS}
    said |= {f"chart_{name}" for name in ("characters", "tokens", "turns", "chinese", "scripts")}
    said |= {"text", "conversation", "preference"}
    assert not words.keys() - said and all(set(both) == {"zh", "en"} for both in words.values())


def test_reasons_keep_their_names_and_get_a_meaning() -> None:
    assert (
        say_reason("too_short").zh == "过短 too_short" and say_reason("too_short").en == "too_short"
    )
    assert say_reason("<my reason>").zh == say_reason("<my reason>").en == "&lt;my reason&gt;"


def test_the_switch_shows_one_language(tmp_path: Path) -> None:
    css = files("mengya.web").joinpath("page/base.css").read_text("utf-8")
    file = tmp_path / "report.html"
    file.write_text(render_report(facts("小镇"), css, "zh"), "utf-8")
    with chromium() as browser:
        page = browser.new_page()
        page.goto(file.as_uri())
        assert page.title() == "数据报告"
        assert "段对话保留" in page.inner_text("main") and "kept" not in page.inner_text(".tiles")
        page.click("text=English")
        assert "conversations kept" in page.inner_text("main")
        assert "保留" not in page.inner_text(".tiles")
        page.focus("#en")
        page.keyboard.press("ArrowLeft")
        assert "段对话保留" in page.inner_text("main")


def test_a_text_of_which_edits_left_nothing_is_no_blank_example() -> None:
    emptied = facts("小镇")
    emptied["sources"][0]["dropped"]["empty"] = {
        "samples": 1, "characters": 0, "examples": [example("")],
    }  # fmt: skip
    assert "(no text left)" in parsed(render_report(emptied, "")).text
    assert "(no text left)" not in parsed(render_report(facts("小镇"), "")).text
