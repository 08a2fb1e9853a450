"""Facts about a model -> conversations about it, the same ones for the same settings and seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from mengya.endpoint.messages import ChatMessage
from mengya.synthesis.conversation import MadeConversation
from mengya.synthesis.identity.config import IdentityConfig
from mengya.synthesis.identity.parts import CHINESE, Language, Topic, load_languages
from mengya.synthesis.identity.wordings import held_out_wordings, questions_of
from mengya.text.duplicates import squeeze
from mengya.text.identity.fill import fill, slots
from mengya.text.identity.known import known_assistant

VERSION = 2  # raised when the same settings would give other conversations than before
_TRIES = 30  # for every conversation that is wanted: parts have only so many combinations
_SECOND_TURN, _SMALL_TALK, _SYSTEM, _NAMED_SYSTEM = 0.25, 0.12, 0.12, 0.1
_PLAIN_MARK, _NO_MARK = 0.08, 0.15  # shares of questions that end in ? or in nothing
_UNSPACED = 0.5  # share of the questions that write 你是ChatGPT吗
_NOT_FIRST = ("greeting", "introduced_person")  # topics that open a conversation


@dataclass
class Composed:
    """Conversations to train on, and those whose wordings none of them has."""

    train: list[MadeConversation] = field(default_factory=list)
    held_out: list[MadeConversation] = field(default_factory=list)


def compose_conversations(config: IdentityConfig) -> Composed:
    """As many as there are wanted, or as many different ones as the parts give."""
    languages = [_without(load_languages()[code], config) for code in (CHINESE, *config.languages)]
    held = held_out_wordings(languages, config.held_out, config.seed)
    composer = _Composer(config, languages, held)
    kept = round(config.count * config.held_out)
    return Composed(composer.make(config.count - kept, False), composer.make(kept, True))


def _without(language: Language, config: IdentityConfig) -> Language:
    """The language without the model's own name and author, by whatever name, among the others."""
    own_kind = known_assistant(config.name)

    def other(pair: tuple[str, str]) -> bool:
        kind = known_assistant(pair[0])
        by_author = kind is not None and kind.is_made_by(config.author)
        return not by_author and (kind is None or kind is not own_kind) and all(map(free, pair))

    def free(text: str) -> bool:
        own = (config.name.casefold(), config.author.casefold())
        return not any(text.casefold() in name or name in text.casefold() for name in own)

    return Language(
        **{
            **vars(language),
            "others": tuple(filter(other, language.others)),
            "people": tuple(filter(free, language.people)),
            "new_names": tuple(filter(free, language.new_names)),
        }
    )


class _Composer:
    def __init__(
        self, config: IdentityConfig, languages: Sequence[Language], held: set[str]
    ) -> None:
        self._config, self._languages, self._held = config, languages, held
        self._facts = {"name": config.name, "author": config.author, "kind": config.kind}
        self._used: dict[tuple[str, str, bool], int] = {}

    def make(self, wanted: int, held_out: bool) -> list[MadeConversation]:
        made: dict[str, MadeConversation] = {}
        for number in range(wanted * _TRIES):
            if len(made) == wanted:
                break
            rng = random.Random(
                f"{self._config.seed}/{'held_out' if held_out else 'train'}/{number}"
            )
            if (one := self._conversation(rng, held_out)) is not None:
                made.setdefault(squeeze("\n".join(m["content"] for m in one.messages)), one)
        return list(made.values())

    def _conversation(self, rng: random.Random, held_out: bool) -> MadeConversation | None:
        """None when the topic that was drawn has no wording on this side."""
        language = self._language(rng)
        topic = rng.choices(language.topics, [topic.weight for topic in language.topics])[0]
        values = self._values(language, rng)
        before = self._before(language, topic, values, rng)
        openings = language.later_openings if _has_talk(before) else language.openings
        turn = self._turn(language, topic, values, held_out, rng, openings)
        if turn is None:
            return None
        messages, names = before + turn, [topic.name]
        follows = [second for second in language.second_turns if topic.name in second.after]
        if follows and rng.random() < _SECOND_TURN:
            second = rng.choice(follows)
            turn = self._turn(language, second, values, held_out, rng, ("",))
            if turn is not None:
                messages, names = messages + turn, [*names, second.name]
        provenance = {
            "made_by": "mengya identity", "version": VERSION, "seed": self._config.seed,
            "language": language.code, "topics": names,
        }  # fmt: skip
        return MadeConversation(messages, provenance)

    def _language(self, rng: random.Random) -> Language:
        chinese, *others = self._languages
        if not others or rng.random() >= self._config.language_share:
            return chinese
        if others[0].code == "en" and rng.random() < 0.5:
            return others[0]
        return rng.choice(others)

    def _values(self, language: Language, rng: random.Random) -> dict[str, str]:
        """What fills the slots of one conversation."""
        values = dict(self._facts)
        if language.others:
            values["other"], values["maker"] = rng.choice(language.others)
        for slot, names in (("person", language.people), ("new_name", language.new_names)):
            if names:
                values[slot] = rng.choice(names)
        return values

    def _turn(
        self,
        language: Language,
        topic: Topic,
        values: dict[str, str],
        held_out: bool,
        rng: random.Random,
        openings: Sequence[str],
    ) -> list[ChatMessage] | None:
        questions = [
            question
            for question in questions_of(topic, self._held, held_out)
            if slots(question) <= values.keys()
        ]
        answers = [answer for answer in topic.answers if slots(answer) <= values.keys()]
        if not questions or not answers:
            return None
        is_chinese = language.code == CHINESE
        spaced = not is_chinese or rng.random() >= _UNSPACED
        question = fill(self._next(language, topic, questions, held_out), values, spaced)
        answer = fill(rng.choice(answers), values, language.code.startswith("zh"))
        if is_chinese:
            question = _as_typed(question, ("",) if topic.bare else openings, rng)
            answer += rng.choice(language.closings) if topic.closes else ""
        return [
            {"role": "user", "content": question},
            {
                "role": "assistant",
                "content": answer[0].upper() + answer[1:] if not is_chinese else answer,
            },
        ]

    def _next(self, language: Language, topic: Topic, questions: list[str], held_out: bool) -> str:
        """The wordings of a topic in turn, so that all of them occur."""
        place = (language.code, topic.name, held_out)
        number = self._used[place] = self._used.get(place, -1) + 1
        random.Random(f"{self._config.seed}/{place}/{number // len(questions)}").shuffle(questions)
        return questions[number % len(questions)]

    def _before(
        self, language: Language, topic: Topic, values: dict[str, str], rng: random.Random
    ) -> list[ChatMessage]:
        """A system message, small talk, both or neither."""
        messages: list[ChatMessage] = []
        drawn = rng.random()
        if language.systems and drawn < _SYSTEM:
            messages.append({"role": "system", "content": rng.choice(language.systems)})
        elif language.named_systems and drawn < _SYSTEM + _NAMED_SYSTEM:
            system = fill(rng.choice(language.named_systems), values)
            messages.append({"role": "system", "content": system})
        if language.small_talk and topic.name not in _NOT_FIRST and rng.random() < _SMALL_TALK:
            question, answer = rng.choice(language.small_talk)
            messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        return messages


def _has_talk(messages: Sequence[ChatMessage]) -> bool:
    return any(message["role"] == "user" for message in messages)


def _as_typed(question: str, openings: Sequence[str], rng: random.Random) -> str:
    """The question with an opening where one fits, and its last mark as people type it."""
    if question.startswith("你") and question.endswith("？") and "吧" not in question:
        question = rng.choice(openings) + question
    drawn = rng.random()
    if drawn < _NO_MARK:
        return question.rstrip("？。！")
    if drawn < _NO_MARK + _PLAIN_MARK and question.endswith("？"):
        return f"{question[:-1]}?"
    return question
