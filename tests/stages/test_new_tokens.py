"""Tokens that `mengya extend` added, under LoRA: the warning, its remedy, and what the folders say after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.planning.lint import lint_plan
from mengya.stages import extend, merge, prepare, sft
from mengya.stages.extend import ExtendConfig
from mengya.stages.merge import MergeConfig
from mengya.stages.plan import make_plan
from mengya.stages.prepare import PrepareConfig
from mengya.stages.sft import SftConfig
from mengya.tokenizer.added import AddedTokens, read_added
from mengya.tokenizer.load import load_tokenizer
from tests.helpers.stage_fixtures import StageFixtures

NEW = ["云朵很高兴", "买了三个"]
FIRST = 399


@pytest.fixture(scope="module")
def extended(fixtures: StageFixtures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two new tokens, and chats that use them in OUT/shards."""
    root = tmp_path_factory.mktemp("extended")
    words = [f"checkpoint={fixtures.base}", f"out={root / 'model'}", f"tokens={json.dumps(NEW)}"]
    extend.run(load_config(ExtendConfig, None, words))
    assert len(load_tokenizer(fixtures.base)) == FIRST
    lines = [
        {"prompt": f"第{i}天？", "response": f"第{i}天{NEW[i % 2]}，{NEW[(i + 1) % 2]}。"}
        for i in range(40)
    ]
    data = root / "chats.jsonl"
    data.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), "utf-8")
    prepare.run(
        load_config(PrepareConfig, None, [
            "kind=conversation", f"out={root / 'shards'}", f"tokenizer={root / 'model'}",
            f"sources={data}", "workers=1",
        ])
    )  # fmt: skip
    return root


def settings(fixtures: StageFixtures, root: Path, run_dir: Path, **more: Any) -> dict[str, Any]:
    values = fixtures.settings("conversation", run_dir, **more)
    loop = {"log_every": 1, "eval_every": 20, "save_every": 20, "sample_every": 20}
    return values | {
        "init_from": root / "model", "max_steps": 3, "loop": loop,
        "data": {"train": [str(root / "shards")], "sequence_length": 64},
        "optimizer": {"lr": 1e-2},
    }  # fmt: skip


def weights(folder: Path) -> torch.Tensor:
    return load_causal_lm(folder).model.embed_tokens.weight.detach()


def test_lora_without_the_new_rows_warns_and_the_remedy_trains_them(
    fixtures: StageFixtures, extended: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base = extended / "model"
    assert read_added(base) == AddedTokens((399, 400), (399, 400))
    values = settings(fixtures, extended, tmp_path / "without", lora={"rank": 2})
    sft.run(SftConfig(**values))
    said = capfd.readouterr().err
    assert "2 tokens that `mengya extend` added" in said
    assert "write lora.trainable_tokens=added" in said
    checkpoint = tmp_path / "without/checkpoints/latest"
    merge.run(MergeConfig(checkpoint=checkpoint, out=tmp_path / "still"))
    assert torch.equal(weights(tmp_path / "still"), weights(base))
    assert read_added(tmp_path / "still") == read_added(base)

    values = settings(
        fixtures, extended, tmp_path / "with", lora={"rank": 2, "trainable_tokens": "added"}
    )
    sft.run(SftConfig(**values))
    said = capfd.readouterr().err
    assert "with 2 token rows" in said and "untrained_tokens" not in said
    checkpoint = tmp_path / "with/checkpoints/latest"
    assert json.loads((checkpoint / "adapter_config.json").read_text())[
        "trainable_token_indices"
    ] == [399, 400]
    merge.run(MergeConfig(checkpoint=checkpoint, out=tmp_path / "merged"))
    moved = (weights(tmp_path / "merged") != weights(base)).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [399, 400]
    assert read_added(tmp_path / "merged") == AddedTokens((399, 400), ())
    # Trained once, they may be trained again by the same name, without a warning otherwise.
    for number, lora in enumerate(({}, {"trainable_tokens": "added"})):
        again = values | {"init_from": tmp_path / "merged", "run_dir": tmp_path / f"run{number}"}
        sft.run(SftConfig.model_validate(again | {"lora": lora, "max_steps": 1}))
    assert "untrained_tokens" not in capfd.readouterr().err


def test_a_plan_says_it_too_and_counts_the_rows(
    fixtures: StageFixtures, extended: Path, tmp_path: Path
) -> None:
    from mengya.config import save_config

    recipe = tmp_path / "sft.yaml"
    values = settings(fixtures, extended, tmp_path / "run", lora={"rank": 2})
    save_config(SftConfig(**values), recipe)
    plain = make_plan(recipe, verb="sft")
    [warning] = [w for w in lint_plan(plain) if w.rule == "untrained_tokens"]
    remedied = make_plan(recipe, [warning.remedy.removeprefix("write ")], verb="sft")
    assert all(w.rule != "untrained_tokens" for w in lint_plan(remedied))
    assert remedied.trained - plain.trained == 2 * 32
    named = make_plan(recipe, [f"lora.trainable_tokens={json.dumps(NEW[:1])}"], verb="sft")
    assert named.trained - plain.trained == 32


def test_full_training_trains_them(fixtures: StageFixtures, extended: Path, tmp_path: Path) -> None:
    sft.run(SftConfig(**settings(fixtures, extended, tmp_path / "run", lora=None)))
    assert read_added(tmp_path / "run/checkpoints/latest") == AddedTokens((399, 400), ())


def test_extended_twice(extended: Path, tmp_path: Path) -> None:
    words = [f"checkpoint={extended / 'model'}", f"out={tmp_path / 'more'}", 'tokens=["秋棠很"]']
    extend.run(load_config(ExtendConfig, None, words))
    assert read_added(tmp_path / "more") == AddedTokens((399, 400, 401), (399, 400, 401))


def test_names_and_ids_of_tokens(fixtures: StageFixtures, extended: Path, tmp_path: Path) -> None:
    def ids(run: str, tokens: Any) -> list[int]:
        values = settings(fixtures, extended, tmp_path / run, lora={"trainable_tokens": tokens})
        sft.run(SftConfig.model_validate(values | {"max_steps": 1}))
        file = tmp_path / run / "checkpoints/latest/adapter_config.json"
        return json.loads(file.read_text())["trainable_token_indices"]

    assert ids("texts", [NEW[1], 5, NEW[0], "<|im_end|>", 5]) == sorted(
        [5, 399, 400, load_tokenizer(fixtures.base).convert_tokens_to_ids("<|im_end|>")]
    )


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ([401], "401 is no id of .*whose ids are 0 to 400"),
        (["不是一个词"], r"is \d+ tokens of .*, not one; make it one first: mengya extend"),
        ([], r"names no token; write lora\.trainable_tokens=null"),
    ],
)
def test_what_is_no_token_is_refused(
    tokens: Any, reason: str, fixtures: StageFixtures, extended: Path, tmp_path: Path
) -> None:
    with pytest.raises((UserError, ValueError), match=reason):
        lora = {"trainable_tokens": tokens}
        sft.run(SftConfig(**settings(fixtures, extended, tmp_path / "run", lora=lora)))


def test_a_folder_that_says_nothing_is_named_and_the_remedy_is_accepted(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    def values(tokens: Any) -> SftConfig:
        lora = {"rank": 2, "trainable_tokens": tokens}
        settings = fixtures.settings("conversation", tmp_path / "run", lora=lora)
        return SftConfig.model_validate(settings | {"max_steps": 1})

    with pytest.raises(UserError, match="does not say which tokens were added") as refused:
        sft.run(values("added"))
    [typed] = [w for w in str(refused.value).split() if w.startswith("lora.trainable_tokens=[")]
    sft.run(values(json.loads(typed.partition("=")[2].rstrip(","))))


def test_a_resumed_run_keeps_its_tokens(
    fixtures: StageFixtures, extended: Path, tmp_path: Path
) -> None:
    values = settings(fixtures, extended, tmp_path / "run", lora={"trainable_tokens": [399]})
    sft.run(SftConfig.model_validate(values | {"max_steps": 1}))
    with pytest.raises(UserError, match=r"lora\.trainable_tokens"):
        sft.run(
            SftConfig.model_validate(values | {"resume": True, "lora": {"trainable_tokens": [400]}})
        )
