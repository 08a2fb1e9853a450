"""/v1/completions, /v1/embeddings and /v1/models through the real openai client."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from transformers import AutoModelForCausalLM

from mengya.generation.batch.engine import EngineConfig
from mengya.models.adapters.adapter_set import AdapterSet
from mengya.models.adapters.lora import load_adapter
from mengya.models.hf.checkpoint import save_hf_folder
from mengya.tokenizer.load import document_token_id, encode_texts
from tests.helpers.live_server import CONTEXT, POEM, serving, tiny_model


def complete(client: openai.OpenAI, **settings: Any) -> Any:
    return client.completions.create(
        **{"model": "tiny", "prompt": "春眠", "max_tokens": 8, "temperature": 0, **settings}
    )


def ids_of(tokenizer, text: str) -> list[int]:
    return [document_token_id(tokenizer), *encode_texts(tokenizer, [text])[0]]


@torch.no_grad()
def logprobs_of(model, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids])).head_output[0].log_softmax(-1)


def test_forms_of_a_prompt(client: openai.OpenAI, tokenizer) -> None:
    ids = ids_of(tokenizer, "春眠")
    by_text = complete(client)
    assert complete(client, prompt=ids).choices[0].text == by_text.choices[0].text
    assert by_text.usage.prompt_tokens == len(ids)
    many = complete(client, prompt=["春眠", "处处"], n=2, temperature=1.0, seed=5)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    for place, (prompt, seed) in enumerate([("春眠", 5), ("春眠", 6), ("处处", 5), ("处处", 6)]):
        alone = complete(client, prompt=prompt, temperature=1.0, seed=seed)
        assert many.choices[place].text == alone.choices[0].text
    lists = complete(client, prompt=[ids, ids_of(tokenizer, "处处")])
    assert lists.choices[0].text == by_text.choices[0].text
    assert complete(client, max_tokens=openai.omit).usage.completion_tokens == 16
    assert complete(client, prompt="").usage.prompt_tokens == 1


def test_echo_scores_a_text(client: openai.OpenAI, tokenizer) -> None:
    """What lm-eval asks for: the log-probability of every token of a given text."""
    ids = ids_of(tokenizer, POEM)
    logprobs = logprobs_of(tiny_model(), ids)
    expected = [logprobs[i, token].item() for i, token in enumerate(ids[1:])]
    for limit in (0, 1):
        answered = complete(client, prompt=POEM, echo=True, logprobs=2, max_tokens=limit)
        choice = answered.choices[0]
        assert choice.text.startswith(POEM)
        assert choice.logprobs.token_logprobs[: len(expected)] == pytest.approx(expected, abs=1e-4)
        assert len(choice.logprobs.tokens) == len(expected) + limit
        assert answered.usage.completion_tokens == limit
        for offset, token in zip(choice.logprobs.text_offset, choice.logprobs.tokens, strict=True):
            if not token.startswith("bytes:"):
                assert choice.text[offset : offset + len(token)] == token
    by_ids = complete(client, prompt=ids, echo=True, logprobs=0, max_tokens=1)
    assert by_ids.choices[0].logprobs.token_logprobs[0] is None
    assert by_ids.choices[0].logprobs.token_logprobs[1:-1] == pytest.approx(expected, abs=1e-4)


def test_streams_join_to_the_full_reply(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"logprobs": 2, "echo": True, "max_tokens": 20, "n": 2, "seed": 1}
    full = complete(client, **settings)
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}, **settings))
    assert chunks[-1].choices == [] and chunks[-1].usage == full.usage
    for index, expected in enumerate(full.choices):
        mine = [c.choices[0] for c in chunks[:-1] if c.choices[0].index == index]
        assert "".join(choice.text for choice in mine) == expected.text
        assert mine[-1].finish_reason == expected.finish_reason
        for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
            joined = [x for c in mine if c.logprobs for x in getattr(c.logprobs, name)]
            wanted = getattr(expected.logprobs, name)
            if name in ("tokens", "text_offset"):
                assert joined == wanted
            assert len(joined) == len(wanted)


def test_a_short_prompt_is_answered_before_a_long_one_that_came_first(tokenizer) -> None:
    with serving(tokenizer, engine=EngineConfig(prefill_chunk=32)) as server:
        prompts = [[5 + n % 200 for n in range(900)], [5, 6, 7]]
        settings: dict[str, Any] = {"stream": True, "logit_bias": {"70": 100}}
        chunks = list(complete(server.client, prompt=prompts, **settings))
    order = [chunk.choices[0].index for chunk in chunks if chunk.choices[0].text]
    assert order == [1] * 8 + [0] * 8


def test_embeddings_are_the_mean_of_the_last_hidden_state(
    client: openai.OpenAI, tokenizer, tmp_path: Path
) -> None:
    """By hand, on transformers' class of the same weights."""
    model = tiny_model()
    save_hf_folder(model, model.config, tmp_path, bos_token_id=0, eos_token_id=[0], pad_token_id=3)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    texts = ["春眠不觉晓", "a"]
    answer = client.embeddings.create(model="tiny", input=texts)
    for text, found in zip(texts, answer.data, strict=True):
        with torch.no_grad():
            hidden = oracle.model(torch.tensor([ids_of(tokenizer, text)])).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        assert np.allclose(found.embedding, expected.numpy(), atol=1e-5)
    plain = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
    assert np.allclose(plain.data[0].embedding, answer.data[0].embedding, atol=1e-6)
    raw = client.embeddings.with_raw_response.create(
        model="tiny", input=[ids_of(tokenizer, "a")], encoding_format="base64"
    )
    packed = raw.http_response.json()["data"][0]["embedding"]
    assert np.allclose(np.frombuffer(base64.b64decode(packed), "<f4"), plain.data[1].embedding)
    assert answer.usage.prompt_tokens == sum(len(ids_of(tokenizer, t)) for t in texts)
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="tiny", input="a", dimensions=2)
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="tiny", input="字" * CONTEXT)
    assert caught.value.code == "context_length_exceeded"


def test_models(client: openai.OpenAI) -> None:
    (card,) = client.models.list().data
    assert card.id == "tiny" and card.owned_by == "mengya"
    assert card.model_extra is not None
    notes = card.model_extra["mengya"]
    assert notes.pop("memory_bytes") > 0
    assert notes == {
        "kind": "chat", "context": CONTEXT, "adapter": False, "starters": [], "loaded": True
    }  # fmt: skip
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_adapters_by_model_name(tokenizer, adapters: dict[str, Path]) -> None:
    """Each name gives its own adapter's logits, whoever shares the batch."""
    ids = ids_of(tokenizer, POEM)
    expected = {"tiny": logprobs_of(tiny_model(), ids)}
    for name, folder in adapters.items():
        expected[name] = logprobs_of(load_adapter(tiny_model(), folder).eval(), ids)
    assert (expected["poet"] - expected["tiny"]).abs().max() > 0.05
    assert (expected["poet"] - expected["clerk"]).abs().max() > 0.05
    with serving(tokenizer, adapters=adapters) as server:
        assert {card.id for card in server.client.models.list()} == set(expected)
        background = server.client.chat.completions.create(
            model="poet", messages=[{"role": "user", "content": "夜"}], max_tokens=200, stream=True
        )
        for _ in range(2):
            for name, logprobs in expected.items():
                answered = complete(
                    server.client, model=name, prompt=POEM, echo=True, logprobs=0, max_tokens=1
                )
                mine = [logprobs[i, token].item() for i, token in enumerate(ids[1:])]
                found = answered.choices[0].logprobs.token_logprobs[: len(mine)]
                assert found == pytest.approx(mine, abs=1e-3), name
        vectors = {
            name: np.array(
                server.client.embeddings.create(model=name, input=POEM).data[0].embedding
            )
            for name in expected
        }
        assert np.abs(vectors["tiny"] - vectors["poet"]).max() > 1e-3
        background.close()


def test_an_adapter_set_switches_back(adapters: dict[str, Path], tokenizer) -> None:
    model, ids = tiny_model(), ids_of(tokenizer, POEM)
    before = logprobs_of(model, ids)
    switch = AdapterSet(model, adapters)
    assert torch.equal(logprobs_of(model, ids), before)
    switch.select("poet")
    assert not torch.equal(logprobs_of(model, ids), before)
    switch.select("clerk")
    alone = logprobs_of(load_adapter(tiny_model(), adapters["clerk"]).eval(), ids)
    assert torch.allclose(logprobs_of(model, ids), alone, atol=1e-5)
    switch.select(None)
    assert torch.equal(logprobs_of(model, ids), before)
