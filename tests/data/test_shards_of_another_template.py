"""Shards that another chat template or document token made are refused, before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mengya.data.shards import TokenShards
from mengya.errors import UserError
from mengya.stages.prepare import PrepareConfig, run
from mengya.tokenizer.chat_template import chat_template_hash
from mengya.tokenizer.load import document_token_id, load_tokenizer, tokenizer_hash
from tests.helpers.json_lines import write_lines

RECORDS: dict[str, dict[str, str]] = {
    "text": {"text": "春天来了，花开了。"},
    "conversation": {"prompt": "问", "response": "答"},
}


def shards_of(tokenizer: Path, out: Path, kind: str, **more: Any) -> TokenShards:
    write_lines(out.parent / f"{kind}.jsonl", [RECORDS[kind]])
    config = {
        "out": out,
        "tokenizer": tokenizer,
        "kind": kind,
        "sources": str(out.parent / f"{kind}.jsonl"),
        "workers": 1,
        **more,
    }
    run(PrepareConfig.model_validate(config))
    return TokenShards(out)


def require(shards: TokenShards, model: Path) -> None:
    tokenizer = load_tokenizer(model)
    shards.require(
        "conversation",
        "text",
        tokenizer_sha256=tokenizer_hash(model),
        chat_template_sha256=chat_template_hash(tokenizer),
        document_token_id=document_token_id(tokenizer),
    )


@pytest.fixture
def other_folder(tmp_path: Path, tokenizer_folder: Path) -> Path:
    """The same tokenizer.json with another template and another bos."""
    other = tmp_path / "other"
    shutil.copytree(tokenizer_folder, other)
    template = other / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("# 工具", "# Tools"), "utf-8")
    config = json.loads((other / "tokenizer_config.json").read_text("utf-8"))
    config["bos_token"] = "<|reserved_0|>"
    (other / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return other


@pytest.mark.parametrize(
    ("kind", "what"), [("text", "document token"), ("conversation", "chat template")]
)
def test_another_folder_with_the_same_vocabulary(
    tmp_path: Path, tokenizer_folder: Path, other_folder: Path, kind: str, what: str
) -> None:
    assert tokenizer_hash(tokenizer_folder) == tokenizer_hash(other_folder)
    shards = shards_of(other_folder, tmp_path / "out", kind)
    require(shards, other_folder)
    with pytest.raises(UserError, match=f"was made with {what} .*again with the tokenizer folder"):
        require(shards, tokenizer_folder)
    again = shards_of(tokenizer_folder, tmp_path / "again", kind)  # what the message says to do
    require(again, tokenizer_folder)
