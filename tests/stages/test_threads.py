"""Every verb that computes hands `threads` to torch, in the thread that will compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mengya.config import load_config
from mengya.errors import UserError
from mengya.stages import chat, evaluate
from mengya.stages.dpo import DpoConfig
from mengya.stages.pretrain import PretrainConfig
from mengya.stages.sft import SftConfig
from mengya.training.execution import resolve_execution


@pytest.fixture
def more(tmp_path: Path) -> Iterator[int]:
    """More threads than there are; later tests find those that they would have had."""
    before = torch.get_num_threads()
    yield before + 1
    torch.set_num_threads(before)


@pytest.mark.parametrize("verb", [chat.run, evaluate.measure])
def test_chat_and_evaluate(verb: Callable[[Any], Any], more: int, tmp_path: Path) -> None:
    config = chat.ChatConfig if verb is chat.run else evaluate.EvaluateConfig
    values = [f"checkpoint={tmp_path / 'none'}", "device=cpu", f"threads={more}"]
    values += ["texts=[none.txt]"] if verb is evaluate.measure else []
    with pytest.raises(UserError, match="none"):
        verb(load_config(config, None, values))
    assert torch.get_num_threads() == more


@pytest.mark.parametrize("config", [PretrainConfig, SftConfig, DpoConfig])
def test_training(config: type[Any], more: int, tmp_path: Path) -> None:
    values = {
        "run_dir": tmp_path / "run", "data": {"train": ["shards"]}, "max_steps": 1,
        "init_from": tmp_path / "base", "device": "cpu", "threads": more,
    }  # fmt: skip
    resolve_execution(load_config(config, None, values))
    assert torch.get_num_threads() == more
