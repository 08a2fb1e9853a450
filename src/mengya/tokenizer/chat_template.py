"""Chat messages <-> token ids, the same ids for training, evaluation and serving.

Takes a tokenizer and messages ({"role", "content", maybe "reasoning_content", "tool_calls"}); gives
ids, and for training which of them the model is to learn. The tokenizer's own chat template
decides, or ours (template.py) when it has none and knows ChatML.

The ids equal `tokenizer.apply_chat_template(messages)` of transformers, with one exception, on
purpose: a control token that somebody typed inside a message (`<|im_end|>`) stays text here, so no
message can forge a turn.
"""

import hashlib
import re
from bisect import bisect_left
from functools import lru_cache
from typing import Any, NamedTuple, cast

import jinja2
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from mengya.errors import UserError
from mengya.tokenizer.load import control_tokens, plain_backend, stop_token_ids
from mengya.tokenizer.message import Message
from mengya.tokenizer.template import CHAT_TEMPLATE

# A template is somebody's program: what it may raise next to its own errors, such as for range(10**9).
_OF_TEMPLATES = (
    jinja2.TemplateError, TypeError, LookupError, AttributeError, ValueError, ArithmeticError,
    RecursionError, AssertionError,
)  # fmt: skip

Span = tuple[int, int]  # characters [start, end) of the rendered text

# Marks a typed control token while the template runs, so the rendered text shows which ones the
# template wrote itself. A private-use character of the last plane; texts that hold it lose it.
TYPED = "\U0010fffd"


def encode_conversation(
    tokenizer: PreTrainedTokenizerFast,
    messages: list[Message],
    tools: list[dict[str, Any]] | None = None,
) -> tuple[list[int], list[int]]:
    """Ids of a conversation, and 1 on what the assistant writes with its turn end, 0 elsewhere.

    An assistant turn with `train: False` has 0 too.

    A template without `{% generation %}` marks has its assistant turns found by rendering every
    prompt that came before one.

    Raises UserError when the messages do not fit the template, or the template shows a reply in
    another context than its prompt.
    """
    chat = _Chat(tokenizer, messages, tools)
    if _marks_generation(chat.template):
        rendered, spans = chat.render_with_spans()
    else:
        rendered = chat.render()
        spans = _spans_by_prompt(tokenizer, chat, rendered)
    spans = _trained(spans, messages)
    tokens = _tokenize(tokenizer, rendered)
    mask = [0] * len(tokens.ids)
    for start, end in spans:
        first = bisect_left(tokens.starts, start - rendered.count(TYPED, 0, start))
        last = bisect_left(tokens.starts, end - rendered.count(TYPED, 0, end))
        mask[first:last] = [1] * (last - first)
    return tokens.ids, mask


def _trained(spans: list[Span], messages: list[Message]) -> list[Span]:
    """The spans without those of assistant turns that say `train: False`."""
    train = [m.get("train", True) for m in messages if m["role"] == "assistant"]
    if all(train):
        return spans
    if len(spans) + 1 == len(train) and messages[0]["role"] == "assistant":
        train = train[1:]  # without marks a first turn has no prompt, and no span
    if len(spans) != len(train):
        raise UserError(
            f"the chat template shows {len(spans)} replies of {len(train)} assistant turns, so the turns "
            "that are not to be learned cannot be found; replace its chat_template.jinja with one of ours"
        )
    return [span for span, learned in zip(spans, train, strict=True) if learned]


def encode_prompt(
    tokenizer: PreTrainedTokenizerFast,
    messages: list[Message],
    tools: list[dict[str, Any]] | None = None,
    enable_thinking: bool | None = None,
) -> list[int]:
    """Ids up to where the next reply begins; with our template, a prefix of what
    `encode_conversation` gives once the reply is there.

    enable_thinking=False asks for an answer without reasoning; None leaves it to the template.
    """
    chat = _Chat(tokenizer, messages, tools)
    return _tokenize(tokenizer, chat.render(prompt=True, enable_thinking=enable_thinking)).ids


def render_prompt(
    tokenizer: PreTrainedTokenizerFast,
    messages: list[Message],
    tools: list[dict[str, Any]] | None = None,
    enable_thinking: bool | None = None,
) -> str:
    """The text that `encode_prompt` gives the ids of."""
    chat = _Chat(tokenizer, messages, tools)
    return chat.render(prompt=True, enable_thinking=enable_thinking).replace(TYPED, "")


def chat_template_of(tokenizer: PreTrainedTokenizerFast) -> str:
    """The tokenizer's own Jinja text, else ours. Raises UserError when neither fits."""
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if own:
        return str(own)
    missing = [t for t in ("<|im_start|>", "<|im_end|>") if t not in control_tokens(tokenizer)]
    if missing:
        raise UserError(
            f"the tokenizer {tokenizer.name_or_path!r} has no chat template and lacks "
            f"{' and '.join(missing)}, which ours needs. "
            "Put a chat_template.jinja in its folder, or train a tokenizer with `mengya tokenizer`."
        )
    return CHAT_TEMPLATE


def chat_template_hash(tokenizer: PreTrainedTokenizerFast) -> str:
    """sha256 of `chat_template_of`; raises UserError as it does."""
    return hashlib.sha256(chat_template_of(tokenizer).encode()).hexdigest()


class _Chat:
    """One conversation with typed control tokens marked, ready to be rendered."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        messages: list[Message],
        tools: list[dict[str, Any]] | None,
    ) -> None:
        if not messages:
            raise UserError("a conversation needs at least one message")
        self.template = chat_template_of(tokenizer)
        self.tools = _mark(tools, _typed_pattern(tokenizer)) if tools else None
        self.messages = [_clean(message, _typed_pattern(tokenizer)) for message in messages]
        self._special = tokenizer.special_tokens_map

    def render(
        self, upto: int | None = None, prompt: bool = False, enable_thinking: bool | None = None
    ) -> str:
        """The first `upto` messages (all when None), with the start of a reply when `prompt`."""
        extra = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        return self._render(self.messages[:upto], False, add_generation_prompt=prompt, **extra)[0]

    def render_with_spans(self) -> tuple[str, list[Span]]:
        return self._render(self.messages, True, add_generation_prompt=False)

    def _render(self, messages: list[Message], spans: bool, **extra: Any) -> tuple[str, list[Span]]:
        try:
            texts, generated = render_jinja_template(
                [messages],
                tools=self.tools,
                chat_template=self.template,
                return_assistant_tokens_mask=spans,
                **self._special,
                **extra,
            )
        except _OF_TEMPLATES as error:
            raise UserError(f"the chat template refuses these messages: {error}") from error
        return texts[0], cast(list[Span], generated[0]) if spans else []


def _clean(message: Message, typed: re.Pattern[str]) -> Message:
    """The message without empty fields and with typed control tokens marked.

    An assistant's own `<think>` block at the start of its content moves to `reasoning_content`:
    those tags are the model's.
    """
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise UserError(f"a message needs a role and a content, got {message!r:.80}")
    message = {k: value for k, value in message.items() if value is not None and k != "train"}
    content = message.get("content")
    if (
        message["role"] == "assistant"
        and "reasoning_content" not in message
        and isinstance(content, str)
        and (opened := content.lstrip()).startswith("<think>")
        and "</think>" in opened
    ):
        reasoning, _, answer = opened.removeprefix("<think>").partition("</think>")
        message |= {"reasoning_content": reasoning, "content": answer}
    # Role names are special tokens in a few vocabularies: the role itself is the template's, a word
    # in a text is not.
    return {k: value if k == "role" else _mark(value, typed) for k, value in message.items()}


def _mark(value: Any, typed: re.Pattern[str]) -> Any:
    """`value` with TYPED put after the first character of each control token in its strings."""
    if isinstance(value, str):
        if TYPED in value:
            value = value.replace(TYPED, "")
        return typed.sub(lambda found: found[0][0] + TYPED + found[0][1:], value)
    if isinstance(value, list):
        return [_mark(item, typed) for item in value]
    if isinstance(value, dict):
        return {key: _mark(item, typed) for key, item in value.items()}
    return value


@lru_cache(maxsize=8)
def _typed_pattern(tokenizer: PreTrainedTokenizerFast) -> re.Pattern[str]:
    longest_first = sorted((t for t in control_tokens(tokenizer) if len(t) > 1), key=len)[::-1]
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


@lru_cache(maxsize=8)
def _marks_generation(template: str) -> bool:
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


def _spans_by_prompt(tokenizer: PreTrainedTokenizerFast, chat: _Chat, rendered: str) -> list[Span]:
    """Where the assistant writes: from the end of each prompt to the first turn end after it."""
    ends = re.compile(
        "|".join(
            re.escape(str(tokenizer.convert_ids_to_tokens(i))) for i in stop_token_ids(tokenizer)
        )
    )
    spans = []
    for index, message in enumerate(chat.messages):
        if message["role"] != "assistant" or index == 0:
            continue
        prompt = chat.render(upto=index, prompt=True)
        if not rendered.startswith(prompt):
            # A prompt may open an empty <think> block that old turns are shown without: same turn,
            # shorter opening.
            prompt = chat.render(upto=index, prompt=True, enable_thinking=True)
        end = ends.search(rendered, len(prompt))
        if not rendered.startswith(prompt) or end is None:
            reason = "does not begin with its prompt" if end else "has no end-of-turn token"
            raise UserError(
                f"the chat template of {tokenizer.name_or_path!r} has no {{% generation %}} marks, and "
                f"assistant message {index + 1} {reason} in the conversation, so its tokens "
                "cannot be found. "
                "Add the marks to its chat_template.jinja, or replace that file with one of ours."
            )
        spans.append((len(prompt), end.end()))
    return spans


class _Tokens(NamedTuple):
    ids: list[int]
    starts: list[int]  # first character of each token, in the rendered text without TYPED marks


def _tokenize(tokenizer: PreTrainedTokenizerFast, rendered: str) -> _Tokens:
    if TYPED not in rendered:
        encoding = tokenizer.backend_tokenizer.encode(rendered, add_special_tokens=False)
        return _Tokens(encoding.ids, [start for start, _ in encoding.offsets])

    # Somebody typed a control token: the template's own ones get their ids, all else is encoded by
    # a tokenizer that knows none.
    vocabulary = tokenizer.get_vocab()
    ids: list[int] = []
    starts: list[int] = []
    position = 0
    for piece in re.split(f"({_typed_pattern(tokenizer).pattern})", rendered):
        text = piece.replace(TYPED, "")
        if text == piece and text in control_tokens(tokenizer):
            ids.append(vocabulary[text])
            starts.append(position)
        elif text:
            encoding = plain_backend(tokenizer).encode(text, add_special_tokens=False)
            ids += encoding.ids
            starts += [position + start for start, _ in encoding.offsets]
        position += len(text)
    return _Tokens(ids, starts)
