"""Questions about facts in long documents, by length: can a model tell apart what it read far back?

A document made by rules names a thing of four people among idle talk; one of them is asked for. The model is
right when it gives the right one of the four things the highest likelihood; what it writes by itself is
scored by the F1 of its characters. The documents are drawn at random, so that no training data holds them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mengya.errors import UserError
from mengya.evaluation.answers.answer import prompt_ids
from mengya.evaluation.likelihood.scoring import evaluating
from mengya.evaluation.long_context.buckets import Buckets
from mengya.evaluation.long_context.idle_talk import IdleTalk
from mengya.evaluation.long_context.tasks.overlap import f1
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickResult
from mengya.generation.engine import stream
from mengya.generation.sampling import SamplingParams
from mengya.measured.intervals import bootstrap_share
from mengya.measured.measurement import Measurement
from mengya.models.cache.kv import KVCache
from mengya.tokenizer.load import encode_texts, stop_token_ids
from mengya.world.hidden_facts import PEOPLE, HiddenFacts, draw_facts

_ANSWER_TOKENS = 64  # room for the answer, in byte-level tokens too


@dataclass(frozen=True)
class _Asked:
    """A question in its document: `length` tokens with the prompt, the fact at `depth` (0: at the start)."""

    facts: HiddenFacts
    prompt: str
    length: int
    depth: float


@dataclass(frozen=True)
class _Answered:
    chosen: str
    text: str
    f1: float


class QuestionWriter:
    """Writes documents with questions for one tokenizer and template."""

    def __init__(self, subject: Subject, rng: random.Random) -> None:
        self._subject, self._rng = subject, rng
        self._idle = IdleTalk(subject.tokenizer, rng)

    def ask(self, length: int) -> _Asked:
        """A prompt of at most `length` tokens.

        Raises:
            UserError: `length` is too small for facts and question.
        """
        facts, depth = draw_facts(self._rng), self._rng.random()
        least = len(prompt_ids(self._subject, self._prompt(facts, facts.facts)))
        if least > length:
            raise UserError(
                f"long_context.shortest: {length} tokens are too few for facts and question; write "
                f"long_context.shortest={least}"
            )
        idle = [sentence.text for sentence in self._idle.fill(length - least)]
        places = [round(depth * len(idle))]
        places += [self._rng.randint(0, len(idle)) for _ in facts.facts[1:]]
        for place, fact in sorted(zip(places, facts.facts, strict=True), reverse=True):
            idle.insert(place, fact)
        prompt = self._prompt(facts, idle)
        return _Asked(facts, prompt, len(prompt_ids(self._subject, prompt)), depth)

    def _prompt(self, facts: HiddenFacts, sentences: Sequence[str]) -> str:
        document = "".join(sentences)
        if self._subject.chat:
            return f"{document}\n\n请根据上面的内容回答：{facts.question}"
        return f"{document}\n{facts.question}\n"


def question_figures(
    subject: Subject, buckets: Buckets, questions: int, lengths: tuple[int, int], seed: int = 0
) -> YardstickResult:
    """long_context/answers and long_context/answers_f1, over all and by bucket.

    Args:
        questions: of each bucket; their lengths are spread evenly over it.
        lengths: the shortest and the longest document in tokens; the model's context cuts the latter.

    Raises:
        UserError: no bucket lies within the model's context.
    """
    longest = min(lengths[1], subject.context_length - _ANSWER_TOKENS)
    writer = QuestionWriter(subject, random.Random(seed))
    items: dict[str, list[dict[str, Any]]] = {}
    beyond: list[str] = []
    for number, name in enumerate(buckets.names):
        low, high = buckets.bounds(number)
        first, last = max(low, lengths[0]), min(longest, longest if high is None else high - 1)
        if first > last:
            beyond.append(name)
            continue
        items[name] = [
            _item(subject, writer.ask(first + (last - first) * i // max(1, questions - 1)), name, i)
            for i in range(questions)
        ]
    if not items:
        raise UserError(
            f"long_context.questions: documents of {lengths[0]:,} tokens and more do not fit the model's "
            f"context of {subject.context_length:,}; write long_context.shortest=NUMBER or "
            "long_context.questions=0"
        )
    note = f"not measured: {', '.join(beyond)}; the longest is {longest:,} tokens" if beyond else ""
    every = [item for own in items.values() for item in own]
    measured = [
        figure
        for part, own in (("", every), *((f"/{name}", own) for name, own in items.items()))
        for figure in _figures(part, own, "" if part else note, seed)
    ]
    return YardstickResult(measured, [record for item in every for record in _records(item)])


def _figures(part: str, items: Sequence[dict[str, Any]], note: str, seed: int) -> list[Measurement]:
    right, overlap = [item["score"] for item in items], [item["f1"] for item in items]
    count = len(items)
    return [
        Measurement.share(
            f"long_context/answers{part}", sum(right), count, chance=1 / PEOPLE, note=note
        ),
        Measurement(
            f"long_context/answers_f1{part}", sum(overlap) / count, bootstrap_share(overlap, seed), count,
            "share", "higher", None, note,
        ),
    ]  # fmt: skip


def _item(subject: Subject, asked: _Asked, bucket: str, number: int) -> dict[str, Any]:
    answered, facts = _answer(subject, asked), asked.facts
    return {
        "part": f"answers/{bucket}",
        "id": f"{bucket}/{number}",
        "score": int(answered.chosen == facts.value),
        "f1": answered.f1,
        "tokens": asked.length,
        "depth": round(asked.depth, 3),
        "question": facts.question,
        "value": facts.value,
        "chosen": answered.chosen,
        "text": answered.text,
    }


def _records(item: dict[str, Any]) -> list[dict[str, Any]]:
    """One a figure, since a record has one score."""
    part = item["part"].replace("answers/", "answers_f1/")
    return [item, {"part": part, "id": item["id"], "score": item["f1"]}]


@torch.inference_mode()
def _answer(subject: Subject, asked: _Asked) -> _Answered:
    """The prompt is read once; candidates and the free answer continue from its keys and values."""
    model, facts = subject.model, asked.facts
    device = model.lm_head.weight.device
    ids = prompt_ids(subject, asked.prompt)
    cache = KVCache(model.config.num_hidden_layers, len(ids) + _ANSWER_TOKENS)
    statements = [f"{facts.beginning}{value}。" for value in facts.candidates]
    with evaluating(model):
        last = torch.tensor([len(ids) - 2], device=device)
        model.decode(torch.tensor([ids[:-1]], device=device), cache, positions=last)
        likelihoods = []
        for statement in encode_texts(subject.tokenizer, statements):
            row = torch.tensor([ids[-1], *statement], device=device)
            logits_SV = model.decode(row[None, :-1], cache)[0]
            log_p_SV = logits_SV.float().log_softmax(-1)
            likelihoods.append(log_p_SV.gather(1, row[1:, None]).double().sum().item())
            cache.crop(len(ids) - 1)
        greedy = SamplingParams(max_new_tokens=_ANSWER_TOKENS, temperature=0)
        stop = stop_token_ids(subject.tokenizer)
        written = list(stream(model, ids, greedy, stop, cache))
    text = str(subject.tokenizer.decode(written, skip_special_tokens=True)).strip()
    answer = text.split("\n")[0].split("。")[0].removeprefix(facts.beginning)
    chosen = facts.candidates[likelihoods.index(max(likelihoods))]
    return _Answered(chosen, text, f1(list(answer), list(facts.value)))
