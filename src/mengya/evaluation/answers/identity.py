"""The yardstick `identity`: who a chat model says it is.

The questions are those that `mengya identity` keeps out of its conversations (text/identity/exam.yaml). Rules
read what an answer says (text/identity/claims.py, text/placeholders.py); no model judges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mengya.evaluation.answers.answer import answers
from mengya.evaluation.answers.questions import fitting, has_room, spread
from mengya.evaluation.subject import Subject
from mengya.evaluation.yardstick import YardstickConfig, YardstickResult
from mengya.measured.measurement import Better, Measurement
from mengya.text.identity.claims import claimed_assistant, self_name
from mengya.text.identity.exam import exam_questions, is_right, says
from mengya.text.identity.known import known_assistant
from mengya.text.placeholders import unfilled
from mengya.tokenizer.message import Message

Asked = tuple[dict[str, Any], str]  # a question, as exam_questions gives it, and the last answer


def identity(subject: Subject, config: YardstickConfig) -> YardstickResult:
    """The figures of `judged` for greedy answers. Not of base models: they continue a text."""
    if not subject.chat:
        why = "a base model continues a text and is not asked who it is"
        return YardstickResult([Measurement.not_applicable("identity", "share", "higher", why)])
    questions = spread(exam_questions(config.name, config.author), config.limit)
    asked = _ask(subject, questions, config)
    left_out = len(questions) - len(asked)
    note = f"{left_out} questions too long for the model's context" if left_out else ""
    return judged(asked, config, note)


def judged(asked: Sequence[Asked], config: YardstickConfig, note: str = "") -> YardstickResult:
    """Shares of the answers, with Wilson's intervals.

    identity                    say all that was asked for and nothing wrong; with a name or an author
    identity/name, /author      of the questions that ask for it: say it, and nothing wrong
    identity/consistency        give the name that the model gives itself most often
    identity/known_assistant    claim to be a well-known assistant, or of its maker; of `author` itself apart
    identity/placeholder        have a placeholder that nobody filled in
    """
    result = YardstickResult([])
    for part, scores in _scores(asked, config).items():
        counted = 0
        for (question, answer), score in zip(asked, scores, strict=True):
            if score is None:
                continue
            counted += 1
            item = {"part": part, "id": question["id"], "score": int(score)}
            if part == "known_assistant":  # the part that always has all questions
                item |= {"turns": question["turns"], "answer": answer}
            result.items.append(item)
        if counted:
            named = _named(asked) if part == "consistency" else ""
            notes = "; ".join(filter(None, (named, note)))
            result.measurements.append(_share(part, scores.count(True), counted, notes))
    return result


def _ask(
    subject: Subject, questions: Sequence[dict[str, Any]], config: YardstickConfig
) -> list[Asked]:
    """Questions with the answer to their last turn, which follows the model's own answers to earlier ones.

    A question that the model's context has no room for is left out.

    Raises:
        UserError: there is room for none.
    """
    talks = [_turn(question["turns"][0]) for question in questions]
    kept = fitting(subject, talks)
    first = [i for i in kept if len(questions[i]["turns"]) > 1]
    # A first answer leaves room for the second.
    shorter = min(config.max_new_tokens, subject.context_length // 4)
    for i, text in zip(
        first, _say(subject, [talks[i] for i in first], shorter, config), strict=True
    ):
        talks[i] += [{"role": "assistant", "content": text}, *_turn(questions[i]["turns"][1])]
    kept = [i for i in kept if i not in first or has_room(subject, talks[i])]
    said = _say(subject, [talks[i] for i in kept], config.max_new_tokens, config)
    return [(questions[i], text) for i, text in zip(kept, said, strict=True)]


def _turn(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _say(
    subject: Subject, talks: Sequence[list[Message]], longest: int, config: YardstickConfig
) -> list[str]:
    made = answers(subject, talks, temperature=None, max_new_tokens=longest, seed=config.seed)
    return [answer.text for answer in made]


def _scores(asked: Sequence[Asked], config: YardstickConfig) -> dict[str, list[bool | None]]:
    """Of each part, whether each answer counts; None where the question does not ask for it."""
    names = [self_name(answer) for _, answer in asked]
    (most, _), *_ = Counter(filter(None, names)).most_common(1) or [(None, 0)]
    right = [is_right(question, answer) for question, answer in asked]
    denied = [any(says(text, answer) for text in question["deny"]) for question, answer in asked]

    def said(own: str | None) -> list[bool | None]:
        return [
            says(own, answer) and not wrong if own and own in question["say"] else None
            for (question, answer), wrong in zip(asked, denied, strict=True)
        ]

    return {
        "identity": [
            each if question["say"] else None
            for (question, _), each in zip(asked, right, strict=True)
        ],
        "name": said(config.name),
        "author": said(config.author),
        "consistency": [most is not None and name == most for name in names],
        "known_assistant": [
            _claims_another(answer, question["turns"][-1], config) for question, answer in asked
        ],
        "placeholder": [
            bool(unfilled(answer, question["turns"][-1])) for question, answer in asked
        ],
    }


def _claims_another(answer: str, question: str, config: YardstickConfig) -> bool:
    claimed = claimed_assistant(answer, question)
    if claimed is None:
        return False
    is_own = config.name is not None and known_assistant(config.name) is claimed
    return not is_own and not (config.author is not None and claimed.is_made_by(config.author))


def _named(asked: Sequence[Asked]) -> str:
    """Which name is given, and how often."""
    names = Counter(filter(None, (self_name(answer) for _, answer in asked)))
    if not names:
        return "no answer gives a name"
    name, count = names.most_common(1)[0]
    others = sum(names.values()) - count
    return f"{name} in {count} of {len(asked)} answers, {others} give another name, the rest none"


def _share(part: str, count: int, items: int, note: str) -> Measurement:
    name = "identity" if part == "identity" else f"identity/{part}"
    better: Better = "lower" if part in ("known_assistant", "placeholder") else "higher"
    return Measurement.share(name, count, items, better, note=note)
