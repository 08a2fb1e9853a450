"""No question of the validation split is in training, however many answers it has."""

from __future__ import annotations

from pathlib import Path

from mengya.data.shards import TokenShards
from mengya.stages.prepare import PrepareConfig, run
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.json_lines import write_lines


def questions(tokenizer_folder: Path, shards: TokenShards) -> set[str]:
    tokenizer = load_tokenizer(tokenizer_folder)
    texts = [str(tokenizer.decode(shards.tokens(i).tolist())) for i in range(len(shards))]
    return {text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0] for text in texts}


def test_three_answers_and_other_systems(tmp_path: Path, tokenizer_folder: Path) -> None:
    records = [
        {"question": f"第{i}问", "answer": f"第{k}答", "system": "简短" if k == 2 else ""}
        for i in range(100)
        for k in range(3)
    ]
    write_lines(tmp_path / "a.jsonl", records)
    config = {
        "out": tmp_path / "out",
        "tokenizer": tokenizer_folder,
        "kind": "conversation",
        "sources": str(tmp_path / "a.jsonl"),
        "validation_fraction": 0.2,
        "workers": 1,
    }
    run(PrepareConfig.model_validate(config))
    train, held = TokenShards(tmp_path / "out/train"), TokenShards(tmp_path / "out/validation")
    asked = [questions(tokenizer_folder, shards) for shards in (train, held)]
    assert not asked[0] & asked[1] and len(asked[0] | asked[1]) == 100
    assert len(train) == 3 * len(asked[0]) and len(held) == 3 * len(asked[1]) > 0
