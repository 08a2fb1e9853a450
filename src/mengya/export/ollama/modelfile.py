"""ollama's Modelfile: which file, how turns are written, where answers stop and how they are drawn.

Takes a `Turns` and settings; gives text, and reads such text back. The template shows no tools: ollama lists
them in another JSON than the model learned. A recent ollama sees that the template in the GGUF file can do
more, and reads that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from unicodedata import category

from mengya.export.ollama.turns import Around, Turns, common_start
from mengya.export.sampling_advice import SamplingAdvice

_TAG = "<think>"


@dataclass(frozen=True)
class Modelfile:
    """What such a file says; `stop` are texts."""

    gguf: str
    template: str
    stop: tuple[str, ...]
    parameters: dict[str, str]

    def text(self) -> str:
        """The file."""
        lines = [f"FROM ./{self.gguf}", f'TEMPLATE """{self.template}"""']
        lines += [f'PARAMETER stop "{text}"' for text in self.stop]
        lines += [f"PARAMETER {name} {value}" for name, value in self.parameters.items()]
        return "\n".join(lines) + "\n"


def read_modelfile(text: str) -> Modelfile:
    """What `Modelfile.text` wrote."""
    found = re.fullmatch(r'FROM \./(.+?)\nTEMPLATE """(.*)"""\n(.*)', text, re.DOTALL)
    assert found is not None
    pairs = re.findall(r"^PARAMETER (\w+) (.+)$", found[3], re.MULTILINE)
    stop = tuple(value[1:-1] for name, value in pairs if name == "stop")
    return Modelfile(found[1], found[2], stop, {n: v for n, v in pairs if n != "stop"})


def parameters(advice: SamplingAdvice, context: int) -> dict[str, str]:
    """Settings in ollama's words."""
    values = {
        "num_ctx": context, "temperature": advice.temperature, "top_p": advice.top_p,
        "top_k": advice.top_k, "min_p": advice.min_p, "repeat_penalty": advice.repetition_penalty,
    }  # fmt: skip
    return {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in values.items()
    }


def go_template(turns: Turns) -> str:
    """The turns in the template language of Go."""
    content = "{{ .Content }}"
    answer = _before_answer(turns) + content + _literal(turns.assistant[1])
    text = (
        '{{ range .Messages }}{{ if eq .Role "system" }}'
        + _around(turns.system, content)
        + '{{ else if eq .Role "user" }}'
        + _around(turns.user, content)
        + '{{ else if eq .Role "assistant" }}'
        + answer
        + "{{ end }}{{ end }}"
        + _literal(turns.opening)
    )
    if turns.without_system:
        first = '{{ if ne (index .Messages 0).Role "system" }}'
        text = first + _literal(turns.without_system) + "{{ end }}" + text
    if turns.no_thinking:
        text += "{{ if and .IsThinkSet (not .Think) }}" + _literal(turns.no_thinking) + "{{ end }}"
    return text


def _before_answer(turns: Turns) -> str:
    """What stands before an answer, with or without reasoning. ollama takes the texts around it, up to where
    the condition begins and ends, for the tags of reasoning."""
    plain = turns.assistant[0]
    if turns.thinking is None:
        return _literal(plain)
    before, after = turns.thinking
    same = common_start(plain, before)
    same = same[:found] if (found := same.find(_TAG)) >= 0 else same
    with_reasoning = _around((before[len(same) :], after), "{{ .Thinking }}")
    otherwise = _literal(plain[len(same) :])
    otherwise = "{{ else }}" + otherwise if otherwise else ""
    return _literal(same) + "{{ if .Thinking }}" + with_reasoning + otherwise + "{{ end }}"


def _around(parts: Around, inner: str) -> str:
    return _literal(parts[0]) + inner + _literal(parts[1])


def _literal(text: str) -> str:
    """Text of a template; what Go or the Modelfile would take otherwise goes in as a quoted string.

    ollama drops characters that Go does not call printable, as the ideographic space. A brace in front of an
    action would belong to it, and quotes at an end to the three that end the template.
    """
    parts = re.split(r'(\{+|"{3,}|^"+|"+$|\r)', text)
    return "".join(_quoted(part) if i % 2 else _printable(part) for i, part in enumerate(parts))


def _printable(text: str) -> str:
    return "".join(c if c in " \n\t" or category(c)[0] in "LMNPS" else _quoted(c) for c in text)


def _quoted(text: str) -> str:
    return '{{ "' + "".join(_escaped(c) for c in text) + '" }}'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if category(character)[0] in "LMNPS":
        return character
    return f"\\U{ord(character):08x}"
