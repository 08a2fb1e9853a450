"""More wordings of the questions, by the model of an endpoint; the answers stay ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mengya.endpoint.asking import Ask
from mengya.endpoint.client import Endpoint
from mengya.endpoint.messages import Prompt
from mengya.synthesis.conversation import MadeConversation
from mengya.synthesis.filters import SynthFilterConfig, chinese_share, text_reason
from mengya.synthesis.identity.parts import CHINESE, Language
from mengya.synthesis.identity.wordings import wording_key
from mengya.synthesis.replies import read_texts
from mengya.synthesis.selection import Selection
from mengya.synthesis.templates import load_template

_EACH = 3  # wordings that a request asks for
_LONGEST = 60  # characters of a question


class Paraphrases:
    """New wordings of the first questions of single-turn conversations in Chinese.

    Args:
        wanted: how many to ask for.
        train: the conversations; kept: questions that must stay unknown, of the test.
        names: those that may stand in a question: a wording has the same ones as its question.
    """

    def __init__(
        self,
        wanted: int,
        train: Iterable[MadeConversation],
        kept: Iterable[str],
        names: Iterable[str],
    ) -> None:
        self._wanted, self._names = wanted, list(names)
        self.template = load_template("paraphrase")
        single = {c.first_question: c for c in train if _is_single(c)}
        self._originals = list(single.values())[: -(-wanted // _EACH)]
        self._taken = {wording_key(question) for question in (*kept, *single)}

    def ask(self, ask: Ask) -> bool:
        return ask("wordings", lambda: map(self._prompt, self._originals))

    def conversations(self, endpoint: Endpoint, selection: Selection) -> Iterator[MadeConversation]:
        """Those that are kept, at most as many as are wanted."""
        made = 0
        for original in self._originals:
            completion = endpoint.paid(self._prompt(original))
            if completion is None:
                continue
            wordings = read_texts(completion.text)[: self._wanted - made]
            if not wordings:
                selection.drop(completion.problem or "unreadable", completion.text, {})
            for wording in wordings:
                if (reason := self._reason(wording, original.first_question)) is not None:
                    selection.drop(reason, wording, {})
                    continue
                made += 1
                yield _reworded(original, wording, completion.model, self.template.version)

    def _prompt(self, original: MadeConversation) -> Prompt:
        values = {"question": original.first_question, "count": _EACH}
        return Prompt("paraphrase", self.template.messages(values))

    def _reason(self, wording: str, question: str) -> str | None:
        if (reason := text_reason(wording, 2, SynthFilterConfig())) is not None:
            return reason
        if len(wording) > _LONGEST:
            return "too_long"
        if any((name in wording) != (name in question) for name in self._names):
            return "other_names"
        if chinese_share(self._without_names(wording)) < 0.9:
            return "not_chinese"
        key = wording_key(wording)
        if key in self._taken:
            return "duplicate"
        self._taken.add(key)
        return None

    def _without_names(self, wording: str) -> str:
        for name in self._names:
            wording = wording.replace(name, "")
        return wording


def names_in(language: Language, own: Iterable[str]) -> list[str]:
    """All names that a question of the language may hold."""
    others = [name for pair in language.others for name in pair]
    return [*own, *others, *language.people, *language.new_names]


def _is_single(conversation: MadeConversation) -> bool:
    return conversation.turns == 1 and conversation.provenance["language"] == CHINESE


def _reworded(
    original: MadeConversation, wording: str, model: str, version: str
) -> MadeConversation:
    messages = [
        {**message, "content": wording} if message["role"] == "user" else message
        for message in original.messages
    ]
    return MadeConversation(
        messages, {**original.provenance, "reworded_by": model, "prompt": version}
    )
