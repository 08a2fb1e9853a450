"""Write a GGUF file: shape, tokenizer, chat template and tensors, one tensor in memory at a time.

Takes a `Source`; gives a file that is complete or absent. Types that llama.cpp alone makes go through
llama_cpp.quantize.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter, quants
from gguf.quants import quant_shape_to_byte_shape
from rich.console import Console
from rich.progress import Progress

from mengya.errors import UserError
from mengya.export.chat_template import without_generation_marks
from mengya.export.gguf.llama_cpp_quantize import quantize_file
from mengya.export.gguf.metadata import add_shape, architecture
from mengya.export.gguf.support import check_model
from mengya.export.gguf.tensor_types import (
    BY_LLAMA_CPP,
    FILE_TYPES,
    TERNARY,
    TypeName,
    falls_back,
    tensor_type,
)
from mengya.export.gguf.tensors import gguf_tensors, has_tied_output
from mengya.export.gguf.vocabulary import read_vocabulary
from mengya.export.sampling_advice import SamplingAdvice
from mengya.export.source import Source
from mengya.models.hf.checkpoint import check_vocabulary
from mengya.runtime.files import sync_path
from mengya.tokenizer.chat_template import chat_template_of

logging.getLogger("gguf").setLevel(logging.WARNING)  # it announces every file


def model_name(source: Source) -> str:
    """The name that programs show: the user's, or that of the run, or of the checkpoint's folder."""
    place = source.folder.resolve()
    run = place.parents[1] if place.parent.name == "checkpoints" else place
    return source.name or run.name


def write_gguf(
    source: Source, path: Path, type_name: TypeName = "F16", name: str = ""
) -> list[str]:
    """Write one file, atomically.

    Args:
        name: of the model, as programs show it; empty: that of the source's folder.

    Returns:
        Names of tensors whose rows no block of the type divides, which are stored larger.

    Raises:
        UserError: a model or tokenizer that llama.cpp cannot run, or weights that the type cannot hold.
    """
    check_model(source.model.config)
    check_vocabulary(source.model, source.tokenizer)
    partial, full = (path.with_name(f".{path.name}.{part}") for part in ("partial", "full"))
    by_llama_cpp = type_name in BY_LLAMA_CPP
    try:
        larger = _write(source, full if by_llama_cpp else partial, type_name)
        if by_llama_cpp:
            quantize_file(full, partial, type_name)
        sync_path(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        full.unlink(missing_ok=True)
    return larger


def _write(source: Source, path: Path, type_name: TypeName) -> list[str]:
    config = source.model.config
    tied = has_tied_output(config)
    writer = GGUFWriter(path, architecture(config))
    try:
        _add_general(writer, source, type_name)
        add_shape(writer, config)
        read_vocabulary(source.tokenizer, config.vocab_size).add_to(writer)
        if template := _template(source):
            writer.add_chat_template(template)
        larger = _announce(writer, source, type_name, tied)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for array in _with_progress(source, type_name, tied):
            writer.write_tensor_data(array)
    finally:
        writer.close()
    return larger


def _add_general(writer: GGUFWriter, source: Source, type_name: TypeName) -> None:
    writer.add_type("model")
    writer.add_name(model_name(source))
    if source.license:
        writer.add_license(source.license)
    if source.languages:
        writer.add_languages(source.languages)
    writer.add_file_type(FILE_TYPES["F32" if type_name in BY_LLAMA_CPP else type_name])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    _add_sampling(writer, source.sampling)


def _add_sampling(writer: GGUFWriter, advice: SamplingAdvice) -> None:
    """Settings that llama.cpp's programs start with."""
    writer.add_sampling_temp(advice.temperature)
    writer.add_sampling_top_k(advice.top_k)
    writer.add_sampling_top_p(advice.top_p)
    writer.add_sampling_min_p(advice.min_p)
    writer.add_sampling_penalty_repeat(advice.repetition_penalty)


def _template(source: Source) -> str | None:
    try:
        return without_generation_marks(chat_template_of(source.tokenizer))
    except UserError:  # a base model's tokenizer without ChatML
        return None


def _announce(writer: GGUFWriter, source: Source, type_name: TypeName, tied: bool) -> list[str]:
    """The index of the file, before any of its data; names of the tensors that fall back."""
    larger = []
    for name, tensor in gguf_tensors(source.model):
        shape = tuple(tensor.shape)
        kind = tensor_type(name, shape, type_name, tied)
        stored = shape if kind in _NUMPY else quant_shape_to_byte_shape(shape, kind)
        dtype = np.dtype(_NUMPY.get(kind, np.uint8))
        writer.add_tensor_info(
            name, stored, dtype, int(np.prod(stored)) * dtype.itemsize, raw_dtype=kind
        )
        if falls_back(name, shape, type_name, tied):
            larger.append(name)
    return larger


_TERNARY = tuple(GGMLQuantizationType[name] for name in TERNARY)
_NUMPY = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}


def _with_progress(source: Source, type_name: TypeName, tied: bool) -> Iterator[np.ndarray]:
    console = Console(stderr=True)
    count = len(source.model.state_dict())
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(f"GGUF {type_name}", total=count)
        for name, tensor in gguf_tensors(source.model):
            array = tensor.detach().float().cpu().numpy()
            yield _stored(name, array, tensor_type(name, array.shape, type_name, tied))
            bar.advance(task)


def _key(type_name: TypeName) -> str:
    """What is typed for a type."""
    return f"gguf.type={type_name} (with to=ollama: ollama.type={type_name})"


def _stored(name: str, array: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """The bytes of a tensor."""
    if not np.isfinite(array).all():
        raise UserError(
            f"{name} holds numbers that are not finite: training failed; export an earlier checkpoint"
        )
    with np.errstate(over="ignore"):
        stored = quants.quantize(array, kind)
    if kind == GGMLQuantizationType.F16 and not np.isfinite(stored).all():
        raise UserError(f"{name} has weights above 65504, too large for F16; write {_key('BF16')}")
    if kind in _TERNARY and not np.allclose(
        quants.dequantize(stored, kind), array, rtol=2e-3, atol=1e-9
    ):
        raise UserError(
            f"{name} is not ternary, and {kind.name} would destroy it; train the model with ternary "
            f"weights (docs/quantization.md), or write {_key('Q2_K')}"
        )
    return stored
