"""`to=ollama`: a GGUF file and the Modelfile that `ollama create` takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt

from mengya.config import Config
from mengya.errors import UserError
from mengya.export.format import Format, Usage
from mengya.export.gguf.format import check_gguf, gguf_bounds, gguf_readers, write_and_say
from mengya.export.gguf.rounded import rounded_model
from mengya.export.gguf.tensor_types import TypeName
from mengya.export.ollama.modelfile import Modelfile, go_template, parameters
from mengya.export.ollama.read_modelfile import ModelfileReader, render_messages
from mengya.export.ollama.turns import read_turns
from mengya.export.parity.bounds import Bounds
from mengya.export.parity.conversations import CONVERSATIONS
from mengya.export.reader import Reader
from mengya.export.source import Source
from mengya.models.causal_lm import CausalLM
from mengya.runtime.files import write_text
from mengya.tokenizer.chat_template import render_prompt
from mengya.tokenizer.load import stop_token_ids

_GGUF = "model.gguf"


class OllamaOptions(Config):
    type: TypeName = "Q8_0"
    """How weights are stored, as in gguf.type."""
    num_ctx: PositiveInt | None = None
    """Tokens of context that ollama reserves memory for; null: all that the model reads."""


class OllamaFormat(Format[OllamaOptions]):
    """model.gguf and Modelfile."""

    name: ClassVar[str] = "ollama"
    tags: ClassVar[tuple[str, ...]] = ("gguf", "ollama")

    def check(self, source: Source, options: OllamaOptions) -> None:
        check_gguf(source, options.type)
        context = source.model.config.context_length
        if options.num_ctx is not None and options.num_ctx > context:
            raise UserError(
                f"ollama.num_ctx={options.num_ctx} is more than the model reads; write "
                f"ollama.num_ctx={context} or less"
            )
        _check_template(source)

    def write(self, source: Source, directory: Path, options: OllamaOptions) -> None:
        write_and_say(source, directory / _GGUF, options.type)
        write_text(directory / "Modelfile", modelfile_of(source, options).text())

    def readers(self, source: Source, directory: Path, options: OllamaOptions) -> Iterator[Reader]:
        yield from gguf_readers(source, directory / _GGUF)
        yield ModelfileReader(directory)

    def bounds(self, source: Source, options: OllamaOptions) -> Bounds:
        return gguf_bounds(source, options.type)

    def rounded(self, source: Source, options: OllamaOptions) -> CausalLM | None:
        return rounded_model(source.model, options.type)

    def usage(self, options: OllamaOptions) -> list[Usage]:
        return [
            Usage("ollama", "ollama create my-model -f FOLDER/Modelfile\nollama run my-model"),
            Usage("llama.cpp", f"llama-cli -m FOLDER/{_GGUF} --jinja"),
        ]


OLLAMA = OllamaFormat()


def modelfile_of(source: Source, options: OllamaOptions) -> Modelfile:
    """The Modelfile of a model."""
    context = options.num_ctx or source.model.config.context_length
    return Modelfile(
        gguf=_GGUF,
        template=go_template(read_turns(source.tokenizer)),
        stop=_stop_texts(source),
        parameters=parameters(source.sampling, context),
    )


def _stop_texts(source: Source) -> tuple[str, ...]:
    return tuple(source.tokenizer.convert_ids_to_tokens(stop_token_ids(source.tokenizer)))


def _check_template(source: Source) -> None:
    """Refuse a chat template that is more than turns around contents.

    Raises:
        UserError: with the conversation that it renders otherwise.
    """
    for name in _stop_texts(source):
        if '"' in name or not name.isprintable():
            raise UserError(
                f"the stop token {name!r} cannot be written in a Modelfile; write to=gguf, which needs none"
            )
    template = go_template(read_turns(source.tokenizer))
    for chat in CONVERSATIONS:
        if chat.tools:
            continue
        try:
            ours = render_prompt(source.tokenizer, chat.messages, None, chat.enable_thinking)
        except UserError:  # a template may refuse a kind of conversation
            continue
        if render_messages(template, chat.messages, chat.enable_thinking) != ours:
            raise UserError(
                f"the chat template of {source.folder} does more than put text around contents (the "
                f"conversation {chat.name!r} shows it), which ollama's template language cannot say; write "
                "to=gguf: a recent ollama reads the template in the file"
            )
