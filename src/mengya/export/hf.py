"""`to=hf`: a plain transformers folder, and transformers as the reader of one.

The reader also opens folders of compressed-tensors and other layouts that transformers knows.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from mengya.errors import UserError
from mengya.export.format import Format, Usage
from mengya.export.hub.hub import Hub
from mengya.export.hub.options import HubOptions
from mengya.export.hub.push import push_folder
from mengya.export.parity.bounds import BFLOAT16, EXACT, FLOAT16, Bounds
from mengya.export.reader import Reader
from mengya.export.sampling_advice import SamplingAdvice
from mengya.export.source import Source
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import write_folder
from mengya.runtime.files import write_text
from mengya.tokenizer.chat_template import chat_template_of

_BOUNDS = {"float32": EXACT, "bfloat16": BFLOAT16, "float16": FLOAT16}


class HfOptions(HubOptions):
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """dtype of the saved weights; auto: that of the checkpoint, or bfloat16 where it has none of its own (an
    adapter, a quantized model)."""


class HfFormat(Format[HfOptions]):
    """config.json, model.safetensors, tokenizer, generation_config.json with the sampling advice."""

    name: ClassVar[str] = "hf"
    library_name: ClassVar[str | None] = "transformers"

    def check(self, source: Source, options: HfOptions) -> None:
        refuse_learned_rope(source)
        if options.repo and not options.dry_run:
            self._hub().check_ready()

    def write(self, source: Source, directory: Path, options: HfOptions) -> None:
        dtype = getattr(torch, stored_dtype(source.folder, options.dtype))
        write_folder(source.model, source.tokenizer, source.folder, dtype, directory)
        _drop_code(directory)
        _add_template(source, directory)
        advise_sampling(directory, source.sampling)

    def rounded(self, source: Source, options: HfOptions) -> CausalLM | None:
        dtype = getattr(torch, stored_dtype(source.folder, options.dtype))
        if dtype == torch.float32:
            return None
        return rounded_model(source.model, lambda name, weight: weight.to(dtype))

    def readers(self, source: Source, directory: Path, options: HfOptions) -> Iterator[Reader]:
        yield TransformersFolder(directory)

    def bounds(self, source: Source, options: HfOptions) -> Bounds:
        return _BOUNDS[stored_dtype(source.folder, options.dtype)]

    def usage(self, options: HfOptions) -> list[Usage]:
        return folder_usage()

    def publish(self, directory: Path, options: HfOptions) -> None:
        """Push it, where a repository is named."""
        if options.repo:
            push_folder(self._hub(), directory, options)

    def _hub(self) -> Hub:
        from mengya.export.hub.huggingface import HuggingFaceHub

        return HuggingFaceHub()


HF = HfFormat()


@torch.no_grad()
def rounded_model(model: CausalLM, rounding: Callable[[str, Tensor], Tensor]) -> CausalLM:
    """A copy with every parameter rounded, in fp32; a tied one once."""
    copied = copy.deepcopy(model)
    for name, parameter in copied.named_parameters():
        parameter.copy_(rounding(name, parameter).float())
    return copied


def refuse_learned_rope(source: Source) -> None:
    """Only mengya has positions that were learned as a function of the length.

    Raises:
        UserError: the model has them.
    """
    rope = source.model.config.rope_parameters
    if rope.learned:
        raise UserError(
            f"{source.folder}: no other program knows rope_type={rope.rope_type}; freeze its factor first: "
            f"mengya merge {source.folder} out=FOLDER factor={rope.factor:g}"
        )


def stored_dtype(folder: Path, name: str) -> str:
    """What `auto` means for a checkpoint."""
    if name != "auto":
        return name
    file = folder / "config.json"
    values = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if "quantization_config" in values:
        return "bfloat16"
    own = str(values.get("dtype") or values.get("torch_dtype") or "bfloat16")
    return own if own in _BOUNDS else "bfloat16"


def _drop_code(directory: Path) -> None:
    """A tokenizer that asks to run its own code says the same in tokenizer.json, which needs none."""
    path = directory / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if values.pop("auto_map", None) is not None:
        values["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_text(path, json.dumps(values, ensure_ascii=False, indent=2) + "\n")


def _add_template(source: Source, directory: Path) -> None:
    """Write the chat template that mengya uses where the tokenizer's folder has none of its own."""
    if source.tokenizer.chat_template:
        return
    with suppress(UserError):  # a base model needs none
        write_text(directory / "chat_template.jinja", chat_template_of(source.tokenizer))


def advise_sampling(directory: Path, advice: SamplingAdvice) -> None:
    """Add the settings to generation_config.json, in the words of transformers."""
    path = directory / "generation_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    values |= _generation_settings(advice)
    write_text(path, json.dumps(values, indent=2) + "\n")


def _generation_settings(advice: SamplingAdvice) -> dict[str, Any]:
    settings: dict[str, Any] = {"do_sample": advice.temperature > 0}
    if advice.temperature > 0:  # transformers warns about settings of drawing when nothing is drawn
        settings |= {
            "temperature": advice.temperature,
            "top_p": advice.top_p,
            "top_k": advice.top_k,
        }
        settings |= {"min_p": advice.min_p} if advice.min_p else {}
    if advice.repetition_penalty != 1:
        settings["repetition_penalty"] = advice.repetition_penalty
    return settings


_LOAD = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
"""
_CHAT = """\
messages = [{"role": "user", "content": "你好"}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
output = model.generate(**inputs, max_new_tokens=200)
print(tokenizer.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
_CONTINUE = """\
inputs = tokenizer("从前有座山，", return_tensors="pt", return_token_type_ids=False)
output = model.generate(**inputs, max_new_tokens=200)
print(tokenizer.decode(output[0], skip_special_tokens=True))"""


def folder_usage() -> list[Usage]:
    """Programs that take a transformers folder."""
    return [
        Usage("transformers", _LOAD + _CHAT, "python", chat=True),
        Usage("transformers", _LOAD + _CONTINUE, "python", chat=False),
        Usage("mengya", "mengya chat FOLDER"),
        Usage("vLLM", "vllm serve FOLDER"),
    ]


class TransformersFolder:
    """A folder as transformers reads it, computed in fp32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.program = f"transformers {transformers.__version__}"
        disable_progress_bar()
        own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **own)
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        self._tokenizer = tokenizer
        self._model = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=torch.float32, **own
        ).eval()

    def token_ids(self, text: str, parse_special: bool = False) -> list[int] | None:
        ids = self._tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=not parse_special
        )
        return list(ids)

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> Tensor | None:
        return self._model(torch.tensor([list(ids)])).logits[0].float()

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        enable_thinking: bool | None = None,
    ) -> str | None:
        more: dict[str, Any] = (
            {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        )
        return str(
            self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=None if tools is None else [dict(tool) for tool in tools],
                add_generation_prompt=True,
                tokenize=False,
                **more,
            )
        )

    def stop_token_ids(self) -> set[int] | None:
        """Those that generate() ends at."""
        stop = self._model.generation_config.eos_token_id
        return set() if stop is None else {stop} if isinstance(stop, int) else set(stop)
