import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mengya.cli import app
from mengya.errors import UserError
from mengya.evaluation.pairs.choice import Choice, likeliest, spread
from mengya.evaluation.pairs.suite import cloze_items, minimal_pairs
from mengya.evaluation.subject import Subject
from mengya.measured.intervals import wilson
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.tokenizer.load import document_token_id, encode_texts, load_tokenizer
from mengya.tokenizer.train import train_tokenizer

CHOICES = [
    Choice("seasons", "seasons-000", "春天来了。", ("春天去了。",)),
    Choice("seasons", "seasons-001", "桃花开了。", ("桃花走了。",)),
    Choice(
        "school", "school-000", "小明去学校。", ("小明去小猫。", "小明去桃花。", "小明去起床。")
    ),
]


@pytest.fixture(scope="module")
def subject(checkpoint: Path) -> Subject:
    model = load_causal_lm(checkpoint)
    return Subject(model, load_tokenizer(checkpoint), checkpoint, chat=False)


def by_hand(subject: Subject, sentence: str) -> float:
    edge = document_token_id(subject.tokenizer)
    ids = [edge, *encode_texts(subject.tokenizer, [sentence])[0], edge]
    with torch.no_grad():
        logps = torch.log_softmax(subject.model(torch.tensor([ids])).head_output[0].double(), -1)
    return sum(logps[i - 1, ids[i]].item() for i in range(1, len(ids)))


def test_equals_a_computation_by_hand(subject: Subject) -> None:
    result = likeliest("ours", subject, CHOICES, limit=None)
    right = []
    for choice, record in zip(CHOICES, result.items, strict=True):
        margin = by_hand(subject, choice.good) - max(by_hand(subject, bad) for bad in choice.bad)
        assert record["margin"] == pytest.approx(margin, abs=2e-3)
        assert record["score"] == int(margin > 0)
        right.append(record["score"])
    assert [list(record)[:3] for record in result.items] == [["part", "id", "score"]] * 3
    overall, seasons, school = result.measurements
    assert (overall.name, seasons.name, school.name) == ("ours", "ours/seasons", "ours/school")
    assert overall.value == sum(right) / 3 and overall.interval == wilson(sum(right), 3)
    assert (seasons.items, seasons.value) == (2, sum(right[:2]) / 2)
    assert (overall.unit, overall.better) == ("share", "higher")


def test_the_items_of_two_runs_are_the_same_bytes(subject: Subject) -> None:
    first, second = (likeliest("ours", subject, CHOICES, limit=None).items for _ in range(2))
    assert json.dumps(first) == json.dumps(second)


def test_a_tie_counts_as_wrong(subject: Subject) -> None:
    [item] = likeliest("ours", subject, [Choice("p", "p-0", "字。", ("字。",))], None).items
    assert item["margin"] == 0 and item["score"] == 0


def test_a_sentence_longer_than_the_context_is_an_error(subject: Subject) -> None:
    long = "春" * 300
    with pytest.raises(UserError, match="context is 256"):
        likeliest("ours", subject, [Choice("p", "p-0", long, (long + "天",))], None)


def test_limit_takes_mirror_groups_spread_evenly() -> None:
    pairs, cloze = minimal_pairs(), cloze_items()
    assert spread(pairs, None) == list(pairs)
    few = spread(pairs, 10)
    for part in {item.part for item in pairs}:
        numbers = [int(item.id[-3:]) for item in few if item.part == part]
        assert len(numbers) == 10
        if part not in ("word_order", "roles", "idiom_order"):  # these have no mirrored items
            assert [b - a for a, b in zip(numbers[::2], numbers[1::2], strict=True)] == [1] * 5
        assert numbers[0] == 0 and numbers[-1] > 0.75 * sum(item.part == part for item in pairs)
    assert len(spread(cloze, 4)) == 4 * len({item.part for item in cloze})
    assert len(spread(cloze, 3)) == 3 * len({item.part for item in cloze})
    assert spread(cloze, 10_000) == list(cloze)


def trained_on(sentences: list[str], steps: int = 60) -> Subject:
    """A tiny model that has read only these sentences."""
    tokenizer = train_tokenizer(sentences * 2, 400, show_progress=False)
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    model = CausalLM(config)
    edge = document_token_id(tokenizer)
    rows = [[edge, *ids, edge] for ids in encode_texts(tokenizer, sentences)]
    width = max(map(len, rows))
    ids_BS = torch.tensor([row + [edge] * (width - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        logits_BSV = model(ids_BS[:, :-1]).head_output
        loss = torch.nn.functional.cross_entropy(logits_BSV.flatten(0, 1), ids_BS[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Subject(model, tokenizer, Path("tiny"), chat=False)


def test_a_model_prefers_what_it_has_read() -> None:
    choices = [item for item in minimal_pairs() if item.part in ("ba_bei", "aspect")][:120]
    read_right = trained_on([item.good for item in choices])
    read_wrong = trained_on([item.bad[0] for item in choices])
    assert likeliest("ours", read_right, choices, None).measurements[0].value > 0.9
    assert likeliest("ours", read_wrong, choices, None).measurements[0].value < 0.1


def test_evaluate_knows_the_three_yardsticks(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation.json"
    arguments = [
        "yardsticks=[pairs,cloze,knowledge]",
        "yardstick.limit=4",
        "device=cpu",
        f"out={out}",
    ]
    done = CliRunner().invoke(app, ["evaluate", str(checkpoint), *arguments])
    assert done.exit_code == 0, done.output
    yardsticks = json.loads(out.read_text("utf-8"))["yardsticks"]
    assert set(yardsticks) == {"pairs", "cloze", "knowledge"}
    for name, chance in (("pairs", 0.5), ("cloze", 0.25), ("knowledge", 0.25)):
        overall, *parts = yardsticks[name]
        assert (overall["name"], overall["chance"]) == (name, chance)
        assert overall["items"] == sum(part["items"] for part in parts) == 4 * len(parts)
        assert {part["name"].split("/")[0] for part in parts} == {name}
