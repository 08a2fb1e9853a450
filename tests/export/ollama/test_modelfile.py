"""Modelfiles: every prompt as the chat template renders it, by the rules of ollama and by Go itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mengya.errors import UserError
from mengya.export.ollama import go_template as go
from mengya.export.ollama.format import OLLAMA, OllamaOptions, modelfile_of
from mengya.export.ollama.modelfile import go_template, read_modelfile
from mengya.export.ollama.read_modelfile import ModelfileReader, render_messages, template_values
from mengya.export.ollama.turns import read_turns
from mengya.export.parity.conversations import CONVERSATIONS
from mengya.export.source import Source
from mengya.tokenizer.chat_template import render_prompt
from tests.export.ollama.chat_templates import COUNTING, TEMPLATES, TRIMMING, tokenizer_with
from tests.helpers.export_source import small_source

WITHOUT_TOOLS = [chat for chat in CONVERSATIONS if not chat.tools]
OURS = """\
{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system
{{ .Content }}<|im_end|>
{{ else if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Thinking }}<think>
{{ .Thinking }}
</think>

{{ end }}{{ .Content }}<|im_end|>
{{ end }}{{ end }}<|im_start|>assistant
{{ if and .IsThinkSet (not .Think) }}<think>

</think>

{{ end }}"""


def source_with(template: str, folder: Path) -> Source:
    source = small_source("Qwen3", folder)
    return Source(source.model, tokenizer_with(template), folder)


def test_our_own_template() -> None:
    assert go_template(read_turns(tokenizer_with(TEMPLATES["ours"]))) == OURS


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_conversation_is_rendered_as_by_the_chat_template(name: str) -> None:
    tokenizer = tokenizer_with(TEMPLATES[name])
    template = go_template(read_turns(tokenizer))
    for chat in WITHOUT_TOOLS:
        ours = render_prompt(tokenizer, chat.messages, None, chat.enable_thinking)
        assert render_messages(template, chat.messages, chat.enable_thinking) == ours, chat.name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="apt-get install golang-go")
def test_go_itself_renders_the_same(tmp_path: Path) -> None:
    """text/template of Go, with ollama's missingkey=zero; an older ollama does not give IsThinkSet."""
    questions, expected = [], []
    for text in TEMPLATES.values():
        tokenizer = tokenizer_with(text)
        template = go_template(read_turns(tokenizer))
        for chat in WITHOUT_TOOLS:
            values = template_values(chat.messages, chat.enable_thinking)
            questions.append({"Template": template, "Values": values})
            expected.append(render_prompt(tokenizer, chat.messages, None, chat.enable_thinking))
        old = {"Messages": [{"Role": "user", "Content": "在？"}], "Think": False}
        questions.append({"Template": template, "Values": old})
        expected.append(render_prompt(tokenizer, [{"role": "user", "content": "在？"}]))
    program = shutil.copy(Path(__file__).with_name("render.go"), tmp_path)
    asked = subprocess.run(
        ["go", "run", program],
        input=json.dumps(questions).encode(),
        capture_output=True,
        check=True,
    )
    assert json.loads(asked.stdout) == expected


@pytest.mark.parametrize(
    ("template", "reason"), [(TRIMMING, "several turns"), (COUNTING, "to=gguf")]
)
def test_a_template_that_does_more_is_refused(template: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason) as raised:
        OLLAMA.check(source_with(template, tmp_path), OllamaOptions())
    assert "to=gguf" in str(raised.value)


def test_the_folder_and_its_reader(tmp_path: Path) -> None:
    source, options = small_source("Qwen3", tmp_path), OllamaOptions(type="Q4_0", num_ctx=64)
    OLLAMA.check(source, options)
    OLLAMA.write(source, tmp_path, options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Modelfile", "model.gguf"]
    text = (tmp_path / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith("FROM ./model.gguf\n")
    assert read_modelfile(text) == modelfile_of(source, options)
    assert 'PARAMETER stop "<|im_end|>"\n' in text
    assert "PARAMETER num_ctx 64\nPARAMETER temperature 0.8\nPARAMETER top_p 0.95\n" in text
    reader = ModelfileReader(tmp_path)
    assert reader.stop_token_ids() == {0, 2}
    for chat in CONVERSATIONS:  # those with tools by the file's own template
        ours = render_prompt(
            source.tokenizer, chat.messages, chat.tools or None, chat.enable_thinking
        )
        assert reader.prompt(chat.messages, chat.tools or None, chat.enable_thinking) == ours


def test_more_context_than_the_model_reads_is_refused(tmp_path: Path) -> None:
    source = small_source("Qwen3", tmp_path)
    with pytest.raises(UserError, match=r"ollama\.num_ctx=128 or less"):
        OLLAMA.check(source, OllamaOptions(num_ctx=129))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a{{ if .Missing }}b{{ else }}c{{ end }}", "ac"),
        ('{{ if or (eq .A "x") (ne .A "y") }}1{{ else if .A }}2{{ end }}', "2"),
        ('{{ if and .A (not .Missing) }}{{ "{{ \\"}} \\U00003000" }}{{ end }}', '{{ "}} \u3000'),
        ("{{ range .L }}<{{ .V }}>{{ end }}{{ (index .L 1).V }}", "<1><2>2"),
    ],
)
def test_the_template_language(template: str, expected: str) -> None:
    values: dict[str, Any] = {"A": "y", "L": [{"V": "1"}, {"V": "2"}]}
    assert go.render(template, values) == expected


@pytest.mark.parametrize("template", ["{{ end }}", "{{ .A | print }}", "{{ if (.A }}x{{ end }}"])
def test_more_of_the_language_is_an_error(template: str) -> None:
    with pytest.raises(ValueError):
        go.render(template, {"A": "a"})


def test_quotes_and_braces_around_contents_end_nothing() -> None:
    quotes = '"' * 3
    around = ('{"c": "{', "}" + quotes + '<|im_end|>\\n"')
    turn = f"{{{{- '<|im_start|>' + m.role + '{around[0]}' + m.content + '{around[1]}' -}}}}"
    opening = '{{- \'<|im_start|>assistant{"c": "{\' -}}'
    text = (
        "{%- for m in messages -%}" + turn + "{%- endfor -%}{%- if add_generation_prompt -%}"
        + opening + "{%- endif -%}"
    )  # fmt: skip
    tokenizer = tokenizer_with(text)
    template = go_template(read_turns(tokenizer))
    assert quotes not in template and not template.endswith('"') and "{{{" not in template
    for chat in WITHOUT_TOOLS:
        ours = render_prompt(tokenizer, chat.messages, None, chat.enable_thinking)
        assert render_messages(template, chat.messages, chat.enable_thinking) == ours, chat.name


def test_a_stop_token_that_a_modelfile_cannot_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = small_source("Qwen3", tmp_path)
    monkeypatch.setattr("mengya.export.ollama.format._stop_texts", lambda source: ('a"\nFROM b',))
    with pytest.raises(UserError, match="cannot be written in a Modelfile; write to=gguf"):
        OLLAMA.check(source, OllamaOptions())
