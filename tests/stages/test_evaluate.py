import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mengya.config import load_config
from mengya.data.shards import ShardWriter
from mengya.errors import UserError
from mengya.evaluation.exams.benchmarks import BENCHMARKS
from mengya.evaluation.registry import YARDSTICKS
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig
from mengya.models.adapters.lora import LoraConfig, add_lora, save_adapter
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.stages.evaluate import EvaluateConfig, measure, run
from mengya.tokenizer.load import copy_tokenizer, load_tokenizer, tokenizer_hash


def configured(checkpoint: Path, *overrides: str) -> EvaluateConfig:
    return load_config(EvaluateConfig, None, [f"checkpoint={checkpoint}", "device=cpu", *overrides])


@pytest.fixture
def text_file(tmp_path: Path, texts: list[str]) -> Path:
    file = tmp_path / "held_out.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return file


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    folder = tmp_path / "小镇"
    (folder / "test").mkdir(parents=True)
    rows = [f"{i},第{i}问,一,二,三,四,{'ABCD'[i % 4]}\n" for i in range(8)]
    (folder / "test" / "people.csv").write_text(
        ",Question,A,B,C,D,Answer\n" + "".join(rows), "utf-8"
    )
    return folder


@pytest.fixture
def preferences(tmp_path: Path, checkpoint: Path) -> Path:
    writer = ShardWriter(tmp_path / "pairs", "preference", 300)
    tokens = np.arange(20, 60, dtype=np.uint32)
    writer.add(tokens, np.full(8, 5), np.tile([0, 0, 1, 1, 1], 8))
    writer.close(tokenizer={"sha256": tokenizer_hash(checkpoint)})
    return tmp_path / "pairs"


def test_everything_is_printed_and_written(
    checkpoint: Path, text_file: Path, exam: Path, preferences: Path, tmp_path: Path, texts: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("lm_eval", reason="needs the extra eval")
    out = tmp_path / "numbers.json"
    run(
        configured(
            checkpoint,
            f"texts={text_file}",
            f"exams={exam}",
            f"preferences={preferences}",
            f"out={out}",
        )
    )
    values = json.loads(out.read_text("utf-8"))
    assert values["text"]["characters"] == sum(map(len, texts))
    assert values["exams"]["小镇"]["overall"]["questions"] == 8
    assert values["preference"]["pairs"] == 4
    printed = " ".join(capsys.readouterr().out.split())
    for word in ("bits per character", "小镇 accuracy", "chance 25%", "preference accuracy"):
        assert word in printed


def test_numbers_lie_next_to_the_checkpoint_by_default_and_reading_can_be_short(
    checkpoint: Path, text_file: Path, tmp_path: Path, texts: list[str]
) -> None:
    run_folder = tmp_path / "run"
    folder = run_folder / "checkpoints" / "latest"
    folder.mkdir(parents=True)
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    run(configured(run_folder, f"texts={text_file}", "max_characters=1"))
    values = json.loads((folder / "evaluation.json").read_text("utf-8"))
    assert values["text"]["documents"] == 1 and values["text"]["characters"] == len(texts[0])


def test_an_adapter_that_does_nothing_yet_measures_as_its_base(
    checkpoint: Path, text_file: Path, exam: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra eval")
    model = load_causal_lm(checkpoint)
    add_lora(model, LoraConfig())
    save_adapter(model, tmp_path / "adapter", base=checkpoint)
    copy_tokenizer(checkpoint, tmp_path / "adapter")
    base, adapter = (
        measure(configured(folder, f"texts={text_file}", f"exams={exam}"))
        for folder in (checkpoint, tmp_path / "adapter")
    )
    assert base.text == adapter.text and base.exams == adapter.exams


def test_nothing_to_measure_and_wrong_paths_are_refused(
    checkpoint: Path, text_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="nothing to measure"):
        configured(checkpoint)
    with pytest.raises(UserError, match="did you mean"):
        measure(configured(checkpoint.with_name(checkpoint.name + "x"), f"texts={text_file}"))
    with pytest.raises(UserError, match="holds no exam"):
        measure(configured(checkpoint, f"exams={tmp_path}"))
    with pytest.raises(UserError, match=r"held_out\.jsonl:1"):
        measure(configured(checkpoint, f'texts=[{{"path": "{text_file}", "field": "body"}}]'))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        measure(configured(tmp_path / "empty", f"texts={text_file}"))


def test_pairs_of_another_tokenizer_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "preference", 300)
    writer.add(np.arange(4), np.array([2, 2]), np.ones(4))
    writer.close(tokenizer={"sha256": "0" * 64})
    with pytest.raises(UserError, match="tokenizer"):
        measure(configured(checkpoint, f"preferences={tmp_path}"))


@pytest.mark.parametrize("asked", ["exams=list", "yardsticks=list"])
def test_a_list_is_an_answer_and_measures_nothing(
    asked: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(checkpoint, asked, f"out={tmp_path / 'numbers.json'}")
    run(config)
    printed = capsys.readouterr().out
    assert printed.startswith(asked.split("=")[0] + "=NAME")
    names = BENCHMARKS if "exams" in asked else YARDSTICKS
    assert all(f"\n  {name} " in printed for name in names)
    assert not (tmp_path / "numbers.json").exists()
    with pytest.raises(UserError, match="=NAME"):
        measure(config)


def test_a_bar_counts_sentences_and_answers(checkpoint: Path) -> None:
    model = load_causal_lm(checkpoint, torch.device("cpu"))
    moves: list[tuple[int, int | None]] = []
    tokenizer = load_tokenizer(checkpoint)
    subject = Subject(model, tokenizer, checkpoint, False, lambda *done: moves.append(done))
    YARDSTICKS["pairs"](subject, YardstickConfig(limit=2))
    assert moves and moves[-1][0] == moves[-1][1]
    moves.clear()
    YARDSTICKS["loops"](subject, YardstickConfig(limit=2, max_new_tokens=4))
    assert moves and moves[-1][0] == moves[-1][1]
