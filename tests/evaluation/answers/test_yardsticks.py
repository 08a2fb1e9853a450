"""loops, diversity, lengths and instructions on the tiny checkpoint; their figures against plain counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sacrebleu.metrics.bleu import BLEU

from mengya.errors import UserError
from mengya.evaluation.answers import answer as answer_module
from mengya.evaluation.answers.diversity import distinct, self_bleu
from mengya.evaluation.answers.questions import ask_fixed, fixed_prompts, spread
from mengya.evaluation.answers.side_by_side import side_by_side, to_markdown
from mengya.evaluation.registry import YARDSTICKS
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig
from mengya.models.hf.open_checkpoint import open_checkpoint
from mengya.text.loops import ending_loop

CONFIG = YardstickConfig(limit=6, max_new_tokens=48)
NAMES = ("answer_length", "diversity", "loops", "stop_in_time")


def opened(checkpoint: Path, chat: bool = True) -> Subject:
    model, tokenizer = open_checkpoint(checkpoint, torch.device("cpu"), torch.float32)
    return Subject(model, tokenizer, checkpoint, chat)


def test_the_shown_questions_and_openings_are_as_many_as_we_say() -> None:
    chat, base = fixed_prompts(True), fixed_prompts(False)
    assert sum(id_.startswith("questions-") for id_ in chat) == 24
    assert sum(id_.startswith("openings-") for id_ in base) == 14
    assert len(chat) >= 144
    assert len(base) >= 100
    for prompts in (chat, base):
        assert len(set(prompts.values())) == len(prompts)


@pytest.mark.parametrize("name", NAMES)
def test_each_part_has_its_items_and_its_value_is_their_mean(checkpoint: Path, name: str) -> None:
    result = YARDSTICKS[name](opened(checkpoint), CONFIG)
    assert result.measurements
    for figure in result.measurements:
        part = figure.name.removeprefix(f"{name}/")
        scores = [item["score"] for item in result.items if item["part"] == part]
        assert len(scores) == figure.items > 0
        assert figure.value == pytest.approx(sum(scores) / len(scores), abs=1e-6)
        assert figure.interval is not None
        assert figure.interval[0] <= figure.value <= figure.interval[1]


def test_the_yardsticks_share_one_generation(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    generated = answer_module._generated

    def counted(*args: object) -> object:
        calls.append(args)
        return generated(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(answer_module, "_generated", counted)
    subject = opened(checkpoint)
    for name in NAMES:
        YARDSTICKS[name](subject, CONFIG)
    assert len(calls) == 2  # greedy and sampled


def test_loops_counts_what_the_meter_finds(checkpoint: Path) -> None:
    subject = opened(checkpoint, chat=False)
    result = YARDSTICKS["loops"](subject, CONFIG.model_copy(update={"max_new_tokens": 200}))
    for item in result.items:
        assert item["score"] == (ending_loop(item["answer"]) is not None)
    assert {item["part"] for item in result.items} == {"greedy", "sampled"}
    note = next(m.note for m in result.measurements if m.name == "loops/sampled")
    assert "temperature 0.7" in note


def test_instructions_gives_all_kinds_and_says_what_failed(checkpoint: Path) -> None:
    result = YARDSTICKS["instructions"](
        opened(checkpoint), YardstickConfig(limit=1, max_new_tokens=8)
    )
    overall, *kinds = result.measurements
    assert overall.name == "instructions"
    assert overall.items == len(result.items) == sum(kind.items for kind in kinds)
    assert "instructions/refusal" in {kind.name for kind in kinds}
    for item in result.items:
        assert bool(item["failed"]) == (item["score"] == 0)


@pytest.mark.parametrize("name", ["instructions", "stop_in_time"])
def test_what_does_not_fit_a_base_model_is_said_and_not_scored(checkpoint: Path, name: str) -> None:
    result = YARDSTICKS[name](opened(checkpoint, chat=False), CONFIG)
    (figure,) = result.measurements
    assert (figure.items, figure.interval, result.items) == (0, None, [])
    assert figure.note.startswith("not applicable: a base model")


def test_twice_the_same(checkpoint: Path) -> None:
    for name in ("loops", "diversity"):
        first = YARDSTICKS[name](opened(checkpoint), CONFIG)
        assert YARDSTICKS[name](opened(checkpoint), CONFIG) == first


def test_prompts_that_do_not_fit_are_left_out_and_counted(checkpoint: Path) -> None:
    subject = opened(checkpoint)
    longest = subject.model.config
    subject.model.config = longest.model_copy(update={"max_position_embeddings": 100})
    asked = ask_fixed(subject, YardstickConfig(max_new_tokens=1))
    left_out = len(fixed_prompts(True)) - len(asked["greedy"].ids)
    assert left_out > 0
    assert asked["greedy"].note == f"{left_out} prompts too long for the model's context"
    subject.model.config = longest.model_copy(update={"max_position_embeddings": 8})
    with pytest.raises(UserError, match="none of the 144 prompts fits"):
        ask_fixed(subject, YardstickConfig())


def test_distinct_counts_character_ngrams() -> None:
    assert distinct("春天春天", 1) == 0.5
    assert distinct("春天春天", 2) == pytest.approx(2 / 3)
    assert distinct("春", 2) == 0


def test_self_bleu_equals_sacrebleu() -> None:
    texts = ["春天来了桃花开了", "春天来了，小猫在院子里打盹。", "小明每天早上七点起床，八点去学校。",
             "春天来了桃花开了，小猫在院子里打盹。", "春天来了桃花开了"]  # fmt: skip
    metric = BLEU(tokenize="char", smooth_method="none", effective_order=False)
    for number, ours in enumerate(self_bleu(texts)):
        others = texts[:number] + texts[number + 1 :]
        expected = metric.corpus_score([texts[number]], [[other] for other in others])
        assert ours == pytest.approx(expected.score / 100, abs=1e-9)
    assert self_bleu(["", "春天来了"]) == [0, 0]
    assert self_bleu(["春天来了"]) == [0]


def test_spread_takes_items_from_everywhere() -> None:
    assert spread(range(10), None) == list(range(10))
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(2), 3) == [0, 1]


def test_answers_of_several_checkpoints_stand_next_to_each_other(checkpoint: Path) -> None:
    config = YardstickConfig(max_new_tokens=4)
    loops = YARDSTICKS["loops"]
    chat, base = (loops(opened(checkpoint, chat), config).items for chat in (True, False))
    table = side_by_side({"base": base, "sft": chat, "dpo": chat})
    assert 0 < sum(list(answers) == ["sft", "dpo"] for answers in table.values()) <= 24
    assert sum(list(answers) == ["base"] for answers in table.values()) == 14
    assert list(table)[-1] == list(fixed_prompts(False).values())[13]


def test_markdown_shows_what_a_model_wrote_and_nothing_else() -> None:
    page = to_markdown({"写\n首诗": {"a*b": "# 题目\n<b>春</b>\x1b[31m", "c": "  "}})
    assert page == (
        "### 写 ⏎ 首诗\n\n**a\\*b**\n\n> \\# 题目\n> \\<b\\>春\\</b\\>␛\\[31m\n\n**c**\n\n> (empty)\n"
    )
