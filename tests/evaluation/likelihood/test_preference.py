from pathlib import Path

import numpy as np
import pytest
import torch

from mengya.data.shards import ShardWriter, TokenShards
from mengya.errors import UserError
from mengya.evaluation.likelihood.preference import Side, pairs_of_shards, preference_accuracy
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.tokenizer.chat_template import encode_conversation
from mengya.tokenizer.load import load_tokenizer


def pairs(checkpoint: Path, count: int = 12) -> list[tuple[Side, Side]]:
    tokenizer = load_tokenizer(checkpoint)

    def side(question: str, answer: str) -> Side:
        return encode_conversation(
            tokenizer,
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        )

    return [
        (side(f"第{i}问", "好的" * (i % 5 + 1)), side(f"第{i}问", "不知道" + "啊" * (i % 3)))
        for i in range(count)
    ]


def by_hand(model: torch.nn.Module, side: Side) -> tuple[float, float]:
    ids, mask = side
    logps = torch.log_softmax(model(torch.tensor([ids])).head_output[0].double(), -1)
    values = [logps[i - 1, ids[i]].item() for i in range(1, len(ids)) if mask[i]]
    return sum(values), sum(values) / len(values)


def test_equals_a_computation_by_hand(checkpoint: Path) -> None:
    model = load_causal_lm(checkpoint).eval()
    given = pairs(checkpoint)
    with torch.no_grad():
        scores = [(by_hand(model, chosen), by_hand(model, rejected)) for chosen, rejected in given]
    result = preference_accuracy(model, given)
    assert result.pairs == len(given)
    assert result.accuracy == np.mean([c[1] > r[1] for c, r in scores])
    assert result.accuracy_by_sum == np.mean([c[0] > r[0] for c, r in scores])
    assert result.margin == pytest.approx(np.mean([c[1] - r[1] for c, r in scores]), rel=1e-4)
    assert result.interval[0] < result.accuracy < result.interval[1]


def test_swapping_the_sides_mirrors_the_accuracy(checkpoint: Path) -> None:
    model = load_causal_lm(checkpoint)
    given = pairs(checkpoint)
    there = preference_accuracy(model, given)
    back = preference_accuracy(model, [(rejected, chosen) for chosen, rejected in given])
    assert there.accuracy + back.accuracy == pytest.approx(1)
    assert there.margin == pytest.approx(-back.margin, rel=1e-5)


def test_pairs_come_out_of_shards_as_they_went_in(checkpoint: Path, tmp_path: Path) -> None:
    given = pairs(checkpoint)
    sides = [side for pair in given for side in pair]
    writer = ShardWriter(tmp_path, "preference", 300)
    writer.add(
        np.concatenate([np.array(ids) for ids, _ in sides]),
        np.array([len(ids) for ids, _ in sides]),
        np.concatenate([np.array(mask) for _, mask in sides]),
    )
    writer.close()
    assert list(pairs_of_shards(TokenShards(tmp_path))) == given


def test_pairs_without_a_scored_token_are_skipped_and_none_is_refused(checkpoint: Path) -> None:
    model = load_causal_lm(checkpoint)
    empty = (([0, 5, 6], [0, 0, 0]), ([0, 5, 6], [0, 1, 1]))
    assert preference_accuracy(model, [*pairs(checkpoint), empty]).pairs == 12
    with pytest.raises(UserError, match="no preference pair"):
        preference_accuracy(model, [empty])


def test_shards_of_another_kind_are_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "text", 300)
    writer.add(np.array([1, 2]), np.array([2]))
    writer.close()
    with pytest.raises(UserError, match="kind=preference"):
        list(pairs_of_shards(TokenShards(tmp_path)))
