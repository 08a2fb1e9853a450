"""A turn that its data set flags is shown to the model and not learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mengya.data.ingest.messages import SchemaError
from mengya.data.ingest.schema import to_conversation
from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig, run
from mengya.tokenizer.chat_template import encode_conversation
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.json_lines import write_lines


def turns(**flag: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "一"},
        {"role": "assistant", "content": "坏答", **flag},
        {"role": "user", "content": "二"},
        {"role": "assistant", "content": "好答"},
    ]


def prepare(tmp_path: Path, tokenizer: Path, record: Any, **more: Any) -> TokenShards:
    write_lines(tmp_path / "a.jsonl", [record])
    config: dict[str, Any] = {
        "out": tmp_path / "out",
        "tokenizer": tokenizer,
        "kind": "conversation",
        "sources": str(tmp_path / "a.jsonl"),
        "workers": 1,
        "overwrite": True,
        **more,
    }
    run(PrepareConfig.model_validate(config))
    return TokenShards(tmp_path / "out")


def learned(tokenizer_folder: Path, shards: TokenShards, document: int = 0) -> str:
    ids, mask = shards.tokens(document), shards.loss_mask(document)
    return str(load_tokenizer(tokenizer_folder).decode(np.asarray(ids)[mask == 1].tolist()))


@pytest.mark.parametrize(
    "flag", [{"weight": 0}, {"weight": 0.0}, {"loss": False}, {"train": 0}, {"loss_mask": 0}]
)
def test_flags(tmp_path: Path, tokenizer_folder: Path, flag: dict[str, Any]) -> None:
    shards = prepare(tmp_path, tokenizer_folder, {"messages": turns(**flag)})
    assert learned(tokenizer_folder, shards) == "好答<|im_end|>"
    tokenizer = load_tokenizer(tokenizer_folder)
    ids, _ = encode_conversation(tokenizer, turns())
    assert shards.tokens(0).tolist() == ids  # the flagged turn is still shown


@pytest.mark.parametrize("flag", [{}, {"weight": 1}, {"loss": None}, {"train": True}])
def test_turns_without_a_flag_are_learned(
    tmp_path: Path, tokenizer_folder: Path, flag: dict[str, Any]
) -> None:
    shards = prepare(tmp_path, tokenizer_folder, {"messages": turns(**flag)})
    assert learned(tokenizer_folder, shards) == "坏答<|im_end|>好答<|im_end|>"
    shards = prepare(tmp_path, tokenizer_folder, {"messages": turns(**flag)}, train_on="last_turn")
    assert learned(tokenizer_folder, shards) == "好答<|im_end|>"


def test_flags_under_a_template_without_generation_marks(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    template = str(tokenizer.chat_template)
    for mark in ("{%- generation -%}", "{%- endgeneration -%}"):
        template = template.replace(mark, "")
    messages = to_conversation({"messages": turns(weight=0)}).messages
    expected = encode_conversation(tokenizer, messages)
    tokenizer.chat_template = template
    assert encode_conversation(tokenizer, messages) == expected


def test_the_end_that_nothing_is_learned_of_is_cut() -> None:
    flagged = [
        *turns(),
        {"role": "user", "content": "三"},
        {"role": "assistant", "content": "x", "loss": 0},
    ]
    assert to_conversation({"messages": flagged}).messages == turns()


def test_a_conversation_of_flagged_turns_is_dropped(tmp_path: Path, tokenizer_folder: Path) -> None:
    with pytest.raises(UserError, match="nothing is left"):
        prepare(tmp_path, tokenizer_folder, {"messages": turns(weight=0)[:2]})


@pytest.mark.parametrize("flag", [{"weight": 0.5}, {"loss_mask": [0, 1]}, {"train": "no"}])
def test_other_values_are_refused(flag: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="only 0, 1, false and true"):
        to_conversation({"messages": turns(**flag)})


def test_preferences_learn_the_unflagged_turns_of_a_side(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    record = {"prompt": turns()[:3], "chosen": "好", "rejected": "坏"}
    shards = prepare(tmp_path, tokenizer_folder, record, kind="preference")
    assert [learned(tokenizer_folder, shards, side) for side in (0, 1)] == [
        "好<|im_end|>",
        "坏<|im_end|>",
    ]
