"""`to=gguf`: one file for llama.cpp, ollama, LM Studio and their like."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from rich.console import Console

from mengya.config import Config
from mengya.errors import UserError
from mengya.export.format import Format, Usage
from mengya.export.gguf.llama_cpp_process import llama_python, require_llama_cpp
from mengya.export.gguf.read_llama_cpp import LlamaCppReader
from mengya.export.gguf.read_transformers import TransformersGguf, is_readable
from mengya.export.gguf.rounded import rounded_model
from mengya.export.gguf.support import check_model
from mengya.export.gguf.tensor_types import BY_LLAMA_CPP, TERNARY, TypeName
from mengya.export.gguf.vocabulary import composes_characters, read_vocabulary
from mengya.export.gguf.write import model_name, write_gguf
from mengya.export.parity.bounds import BFLOAT16, EXACT, FLOAT16, INT2, INT3, INT4, INT8, Bounds
from mengya.export.parity.reference import Reference
from mengya.export.reader import Reader
from mengya.export.source import Source
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import check_vocabulary

_BOUNDS: dict[TypeName, Bounds] = {
    "F32": EXACT, "F16": FLOAT16, "BF16": BFLOAT16, "Q8_0": INT8, "Q6_K": INT8,
    "Q5_K_M": INT4, "Q4_K_M": INT4, "Q4_0": INT4, "Q3_K_M": INT3, "Q2_K": INT2,
    "TQ1_0": INT8, "TQ2_0": INT8,
}  # fmt: skip


class GgufOptions(Config):
    type: TypeName = "Q8_0"
    """How weights are stored: F32, F16, BF16, Q8_0, Q4_0; Q6_K, Q5_K_M, Q4_K_M, Q3_K_M, Q2_K with the extra
    llamacpp; TQ1_0, TQ2_0 for a model that was trained with ternary weights."""


class GgufFormat(Format[GgufOptions]):
    """NAME-TYPE.gguf, as the hub's programs expect it."""

    name: ClassVar[str] = "gguf"
    tags: ClassVar[tuple[str, ...]] = ("gguf", "llama.cpp")

    def check(self, source: Source, options: GgufOptions) -> None:
        check_gguf(source, options.type)

    def write(self, source: Source, directory: Path, options: GgufOptions) -> None:
        write_and_say(source, self._path(source, directory, options), options.type)

    def readers(self, source: Source, directory: Path, options: GgufOptions) -> Iterator[Reader]:
        yield from gguf_readers(source, self._path(source, directory, options))

    def bounds(self, source: Source, options: GgufOptions) -> Bounds:
        return gguf_bounds(source, options.type)

    def rounded(self, source: Source, options: GgufOptions) -> CausalLM | None:
        return rounded_model(source.model, options.type)

    def usage(self, options: GgufOptions) -> list[Usage]:
        return [
            Usage("llama.cpp", "llama-cli -m FOLDER/*.gguf --jinja"),
            Usage("llama.cpp", "llama-server -m FOLDER/*.gguf --jinja"),
        ]

    def _path(self, source: Source, directory: Path, options: GgufOptions) -> Path:
        plain = re.sub(r"[^\w.-]+", "-", model_name(source)).strip("-.")
        return directory / f"{plain or 'model'}-{options.type}.gguf"


GGUF = GgufFormat()


def check_gguf(source: Source, type_name: TypeName) -> None:
    """All reasons not to write a file of this type that are known before it is written.

    Raises:
        UserError: a model, a tokenizer or a type that cannot be, or nothing here that could read it back.
    """
    config = source.model.config
    check_model(config)
    check_vocabulary(source.model, source.tokenizer)
    read_vocabulary(source.tokenizer, config.vocab_size)
    if type_name in BY_LLAMA_CPP:
        require_llama_cpp(f"type={type_name}")
    if not is_readable(config):
        require_llama_cpp(f"reading a {config.model_type} back, without which it is not exported,")


def write_and_say(source: Source, path: Path, type_name: TypeName) -> None:
    """Write the file, and say what became larger or smaller than one might think."""
    console = Console(stderr=True)
    if _is_quantized(source.folder) and type_name not in TERNARY:
        console.print(
            f"{source.folder} is quantized: its numbers are made full first, and then rounded to {type_name}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    if larger := write_gguf(source, path, type_name):
        kinds = sorted({re.sub(r"^blk\.\d+\.", "", tensor) for tensor in larger})
        console.print(
            f"{type_name} does not fit the rows of {len(larger)} tensors ({', '.join(kinds)}): they are "
            "stored in a larger type, as llama.cpp does",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def _is_quantized(folder: Path) -> bool:
    file = folder / "config.json"
    values = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return "quantization_config" in values


def gguf_bounds(source: Source, type_name: TypeName) -> Bounds:
    """Of a file of that type. A tokenizer that composes characters gives other ids for texts that are not
    composed: llama.cpp takes them as they are."""
    bounds = _BOUNDS[type_name]
    if not composes_characters(source.tokenizer):
        return bounds
    texts = Reference(source.model, source.tokenizer).texts
    apart = sum(unicodedata.normalize("NFC", text) != text for text in texts)
    return replace(bounds, token_ids=apart)


def gguf_readers(source: Source, path: Path) -> Iterator[Reader]:
    """transformers where it knows the architecture, and llama.cpp where it is installed."""
    config = source.model.config
    python = llama_python()
    if not is_readable(config) and python is None:  # `check_gguf` said so
        raise UserError(f"nothing here reads {path}")
    if is_readable(config):
        yield TransformersGguf(path, config)
    if python is not None:
        with LlamaCppReader(path, python) as reader:
            yield reader
