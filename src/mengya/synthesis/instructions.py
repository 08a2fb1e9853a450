"""kind=instructions: seeds -> new instructions -> their answers, and maybe further turns.

The method is that of Self-Instruct (Wang et al., 2023). Instructions are asked for in rounds. A round shows
examples from the seeds and from what earlier rounds gave, so it begins when every request of the one before
has its reply: what is asked depends on nothing else, and a run that was killed asks the same.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mengya.endpoint.asking import Ask
from mengya.endpoint.client import Endpoint
from mengya.endpoint.messages import ChatMessage, Completion, Prompt
from mengya.synthesis.config import SynthConfig
from mengya.synthesis.conversation import MadeConversation
from mengya.synthesis.filters import first_reason, grams, pair_reason, text_reason
from mengya.synthesis.replies import read_texts
from mengya.synthesis.selection import Selection
from mengya.synthesis.templates import load_template
from mengya.text.prompt_template import Template
from mengya.text.thinking import without_thinking

_MOST_A_ROUND = 64  # requests
_STALLED = 0.05  # of the instructions that a round asked for: no more come
_OWN_SHARE = 0.4  # of the examples, once there are earlier new ones
_NEEDS_MORE = re.compile(
    r"图片|图中|截图|照片里|视频|音频|录音|链接|网页|附件|上传|以下(?:文章|文本|内容)[。：:]?$"
)
_SPEAKER = {"user": "用户", "assistant": "助手"}


@dataclass
class _Draft:
    """An instruction on its way to a conversation; `model` of its last answer."""

    messages: list[ChatMessage]
    model: str = ""
    is_open: bool = True
    prompts: list[str] = field(default_factory=list)


class Instructions:
    """Args:
    seeds: instructions to begin with.
    """

    def __init__(self, config: SynthConfig, seeds: list[str]) -> None:
        self._config, self._seeds = config, seeds
        prompts = config.prompts
        self._write = load_template("instructions", prompts.instructions)
        self._answer = load_template("answer", prompts.answer)
        self._follow = load_template("follow_up", prompts.follow_up)
        self._prompt_words = grams(*(f"{t.system}\n{t.user}" for t in self.templates))

    @property
    def templates(self) -> list[Template]:
        further = [self._follow] if self._config.turns > 1 else []
        return [self._write, self._answer, *further]

    def make(
        self, endpoint: Endpoint, ask: Ask, selection: Selection
    ) -> tuple[list[MadeConversation], bool]:
        """The conversations that are kept, and whether nothing is missing."""
        instructions, complete = self._instructions(endpoint, ask, selection)
        drafts = [_Draft([{"role": "user", "content": text}]) for text in instructions]
        for turn in range(self._config.turns):
            if turn:
                complete &= self._ask_on(drafts, turn, endpoint, ask, selection)
            complete &= self._answered(drafts, turn, endpoint, ask, selection)
        finished = (self._finished(draft) for draft in drafts if len(draft.messages) > 1)
        kept = list(finished)
        selection.kept += len(kept)
        selection.turns += sum(conversation.turns for conversation in kept)
        return kept, complete

    def _instructions(
        self, endpoint: Endpoint, ask: Ask, selection: Selection
    ) -> tuple[list[str], bool]:
        found: list[str] = []
        number, complete = 0, True
        for seed in self._seeds:
            selection.is_new(seed)
        while len(found) < self._config.count and complete:
            missing = (self._config.count - len(found)) / self._config.per_request
            size = min(_MOST_A_ROUND, math.ceil(missing))
            prompts = [self._prompt(at, found) for at in range(number, number + size)]
            complete = ask("instructions", lambda prompts=prompts: prompts)
            before = len(found)
            for prompt in prompts:
                if (completion := endpoint.paid(prompt)) is not None:
                    found += self._read(completion, selection)
            number += size
            if len(found) - before < _STALLED * size * self._config.per_request:
                break
        return found[: self._config.count], complete

    def _prompt(self, number: int, found: list[str]) -> Prompt:
        rng = random.Random(f"{self._config.seed}/{number}")
        own = min(len(found), int(self._config.shown * _OWN_SHARE))
        examples = rng.sample(self._seeds, self._config.shown - own) + rng.sample(found, own)
        rng.shuffle(examples)
        listed = "\n".join(f"{at}. {text}" for at, text in enumerate(examples, 1))
        values = {"examples": listed, "count": self._config.per_request}
        return Prompt(f"instructions/{number}", self._write.messages(values))

    def _read(self, completion: Completion, selection: Selection) -> Iterator[str]:
        refused = completion.problem in ("refused", "rejected")
        texts = [] if refused else read_texts(completion.text)
        if not texts:
            selection.drop(
                completion.problem or "unreadable", completion.text or completion.detail, {}
            )
        for text in texts:
            filters = self._config.filters
            reason = first_reason(
                (
                    text_reason(text, filters.min_question_characters, filters),
                    "copies_prompt" if self._prompt_words & grams(text) else None,
                    "needs_more_than_text" if _NEEDS_MORE.search(text) else None,
                )
            ) or selection.is_new(text)
            if reason is None:
                yield text
            else:
                selection.drop(reason, text, {})

    def _answered(
        self, drafts: list[_Draft], turn: int, endpoint: Endpoint, ask: Ask, selection: Selection
    ) -> bool:
        """Put answers to open drafts; one whose answer is not kept loses its last question and is closed."""
        open_drafts = [draft for draft in drafts if draft.is_open]
        prompts = [
            Prompt(f"answer/{turn}", [*self._answer.system_message({}), *draft.messages])
            for draft in open_drafts
        ]
        complete = ask("answers", lambda: prompts)
        for draft, prompt in zip(open_drafts, prompts, strict=True):
            question = draft.messages[-1]["content"]
            completion = endpoint.paid(prompt)
            answer = without_thinking(completion.text) if completion is not None else ""
            if completion is not None:
                reason = completion.problem or pair_reason(
                    question, answer, self._config.filters, self._prompt_words
                )
                if reason is None:
                    draft.messages.append({"role": "assistant", "content": answer})
                    draft.model = completion.model
                    continue
                selection.drop(reason, f"{question}\n{answer or completion.detail}", {})
            draft.messages.pop()
            draft.is_open = False
        return complete

    def _ask_on(
        self, drafts: list[_Draft], turn: int, endpoint: Endpoint, ask: Ask, selection: Selection
    ) -> bool:
        """Have the user of every open draft say something more."""
        open_drafts = [draft for draft in drafts if draft.is_open]
        prompts = [
            Prompt(f"follow_up/{turn}", self._follow.messages({"conversation": _shown(draft)}))
            for draft in open_drafts
        ]
        complete = ask("follow-ups", lambda: prompts)
        for draft, prompt in zip(open_drafts, prompts, strict=True):
            completion = endpoint.paid(prompt)
            text = _one_line(completion.text) if completion is not None else ""
            reason = None
            if completion is not None:
                reason = completion.problem or text_reason(text, 2, self._config.filters)
            if reason is None and completion is not None and "\n" not in text:
                draft.messages.append({"role": "user", "content": text})
                continue
            draft.is_open = False
            if completion is not None:
                selection.drop(reason or "unreadable", completion.text, {})
        return complete

    def _finished(self, draft: _Draft) -> MadeConversation:
        system = self._config.system
        head: list[ChatMessage] = [{"role": "system", "content": system}] if system else []
        provenance: dict[str, Any] = {
            "made_by": "mengya synth",
            "kind": "instructions",
            "model": draft.model or self._config.endpoint.model,
            "prompt": " ".join(template.version for template in self.templates),
        }
        return MadeConversation([*head, *draft.messages], provenance)


def _shown(draft: _Draft) -> str:
    return "\n".join(f"{_SPEAKER[m['role']]}：{m['content']}" for m in draft.messages)


def _one_line(text: str) -> str:
    """What the user says, without the quotes and the name that models put around it."""
    text = re.sub(r"^(?:用户|我)\s*[:：]\s*", "", without_thinking(text))
    return text.strip().strip('“”"「」').strip()
