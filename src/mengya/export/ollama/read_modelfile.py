"""A Modelfile as ollama reads it: an `export.reader.Reader` of prompts and stop tokens.

ollama itself cannot be asked without installing it. Its rules are those of its source (template.Execute,
collate): neighbouring messages of one role become one. A conversation with tools is rendered by the template
in the GGUF file, as a recent ollama does; one that does not know that refuses tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from gguf import GGUFReader
from transformers.utils.chat_template_utils import render_jinja_template

from mengya.export.ollama import go_template
from mengya.export.ollama.modelfile import read_modelfile


class ModelfileReader:
    """The folder of a Modelfile."""

    program = "ollama's rules for Modelfile"

    def __init__(self, folder: Path) -> None:
        self._modelfile = read_modelfile((folder / "Modelfile").read_text(encoding="utf-8"))
        fields = GGUFReader(folder / self._modelfile.gguf).fields
        self._jinja = fields["tokenizer.chat_template"].contents()
        self._ids = {t: i for i, t in enumerate(fields["tokenizer.ggml.tokens"].contents())}

    def token_ids(self, text: str, parse_special: bool = False) -> None:
        """The other readers are asked."""
        return None

    def logits(self, ids: Sequence[int]) -> None:
        """The other readers are asked."""
        return None

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        enable_thinking: bool | None = None,
    ) -> str:
        if tools or any(m["role"] == "tool" or m.get("tool_calls") for m in messages):
            return self._native(messages, tools, enable_thinking)
        return render_messages(self._modelfile.template, messages, enable_thinking)

    def _native(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        enable_thinking: bool | None,
    ) -> str:
        more: dict[str, Any] = (
            {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        )
        texts, _ = render_jinja_template(
            [[dict(message) for message in messages]],
            tools=cast(Any, tools and [dict(tool) for tool in tools]),
            chat_template=self._jinja,
            add_generation_prompt=True,
            **more,
        )
        return str(texts[0])

    def stop_token_ids(self) -> set[int]:
        return {self._ids[text] for text in self._modelfile.stop}


def render_messages(
    template: str, messages: Sequence[Mapping[str, Any]], enable_thinking: bool | None
) -> str:
    """What ollama's template gives for messages without tools."""
    return go_template.render(template, template_values(messages, enable_thinking))


def template_values(
    messages: Sequence[Mapping[str, Any]], enable_thinking: bool | None
) -> dict[str, Any]:
    """What ollama gives to a template."""
    return {
        "Messages": _collated(messages),
        "System": "\n\n".join(m["content"] for m in messages if m["role"] == "system"),
        "Think": bool(enable_thinking),
        "IsThinkSet": enable_thinking is not None,
    }


def _collated(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    collated: list[dict[str, str]] = []
    for message in messages:
        if collated and collated[-1]["Role"] == message["role"]:
            collated[-1]["Content"] += "\n\n" + message["content"]
            continue
        thinking = message.get("reasoning_content") or ""
        collated.append(
            {"Role": message["role"], "Content": message["content"], "Thinking": thinking}
        )
    return collated
