"""Chat templates in the manners of others, and one that ollama's language cannot say."""

from __future__ import annotations

import copy

from transformers import PreTrainedTokenizerFast

from mengya.tokenizer.template import CHAT_TEMPLATE
from tests.helpers.export_source import small_tokenizer

_TURNS = "{%- for m in messages -%}%s{%- endfor -%}{%- if add_generation_prompt -%}%s{%- endif -%}"
_CHATML = "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}"
_OPEN = "{{- '<|im_start|>assistant\\n' -}}"
_ALTERNATES = (
    "{%- if not loop.first and m.role == loop.previtem.role -%}"
    "{{ raise_exception('roles must alternate') }}{%- endif -%}"
)


def _template(turn: str, opening: str) -> str:
    return _TURNS.replace("%s", turn, 1).replace("%s", opening, 1)


TEMPLATES = {
    "ours": CHAT_TEMPLATE,
    "a system text of its own": (
        "{%- if messages[0].role != 'system' -%}"
        "{{- '<|im_start|>system\\n你是助手。<|im_end|>\\n' -}}{%- endif -%}"
    )
    + _template(_CHATML, _OPEN),
    "bos and tags": "{{- bos_token -}}"
    + _template(
        "{{- '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' -}}",
        "{{- '<|assistant|>\\n' -}}",
    ),
    "old reasoning left out, thinking can be off": _template(
        _CHATML,
        _OPEN
        + "{%- if enable_thinking is false -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}",
    ),
    "an empty block where there is no reasoning": _template(
        "{%- if m.role == 'assistant' -%}{{- '<|im_start|>assistant\\n<think>\\n' -}}"
        "{{- (m.reasoning_content or '') + '\\n</think>\\n\\n' + m.content + '<|im_end|>\\n' -}}"
        "{%- else -%}" + _CHATML + "{%- endif -%}",
        _OPEN,
    ),
    "roles must alternate": _template(_ALTERNATES + _CHATML, _OPEN),
    "odd characters": _template(
        "{{- '\u3000{' + '{ \"\"\" }} \\\\ \u2028' + m.role + '：' + m.content + '\\r\\n' -}}",
        "{{- '\u3000{' + '{ \"\"\" }} \\\\ \u2028assistant：' -}}",
    ),
}
TRIMMING = _template(
    "{{- '<|im_start|>' + m.role + '\\n' + m.content.strip() + '<|im_end|>' -}}", _OPEN
)
COUNTING = _template(
    "{{- loop.index ~ m.role + m.content + '<|im_end|>' -}}", "{{- 'assistant' -}}"
)


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    """Our small tokenizer with another template."""
    tokenizer = copy.deepcopy(small_tokenizer())
    tokenizer.chat_template = template
    return tokenizer
