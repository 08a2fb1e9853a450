"""The registry of formats: `mengya export to=NAME`, its options under the key NAME.

A format is three lines here: its name, the section of its options and its object.
"""

from __future__ import annotations

from typing import Any, Literal

from mengya.config import Config
from mengya.export.format import Format
from mengya.export.gguf.format import GGUF, GgufOptions
from mengya.export.hf import HF, HfOptions
from mengya.export.llama2c.format import LLAMA2C, Llama2cOptions
from mengya.export.modelscope import MODELSCOPE
from mengya.export.ollama.format import OLLAMA, OllamaOptions
from mengya.export.onnx.format import ONNX, OnnxOptions

FormatName = Literal["hf", "modelscope", "gguf", "ollama", "llama2c", "onnx"]


class FormatOptions(Config):
    """The options of every format; those of the one that is written may be set."""

    hf: HfOptions = HfOptions()
    """to=hf: a plain transformers folder, and pushing one to Hugging Face."""
    modelscope: HfOptions = HfOptions()
    """to=modelscope: the same folder, pushed to ModelScope."""
    gguf: GgufOptions = GgufOptions()
    """to=gguf: one file for llama.cpp, LM Studio and their like."""
    ollama: OllamaOptions = OllamaOptions()
    """to=ollama: the same with a Modelfile."""
    llama2c: Llama2cOptions = Llama2cOptions()
    """to=llama2c: model.bin and tokenizer.bin of llama2.c."""
    onnx: OnnxOptions = OnnxOptions()
    """to=onnx: a folder for browsers (transformers.js) and onnxruntime."""


FORMATS: dict[FormatName, Format[Any]] = {
    "hf": HF,
    "modelscope": MODELSCOPE,
    "gguf": GGUF,
    "ollama": OLLAMA,
    "llama2c": LLAMA2C,
    "onnx": ONNX,
}
