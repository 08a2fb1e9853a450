"""A long text has the ids of the uncut text under tokenizers that write something at every start."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mengya.data.prepare.encoding.tokenize import TOKENIZE_CHARACTERS
from mengya.data.shards import TokenShards
from mengya.stages.prepare import PrepareConfig, run
from tests.data.conftest import TEXT
from tests.helpers.json_lines import write_lines

LLAMA = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
TOKENIZERS = {
    "prepend": (LLAMA, None),
    "metaspace": (None, pre_tokenizers.Metaspace(prepend_scheme="first")),
    "byte_level": (None, pre_tokenizers.ByteLevel(add_prefix_space=True)),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_of_the_uncut_text(tmp_path: Path, name: str) -> None:
    normalizer, split = TOKENIZERS[name]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    if normalizer is not None:
        backend.normalizer = normalizer
    if split is not None:
        backend.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>"], show_progress=False
    )
    backend.train_from_iterator([TEXT] * 20, trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>").save_pretrained(
        tmp_path / "t"
    )
    text = (TEXT + "\n") * 1500
    assert len(text) > 2 * TOKENIZE_CHARACTERS
    write_lines(tmp_path / "a.jsonl", [{"text": text}])
    config = {
        "out": tmp_path / "out",
        "tokenizer": tmp_path / "t",
        "sources": str(tmp_path / "a.jsonl"),
        "workers": 1,
    }
    run(PrepareConfig.model_validate(config))
    ids = TokenShards(tmp_path / "out").tokens(0).tolist()
    assert ids[1:-1] == backend.encode(text.strip(), add_special_tokens=False).ids
