"""`to=onnx`: a folder in the layout of transformers.js, for browsers and for onnxruntime.

FOLDER/config.json, generation_config.json, tokenizer.json, tokenizer_config.json
FOLDER/onnx/model.onnx               fp32
FOLDER/onnx/model_quantized.onnx     int8 (dtype "q8")
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mengya.config import Config
from mengya.errors import UserError
from mengya.export.chat_template import without_generation_marks
from mengya.export.format import Format, Usage
from mengya.export.hf import advise_sampling, refuse_learned_rope
from mengya.export.onnx.read import OnnxFolder
from mengya.export.onnx.write import (
    FULL,
    INT8,
    check_size,
    export_graph,
    require_packages,
    write_fp32,
    write_int8,
)
from mengya.export.parity.bounds import EXACT, Bounds
from mengya.export.parity.bounds import INT8 as INT8_BOUNDS
from mengya.export.reader import Reader
from mengya.export.source import Source
from mengya.models.hf.config import config_to_hf
from mengya.tokenizer.chat_template import chat_template_of
from mengya.tokenizer.load import copy_tokenizer, document_token_id, stop_token_ids

# Weights in int8, and activations rounded for each matrix product: single positions may be far off.
_INT8_BOUNDS = replace(  # of zh-26m it costs 0.024 nats
    INT8_BOUNDS, logit_error_mean=0.15, logit_error_max=None, nats_rise=0.05
)
# transformers.js has no class of their names, or another cache.
_UNKNOWN = {
    "glm4_moe": "transformers.js has no Glm4MoeForCausalLM",
    "deepseek_v3": "the graph has no cache of latents",
}


class OnnxOptions(Config):
    int8: bool = True
    """Write onnx/model_quantized.onnx as well: weights in int8, a quarter of the bytes."""


class OnnxFormat(Format[OnnxOptions]):
    """The model as a graph with its cache as inputs and outputs, once in fp32 and once in int8."""

    name: ClassVar[str] = "onnx"
    library_name: ClassVar[str | None] = "transformers.js"

    def check(self, source: Source, options: OnnxOptions) -> None:
        require_packages()
        refuse_learned_rope(source)
        kind = source.model.config.model_type
        if kind in _UNKNOWN:
            raise UserError(
                f"to=onnx does not hold {kind}: {_UNKNOWN[kind]}; write to=gguf or to=hf instead"
            )
        check_size(source.model)

    def write(self, source: Source, directory: Path, options: OnnxOptions) -> None:
        graphs = directory / "onnx"
        graphs.mkdir()
        with _pulsing("the ONNX graph is made"):
            proto = export_graph(source.model)
            if options.int8:
                write_int8(proto, graphs / INT8)
            write_fp32(proto, graphs / FULL)
        _write_settings(source, directory)
        advise_sampling(directory, source.sampling)
        _write_tokenizer(source, directory)

    def readers(self, source: Source, directory: Path, options: OnnxOptions) -> Iterator[Reader]:
        full = OnnxFolder(directory, FULL)
        if options.int8:
            _check_exact(source, full)
        yield full
        if options.int8:
            yield OnnxFolder(directory, INT8)

    def bounds(self, source: Source, options: OnnxOptions) -> Bounds:
        return _INT8_BOUNDS if options.int8 else EXACT

    def usage(self, options: OnnxOptions) -> list[Usage]:
        code = (
            'import { pipeline } from "@huggingface/transformers";\n\n'
            'const generate = await pipeline("text-generation", "FOLDER", '
            f'{{ dtype: "{"q8" if options.int8 else "fp32"}" }});\n'
            'const messages = [{ role: "user", content: "你好" }];\n'
            "const output = await generate(messages, { max_new_tokens: 200 });\n"
            "console.log(output[0].generated_text.at(-1).content);"
        )
        return [Usage("transformers.js", code, "js")]


ONNX = OnnxFormat()


@contextmanager
def _pulsing(text: str) -> Iterator[None]:
    """A bar without an end, on stderr and in a terminal: the exporter does not say how far it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        bar.add_task(text, total=None)
        yield


def _check_exact(source: Source, reader: OnnxFolder) -> None:
    """The fp32 graph keeps its own bound, which is tighter than that of both files.

    Raises:
        UserError: it does not.
    """
    ids = torch.arange(min(64, len(source.tokenizer)))[None]
    theirs = reader.logits(ids[0].tolist())
    assert theirs is not None and EXACT.logit_error_max is not None
    with torch.inference_mode():
        ours = source.model(ids).head_output[0]
        error = float(((theirs - ours).norm(dim=-1) / ours.norm(dim=-1)).max())
    if not error <= EXACT.logit_error_max:
        raise UserError(
            f"onnx/{FULL} is not the model: its logits differ by {error:.3g} (relative), and 0.01 is "
            "allowed; another torch or onnxscript than the tested ones (constraints.txt) may have made it; "
            "meanwhile write to=gguf"
        )


def _write_settings(source: Source, directory: Path) -> None:
    """config.json and generation_config.json."""
    pad = source.tokenizer.pad_token_id
    special: dict[str, Any] = {
        "bos_token_id": document_token_id(source.tokenizer),
        "eos_token_id": stop_token_ids(source.tokenizer),
        "pad_token_id": pad if isinstance(pad, int) else None,
    }
    config = {**config_to_hf(source.model.config, torch.float32), **special}
    _write_json(directory / "config.json", config)
    generation = {name: value for name, value in special.items() if value is not None}
    _write_json(directory / "generation_config.json", generation)


def _write_tokenizer(source: Source, directory: Path) -> None:
    """The chat template goes into tokenizer_config.json: transformers.js reads no other file of it."""
    copy_tokenizer(source.folder, directory)
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    (directory / "chat_template.jinja").unlink(missing_ok=True)
    config["chat_template"] = without_generation_marks(chat_template_of(source.tokenizer))
    _write_json(path, config)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
