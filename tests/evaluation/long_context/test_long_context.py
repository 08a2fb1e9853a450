"""Passkey prompts and predictions by position: what they say of a model whose answers are known."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from mengya.config import load_config
from mengya.errors import UserError
from mengya.evaluation.likelihood.by_position import BINS, nats_by_position
from mengya.evaluation.long_context.passkey import PasskeyConfig, PasskeyText, passkey_retrieval
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.stages.evaluate import EvaluateConfig, measure, run
from mengya.tokenizer.load import load_tokenizer
from mengya.world.passkey import QUESTION, draw_key, idle_sentence, key_sentence
from tests.helpers.json_lines import write_lines


def test_prompts_hold_the_key_where_they_should(checkpoint: Path) -> None:
    tokenizer = load_tokenizer(checkpoint)
    text = PasskeyText(tokenizer, random.Random(1))
    for depth in (0.0, 0.5, 1.0):
        ids, answer = text.ids(600, depth, held_out=True)
        assert 500 < len(ids) <= 600
        written, key = str(tokenizer.decode(ids)), str(tokenizer.decode(ids[-answer:]))
        assert key.isdigit() and len(key) == 5 and written.endswith(QUESTION + key)
        place = written.index(key_sentence(key)) / (
            len(written) - len(key_sentence(key) + QUESTION)
        )
        assert abs(place - depth) < 0.15
        # The key stands there once, and nothing else has figures.
        assert sum(c.isdigit() for c in written) == 10
    with pytest.raises(UserError, match="too few for key and question; write at least"):
        text.ids(10, 0.0, held_out=True)


def test_training_and_test_never_share_a_key() -> None:
    rng = random.Random(0)
    trained = {draw_key(rng, held_out=False) for _ in range(3000)}
    assert not trained & {draw_key(rng, held_out=True) for _ in range(3000)}
    assert len({idle_sentence(rng) for _ in range(200)}) > 190


def test_found_is_what_greedy_decoding_finds(checkpoint: Path) -> None:
    """A model of random weights misses; one that is taught the answer by hand is found out as right."""
    model, tokenizer = load_causal_lm(checkpoint).eval(), load_tokenizer(checkpoint)
    settings = PasskeyConfig(lengths=[120, 160], depths=[0.0, 1.0], samples=3)
    cells = passkey_retrieval(model, tokenizer, settings)
    assert [(c.length, c.depth) for c in cells] == [(120, 0.0), (120, 1.0), (160, 0.0), (160, 1.0)]
    text = PasskeyText(tokenizer, random.Random(settings.seed))
    for cell in cells:
        found = 0
        for _ in range(cell.samples):
            ids, answer = text.ids(cell.length, cell.depth, held_out=True)
            greedy = SamplingParams(max_new_tokens=answer, temperature=0)
            found += generate(model, [ids[:-answer]], greedy, []) == [ids[-answer:]]
        assert cell.accuracy == found / cell.samples


def test_a_model_that_repeats_finds_the_key(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_causal_lm(checkpoint), load_tokenizer(checkpoint)

    def knowing(input_ids: torch.Tensor, cache: None, positions: torch.Tensor) -> torch.Tensor:
        truth = torch.nn.functional.one_hot(input_ids.flatten()[positions + 1], 300)
        return truth[None].float()

    monkeypatch.setattr(model, "decode", knowing)
    cells = passkey_retrieval(model, tokenizer, PasskeyConfig(lengths=[200], samples=4))
    assert [cell.accuracy for cell in cells] == [1.0] * 5 and cells[0].interval[1] == pytest.approx(
        1
    )


def test_nats_by_position_are_the_means_of_each_stretch(checkpoint: Path) -> None:
    model = load_causal_lm(checkpoint).eval()
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(300, (n,), generator=generator).tolist() for n in (81, 30, 90, 200)]
    found = nats_by_position(model, documents, 5 * BINS + 3)
    assert (found.width, found.documents, len(found.nats)) == (5, 3, BINS)
    with torch.no_grad():
        ids = torch.tensor([d[:81] for d in documents if len(d) > 80])
        logits = model(ids[:, :-1]).head_output
    nll = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    expected = nll.view(3, BINS, 5).mean((0, 2))
    torch.testing.assert_close(torch.tensor(found.nats), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="the longest has 200"):
        nats_by_position(model, documents, 1600)


def test_the_verb_prints_and_writes_both(
    checkpoint: Path, tmp_path: Path, texts: list[str], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "160")
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"text": texts[0] * 4}, ensure_ascii=False) + "\n", "utf-8")
    overrides = [
        f"checkpoint={checkpoint}", "device=cpu", f"texts={file}", "positions=64",
        "passkey.lengths=[120]", "passkey.samples=2", f"out={tmp_path / 'out.json'}",
    ]  # fmt: skip
    run(load_config(EvaluateConfig, None, overrides))
    printed = capsys.readouterr().out
    assert "passkey in 120 tokens" in printed and "nats per token at 48 to 64" in printed
    written = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert len(written["by_position"]["nats"]) == 16 and len(written["passkey"]) == 5
    only = load_config(EvaluateConfig, None, [*overrides[:2], "passkey={}", "passkey.samples=1"])
    assert measure(only).by_position is None
    with pytest.raises(UserError, match="needs texts=FILE"):
        load_config(EvaluateConfig, None, [*overrides[:2], "passkey={}", "positions=64"])


def test_the_verb_measures_documents_and_tasks_by_length(
    checkpoint: Path, tmp_path: Path, texts: list[str], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "160")
    file = write_lines(tmp_path / "long.jsonl", [{"text": text * 3} for text in texts])
    task = {"dataset": "lcc", "context": "x = 1\n", "input": "", "answers": ["y"], "length": 9000}
    tasks = write_lines(tmp_path / "tasks.jsonl", [task])
    out = tmp_path / "out.json"
    overrides = [
        f"checkpoint={checkpoint}", "device=cpu", f"long_context.texts={file}",
        f"long_context.tasks={tasks}", "long_context.edges=[50]", f"out={out}",
    ]  # fmt: skip
    run(load_config(EvaluateConfig, None, [*overrides, "long_context.questions=0"]))
    printed = capsys.readouterr().out
    assert "long_context/bits_per_char/document_0-50" in printed
    assert "│ long_context/task/lcc " in printed and "│   8k+ " in printed
    first = out.read_bytes()
    figures = json.loads(first)["yardsticks"]["long_context"]
    assert {"long_context/nats/position_50+", "long_context/task/lcc"} <= {
        f["name"] for f in figures
    }
    items = (tmp_path / "out_items" / "long_context.jsonl").read_text("utf-8").splitlines()
    assert json.loads(items[-1])["part"] == "task/lcc/8k+"
    run(load_config(EvaluateConfig, None, [*overrides, "long_context.questions=0"]))
    assert out.read_bytes() == first
    with pytest.raises(UserError, match="do not fit the model's context of 256"):
        run(load_config(EvaluateConfig, None, overrides))
