"""Two full models of a real server, compared side by side in the browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from transformers import PreTrainedTokenizerFast

from mengya.generation.batch.engine import EngineConfig
from mengya.serving.runtime.model_source import model_source
from mengya.serving.settings import SamplingDefaults, ServerSettings
from mengya.tokenizer.train import train_tokenizer
from tests.helpers.live_server import Running, serving
from tests.helpers.page_reader import Reader, listen
from tests.serving.test_models import PROSE, write_model


@pytest.fixture
def live(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Iterator[Running]:
    other = train_tokenizer([PROSE] * 2, 280, show_progress=False)
    short: dict[str, Any] = {"max_position_embeddings": 96}
    folders = {
        "sft": write_model(tmp_path / "sft", other, vocab_size=280, hidden_size=40, **short),
        "dpo": write_model(tmp_path / "dpo", tokenizer, num_hidden_layers=3, **short),
    }
    sources = {
        name: model_source(
            folder,
            name,
            kind="chat",
            device="cpu",
            threads=None,
            dtype="auto",
            batch=EngineConfig(),
        )
        for name, folder in folders.items()
    }
    # One at a time: the second answer waits for the first, and then for its model.
    settings = ServerSettings(sampling=SamplingDefaults(temperature=0), max_loaded_models=1)
    with serving(tokenizer, sources=sources, settings=settings) as running:
        yield running


def test_two_full_models_side_by_side(browser: Browser, live: Running) -> None:
    messages: Any = [{"role": "user", "content": "你好"}]
    expected = {}
    for name in ("dpo", "sft"):
        reply = live.client.chat.completions.create(model=name, messages=messages)
        assert reply.usage is not None
        expected[name] = reply.usage
    assert expected["dpo"].prompt_tokens != expected["sft"].prompt_tokens
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    server: Any = SimpleNamespace(address=f"{live.url}/")
    reader: Reader = listen(context, server)
    page = reader.open()
    assert page.locator("#model option").all_inner_texts() == ["tiny", "sft", "dpo"]
    page.locator("#model").select_option("sft")
    page.locator("#compare").click()
    page.locator("#second-model").select_option("dpo")
    reader.ask("你好")
    reader.answered(2)
    replies = page.locator(".reply")
    for place, name in enumerate(("sft", "dpo")):
        counts = replies.nth(place).locator(".counts")
        expect(counts).to_contain_text(f"{expected[name].completion_tokens} 个 token")
        expect(counts).to_contain_text(f"输入 {expected[name].prompt_tokens}")
    assert page.locator(".problem").count() == 0
    context.close()
    assert reader.complaints == []
