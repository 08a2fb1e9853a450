"""Completions begin where the prompt ends, whatever the tokenizer merges there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from transformers import PreTrainedTokenizerFast

from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.generation.text_completion import (
    Start,
    completion_pieces,
    continue_texts,
    document_starts,
    heal,
)
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.tokenizer.load import document_token_id, stop_token_ids
from mengya.tokenizer.train import train_tokenizer
from tests.helpers.memorized_model import memorize
from tests.helpers.random_model import small_model

# Characters after 的 share two bytes, and what stands together becomes a token: most cuts are inside one.
TEXT = "春天来了，我们去看花。天的好，天的好，天的妽。"
GREEDY = SamplingParams(max_new_tokens=40, temperature=0)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    others = "".join(f"天的{chr(c)}，" for c in range(0x5900, 0x5980))
    return train_tokenizer([TEXT * 2, others * 2], 380, show_progress=False)


@pytest.fixture(scope="module")
def memorized(tokenizer: PreTrainedTokenizerFast) -> CausalLM:
    config = ModelConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    ids = [*document_starts(tokenizer, [TEXT])[0], document_token_id(tokenizer)]
    return memorize(config, [(ids, [1] * len(ids))])


def uncut(tokenizer: PreTrainedTokenizerFast, model: CausalLM, texts: Sequence[str]) -> list[str]:
    """The completions of the prompts as they are cut."""
    prompts = document_starts(tokenizer, texts)
    completions = generate(model, prompts, GREEDY, stop_token_ids(tokenizer))
    return [str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in completions]


def test_a_text_is_continued_wherever_it_is_cut(
    tokenizer: PreTrainedTokenizerFast, memorized: CausalLM
) -> None:
    prompts = [TEXT[:cut] for cut in range(len(TEXT))]
    rests = [TEXT[cut:] for cut in range(len(TEXT))]
    as_they_are = uncut(tokenizer, memorized, prompts)
    assert any(text.startswith("\ufffd") for text in as_they_are)  # begins inside a character
    assert sum(text == rest for text, rest in zip(as_they_are, rests, strict=True)) < len(TEXT) / 2
    healed = continue_texts(memorized, tokenizer, prompts, GREEDY)
    assert [p for p, text, rest in zip(prompts, healed, rests, strict=True) if text != rest] == []


def test_a_draw_is_repeatable_and_pieces_are_complete(tokenizer: PreTrainedTokenizerFast) -> None:
    model = small_model(vocab_size=len(tokenizer))
    seen = set()
    for seed in range(8):
        params = SamplingParams(max_new_tokens=8, temperature=1, seed=seed, top_p=1)
        (ids,) = document_starts(tokenizer, ["春天来了，"])
        start = heal(model, tokenizer, ids, params)
        assert start == heal(model, tokenizer, ids, params)
        raw = tokenizer.decode(start.ids[1:])
        assert str(raw).removesuffix("\ufffd").startswith("春天来了，")
        seen.add(tuple(start.ids))
        completion = generate(model, [start.ids], params, [])[0]
        pieces = list(completion_pieces(tokenizer, start, completion))
        assert all(pieces)
        assert continue_texts(model, tokenizer, ["春天来了，"], params)[0] == "".join(
            completion_pieces(
                tokenizer, start, generate(model, [start.ids], params, stop_token_ids(tokenizer))[0]
            )
        )
    assert len(seen) > 1


def test_control_tokens_and_empty_prompts_stay(
    tokenizer: PreTrainedTokenizerFast, memorized: CausalLM
) -> None:
    (empty,) = document_starts(tokenizer, [""])
    assert heal(memorized, tokenizer, empty, GREEDY) == Start(empty)
    turn = [*empty, tokenizer.get_vocab()["<|im_end|>"]]
    assert heal(memorized, tokenizer, turn, GREEDY) == Start(turn)
