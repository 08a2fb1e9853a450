"""Which sequences are computed together: each once, and the answers the same in every way."""

from __future__ import annotations

import pytest
import torch

from mengya.evaluation.exams.model.likelihoods import pass_likelihoods
from mengya.evaluation.exams.model.passes import Ids, plan_passes
from mengya.evaluation.likelihood.scoring import sequence_nlls
from mengya.evaluation.subject import Subject


def prompts(kind: str) -> tuple[list[Ids], list[list[Ids]]]:
    """Sequences, and what is scored at their ends."""
    generator = torch.Generator().manual_seed(0)

    def ids(n: int) -> Ids:
        return tuple(torch.randint(4, 300, (n,), generator=generator).tolist())

    if kind == "letters":
        return [ids(5 + 3 * n) for n in range(20)], [[(7,), (8,), (9,)]] * 20
    shots = ids(60) if kind == "few-shot" else ()
    sequences, ends = [], []
    for n in range(8):
        context = shots + ids(10 + n)
        for option in range(1 if kind == "few-shot" else 4):
            end = ids(1 + option)
            sequences.append(context + end[:-1])
            ends.append([end])
    return sequences, ends


@pytest.mark.parametrize(("kind", "contexts"), [("letters", 0), ("answers", 20), ("few-shot", 1)])
@pytest.mark.parametrize("rows", [None, 3])
def test_every_way_gives_the_likelihoods_of_plain_scoring(
    kind: str, contexts: int, rows: int | None, subject: Subject
) -> None:
    sequences, ends = prompts(kind)
    shared = [len(s) - max(map(len, e)) for s, e in zip(sequences, ends, strict=True)]
    passes = plan_passes(sequences, shared, 300, rows)
    done = [number for each in passes for number in each.sequences]
    assert sorted(done) == list(range(len(sequences)))
    assert any(each.contexts for each in passes) == bool(contexts)
    for each in passes:
        longest = max(len(ids) for _, ids in each.rows) + max(map(len, each.contexts), default=0)
        assert len(each.rows) == 1 or len(each.rows) * longest <= 300 or kind == "answers"
        if rows and kind != "answers":
            assert len(each.rows) <= rows
        scores = pass_likelihoods(subject.model, each, ends)
        for number, row in zip(each.sequences, scores, strict=True):
            for end, (logp, greedy) in zip(ends[number], row, strict=True):
                ids = [*sequences[number], end[-1]]
                (nll,) = sequence_nlls(subject.model, [ids])
                assert logp == pytest.approx(-nll[-len(end) :].sum().item(), abs=1e-3)
                logits = subject.model(torch.tensor([ids[:-1]])).head_output[0, -len(end) :]
                assert greedy == (logits.argmax(-1).tolist() == list(end))


def test_common_beginnings_are_computed_once() -> None:
    sequences, ends = prompts("few-shot")
    passes = plan_passes(sequences, [len(s) - 1 for s in sequences], 1 << 14, None)
    (one,) = passes
    assert one.contexts == [sequences[0][:60]] and len(one.rows) == len(ends)
