"""The table of docs/data_sources.md is the registry."""

from __future__ import annotations

import re

import pytest

from mengya.data.hub.corpus import Corpus
from mengya.data.hub.registry import OWN, load_registry
from tests.helpers.doc_page import ROOT, read

HEADS = {
    "docs/data_sources.md": ("name", "kind", "Hugging Face", "ModelScope", "size", "license on its page"),
    "docs/data_sources.zh.md": ("名称", "种类", "Hugging Face", "魔搭 ModelScope", "大小", "页面上的许可证"),
}  # fmt: skip
KINDS = {"text": "文本", "conversation": "对话", "preference": "偏好", "exam": "评测"}
PLACE = re.compile(r"(<!-- the registry.*?-->\n).*?(<!-- end -->)", re.DOTALL)


def table(page: str) -> str:
    heads = HEADS[page]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [row(name, corpus, page) for name, corpus in load_registry().items()]
    return "\n".join(lines) + "\n"


def row(name: str, corpus: Corpus, page: str) -> str:
    kind = KINDS[corpus.kind] if page.endswith(".zh.md") else corpus.kind
    where = [f"`{repo}`" if repo else "-" for repo in (corpus.huggingface, corpus.modelscope)]
    if corpus.page:
        where[0] = f"[{corpus.page.split('/')[2]}]({corpus.page})"
    cells = (f"`{name}`", kind, *where, corpus.size or "-", corpus.license or "-")
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("page", HEADS)
def test_the_table_is_the_registry(
    page: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(OWN))
    monkeypatch.delenv("MENGYA_REGISTRY", raising=False)
    text = read(page)
    expected = PLACE.sub(lambda match: match[1] + table(page) + match[2], text)
    if request.config.getoption("--rewrite-pages"):
        (ROOT / page).write_text(expected, encoding="utf-8")
    else:
        assert text == expected
