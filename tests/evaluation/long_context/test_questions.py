"""Questions about hidden facts: what the prompts hold, and that the score is what the model says."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mengya.errors import UserError
from mengya.evaluation.answers.answer import prompt_ids
from mengya.evaluation.likelihood.scoring import sequence_nlls
from mengya.evaluation.long_context.buckets import Buckets
from mengya.evaluation.long_context.questions import QuestionWriter, question_figures
from mengya.evaluation.subject import Subject
from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.tokenizer.load import document_token_id, encode_texts, stop_token_ids
from mengya.world.hidden_facts import draw_facts
from mengya.world.passkey import idle_sentence
from tests.helpers.memorized_model import memorize


def test_facts_differ_in_value_alone_and_stand_nowhere_in_the_idle_talk() -> None:
    rng, talk = random.Random(0), "".join(idle_sentence(random.Random(i)) for i in range(3000))
    for _ in range(200):
        drawn = draw_facts(rng)
        assert len(set(drawn.candidates)) == 4 and all(len(c) == 2 for c in drawn.candidates)
        assert drawn.facts[0] == f"{drawn.beginning}{drawn.value}。"
        assert not any(candidate in talk for candidate in drawn.candidates)
        assert len({fact[:4] for fact in drawn.facts}) >= 3


@pytest.mark.parametrize("chat", [False, True])
def test_prompts_have_the_length_and_all_facts(subject: Subject, chat: bool) -> None:
    subject = replace(subject, chat=chat)
    writer = QuestionWriter(subject, random.Random(1))
    depths = []
    for length in (600, 700, 900):
        asked = writer.ask(length)
        assert length - 150 < asked.length == len(prompt_ids(subject, asked.prompt)) <= length
        assert all(asked.prompt.count(fact) == 1 for fact in asked.facts.facts)
        assert asked.facts.question in asked.prompt.splitlines()[-1]
        place = asked.prompt.index(asked.facts.facts[0]) / len(asked.prompt)
        depths.append(abs(place - asked.depth))
    assert max(depths) < 0.3
    with pytest.raises(UserError, match=r"too few .*; write long_context\.shortest=\d+"):
        writer.ask(100)


def test_the_choice_is_the_likeliest_statement_and_the_text_is_greedy(subject: Subject) -> None:
    found = question_figures(subject, Buckets([800]), 3, (600, 2000), seed=4)
    writer = QuestionWriter(subject, random.Random(4))
    items = [item for item in found.items if "value" in item]
    assert [item["part"] for item in items] == ["answers/0-800"] * 3 + ["answers/800+"] * 3
    lengths = [600, 699, 799, 800, 880, 960]
    for item, length in zip(items, lengths, strict=True):
        asked = writer.ask(length)
        assert item["tokens"] == asked.length and item["question"] == asked.facts.question
        ids = prompt_ids(subject, asked.prompt)
        statements = [f"{asked.facts.beginning}{value}。" for value in asked.facts.candidates]
        rows = [[*ids, *one] for one in encode_texts(subject.tokenizer, statements)]
        costs = [nll[len(ids) - 1 :].sum().item() for nll in sequence_nlls(subject.model, rows)]
        assert item["chosen"] == asked.facts.candidates[costs.index(min(costs))]
        assert item["score"] == (item["chosen"] == asked.facts.value)
        greedy = SamplingParams(max_new_tokens=64, temperature=0)
        (written,) = generate(subject.model, [ids], greedy, stop_token_ids(subject.tokenizer))
        text = str(subject.tokenizer.decode(written, skip_special_tokens=True)).strip()
        assert item["text"] == text


def test_buckets_beyond_the_context_are_named(subject: Subject) -> None:
    found = question_figures(subject, Buckets([800, 4096]), 2, (600, 32768))
    names = [m.name for m in found.measurements]
    assert names == [
        f"long_context/{kind}{part}"
        for part in ("", "/0-800", "/800-4k")
        for kind in ("answers", "answers_f1")
    ]
    assert found.measurements[0].note == "not measured: 4k+; the longest is 960 tokens"
    assert found.measurements[0].chance == 0.25 and found.measurements[0].items == 4
    assert {item["part"] for item in found.items} == {
        n.removeprefix("long_context/") for n in names[2:]
    }
    with pytest.raises(UserError, match="do not fit the model's context of 1,024"):
        question_figures(subject, Buckets([4096]), 2, (5000, 32768))
    again = question_figures(subject, Buckets([800, 4096]), 2, (600, 32768))
    assert again == found


def test_a_model_that_knows_the_answers_has_them_all(subject: Subject) -> None:
    writer = QuestionWriter(subject, random.Random(0))
    samples = []
    for _ in range(2):
        asked = writer.ask(420)
        ids = prompt_ids(subject, asked.prompt)
        statement = encode_texts(subject.tokenizer, [asked.facts.facts[0]])[0]
        end = document_token_id(subject.tokenizer)
        samples.append(([*ids, *statement, end], [0] * len(ids) + [1] * (len(statement) + 1)))
    knowing = replace(subject, model=memorize(subject.model.config, samples))
    found = question_figures(knowing, Buckets([800]), 2, (420, 420))
    assert [m.value for m in found.measurements] == [1.0] * 4
