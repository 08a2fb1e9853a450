"""A server whose model really calls tools and thinks, once for all kinds of clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from transformers import PreTrainedTokenizerFast

from mengya.generation.batch.engine import BatchEngine, EngineConfig
from mengya.serving.runtime.served import Served, ServedName
from tests.helpers.learned_chat import learned_model
from tests.helpers.live_server import Running, serving


@pytest.fixture(scope="session")
def learned_server(tokenizer: PreTrainedTokenizerFast) -> Iterator[Running]:
    model = learned_model(tokenizer)

    def load() -> Served:
        return Served(
            BatchEngine(model, EngineConfig()), model, tokenizer, {"tiny": ServedName("chat")}
        )

    with serving(tokenizer, load=load) as running:
        yield running
