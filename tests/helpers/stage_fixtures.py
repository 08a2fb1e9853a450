"""A tokenizer, shards of every kind and a small model folder: all that a stage needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ["小满", "阿木", "春生", "秋棠", "大河", "云朵"]
THINGS = ["苹果", "毛笔", "雨伞", "馒头", "风筝", "茶叶"]
MODEL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip


@dataclass(frozen=True)
class StageFixtures:
    """Paths of everything a stage needs.

    Attributes:
        tokenizer, base: the tokenizer folder and a model folder with random weights.
        shards: kind -> (train, validation) shard folders.
    """

    tokenizer: Path
    base: Path
    shards: dict[str, tuple[Path, Path]]

    def settings(self, kind: str, run_dir: Path, **more: Any) -> dict[str, Any]:
        """A small run on the shards of `kind`: 40 steps on the CPU."""
        train, validation = self.shards[kind]
        return {
            "run_dir": run_dir,
            "data": {"train": [str(train)], "validation": [str(validation)], "sequence_length": 128},
            "micro_batch_size": 2, "global_batch_size": 4, "max_steps": 40,
            "loop": {"log_every": 1, "eval_every": 20, "save_every": 20, "sample_every": 20},
            "device": "cpu", "precision": "fp32", "trackers": [],
            **({"tokenizer": self.tokenizer} if kind == "text" else {"init_from": self.base}),
            **more,
        }  # fmt: skip


def sentence(number: int) -> str:
    name, thing = NAMES[number % 6], THINGS[number // 6 % 6]
    return f"{name}在第{number}天买了{number % 9 + 1}个{thing}，{name}很高兴。"
