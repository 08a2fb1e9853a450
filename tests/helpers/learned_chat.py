"""Two conversations that a tiny model has memorized: one calls tools, one thinks before it answers."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerFast

from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.tokenizer.chat_template import encode_conversation
from tests.helpers.memorized_model import memorize

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "两数之和",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "now", "parameters": {"type": "object", "properties": {}}},
    },
]
ASKED = [{"role": "user", "content": "算"}]
CALLS = [
    {"type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}},
    {"type": "function", "function": {"name": "now", "arguments": "{}"}},
]
CALLED = [*ASKED, {"role": "assistant", "content": "我算🙂。", "tool_calls": CALLS}]
RESULTS = [{"role": "tool", "content": "3"}, {"role": "tool", "content": "8:00"}]
THOUGHT = [
    {"role": "user", "content": "想"},
    {"role": "assistant", "reasoning_content": "龘字难写", "content": "好的𠮷"},
]


def learned_model(tokenizer: PreTrainedTokenizerFast) -> CausalLM:
    """The model that knows both."""
    called = [*CALLED, *RESULTS, {"role": "assistant", "content": "是三。"}]
    samples = [
        encode_conversation(tokenizer, called, TOOLS),
        encode_conversation(tokenizer, THOUGHT),
    ]
    config = ModelConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
    )  # fmt: skip
    return memorize(config, samples)
