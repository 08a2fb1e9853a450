"""kind=qa: passages of documents -> questions and answers that stand in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mengya.endpoint.asking import Ask
from mengya.endpoint.client import Endpoint
from mengya.endpoint.messages import ChatMessage, Completion, Prompt
from mengya.synthesis.config import SynthConfig
from mengya.synthesis.conversation import MadeConversation
from mengya.synthesis.filters import first_reason, grams, grounded_reason, pair_reason
from mengya.synthesis.passages import Passage
from mengya.synthesis.replies import Pair, is_empty_list, read_pairs
from mengya.synthesis.selection import Selection
from mengya.synthesis.templates import load_template
from mengya.text.prompt_template import Template

_SHOWN_PASSAGE = "阅读下面的材料，回答问题。\n\n{passage}\n\n问题：{question}"


class QuestionAnswers:
    """Args:
    passages: gives them all in order, each time that it is called.
    """

    def __init__(self, config: SynthConfig, passages: Callable[[], Iterable[Passage]]) -> None:
        self._config, self._passages = config, passages
        name = "qa" if config.turns == 1 else "qa_turns"
        self._template = load_template(name, getattr(config.prompts, name))
        self._prompt_words = grams(self._template.system, self._template.user)

    @property
    def templates(self) -> list[Template]:
        return [self._template]

    def ask(self, ask: Ask) -> bool:
        """Have every passage asked about; whether all have a reply then."""
        return ask("questions", lambda: (prompt for _, prompt in self._prompts()))

    def conversations(self, endpoint: Endpoint, selection: Selection) -> Iterator[MadeConversation]:
        """Those that are kept, in the order of the passages."""
        for passage, prompt in self._prompts():
            completion = endpoint.paid(prompt)
            if completion is None:
                continue
            provenance = self._provenance(passage, completion)
            for conversation in self._of_reply(passage, completion, provenance, selection):
                if selection.keeps(conversation):
                    yield conversation

    def _prompts(self) -> Iterator[tuple[Passage, Prompt]]:
        config = self._config
        one_each = config.turns == 1
        values: dict[str, object] = {"count": config.per_passage if one_each else config.turns}
        for passage in self._passages():
            digest = hashlib.sha256(passage.text.encode()).hexdigest()[:16]
            messages = self._template.messages({**values, "passage": passage.text})
            for number in range(1 if one_each else config.per_passage):
                yield passage, Prompt(f"qa/{digest}/{number}", messages)

    def _of_reply(
        self,
        passage: Passage,
        completion: Completion,
        provenance: dict[str, Any],
        selection: Selection,
    ) -> Iterator[MadeConversation]:
        pairs = [] if completion.problem in ("refused", "rejected") else read_pairs(completion.text)
        if not pairs:
            unread = "nothing_to_ask" if is_empty_list(completion.text) else "unreadable"
            problem = completion.problem or unread
            selection.drop(problem, completion.text or completion.detail, provenance)
            return
        size = self._config.turns
        for start in range(0, len(pairs), size):
            kept: list[Pair] = []
            for pair in pairs[start : start + size]:
                reason = self._reason(pair, passage, is_first=not kept)
                if reason is not None:  # what follows may refer to it
                    selection.drop(reason, f"{pair.question}\n{pair.answer}", provenance)
                    break
                kept.append(pair)
            if kept:
                yield MadeConversation(self._messages(kept, passage), provenance)

    def _reason(self, pair: Pair, passage: Passage, is_first: bool) -> str | None:
        filters, shown = self._config.filters, self._config.show_passage
        return first_reason(
            (
                pair_reason(*pair, filters, self._prompt_words),
                grounded_reason(*pair, passage.text, filters, shown or not is_first),
            )
        )

    def _messages(self, pairs: list[Pair], passage: Passage) -> list[ChatMessage]:
        system = self._config.system
        messages: list[ChatMessage] = [{"role": "system", "content": system}] if system else []
        for number, (question, answer) in enumerate(pairs):
            if number == 0 and self._config.show_passage:
                question = _SHOWN_PASSAGE.format(passage=passage.text, question=question)
            messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        return messages

    def _provenance(self, passage: Passage, completion: Completion) -> dict[str, Any]:
        return {
            "made_by": "mengya synth",
            "kind": "qa",
            "file": passage.file,
            "line": passage.line,
            "model": completion.model or self._config.endpoint.model,
            "prompt": self._template.version,
        }
