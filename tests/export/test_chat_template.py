"""Templates without marks of generation render as those with them."""

from __future__ import annotations

import itertools
from typing import Any

import jinja2
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from mengya.export.chat_template import without_generation_marks
from mengya.export.parity.conversations import CONVERSATIONS, Conversation
from mengya.tokenizer.template import CHAT_TEMPLATE

_MESSAGES = [{"role": "user", "content": "在？"}, {"role": "assistant", "content": " 在。\n"}]


def rendered(template: str, messages: list[dict[str, Any]], **more: Any) -> str:
    texts, _ = render_jinja_template([messages], chat_template=template, **more)
    return str(texts[0])


@pytest.mark.parametrize("chat", CONVERSATIONS, ids=lambda chat: chat.name)
def test_ours(chat: Conversation) -> None:
    stripped = without_generation_marks(CHAT_TEMPLATE)
    more: dict[str, Any] = {"tools": chat.tools or None, "enable_thinking": chat.enable_thinking}
    for prompt in (True, False):
        expected = rendered(CHAT_TEMPLATE, chat.messages, add_generation_prompt=prompt, **more)
        assert rendered(stripped, chat.messages, add_generation_prompt=prompt, **more) == expected
    jinja2.Environment().parse(stripped)  # plain Jinja stops at a mark
    with pytest.raises(jinja2.TemplateSyntaxError):
        jinja2.Environment().parse(CHAT_TEMPLATE)


@pytest.mark.parametrize(("left", "right"), itertools.product(["", "-"], repeat=2))
def test_space_around_marks_is_trimmed_alike(left: str, right: str) -> None:
    template = (
        "{% for m in messages %}\n<{{ m.role }}> \n"
        f"  {{%{left} generation {right}%}}\n {{{{ m.content }}}} \n"
        f"\t{{%{left}endgeneration{right}%}} \n|{{% endfor %}}\n"
    )
    stripped = without_generation_marks(template)
    assert f"{{%{left} generation" in template
    assert f"{{%{left} generation" not in stripped
    assert rendered(stripped, _MESSAGES) == rendered(template, _MESSAGES)
