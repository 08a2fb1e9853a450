"""From the path a person types to a model and tokenizer ready to be used."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from transformers import PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.models.adapters.lora import base_folder, load_merged
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import check_vocabulary, load_causal_lm, write_folder
from mengya.models.hf.config import load_model_config, load_quantization
from mengya.models.quantized.full import fix_weights, full_weights
from mengya.models.quantized.load import load_dequantized, load_quantized
from mengya.models.quantized.size import quantized_on_meta
from mengya.runtime.checkpoint_names import LINKS, follow
from mengya.tokenizer.load import load_tokenizer

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
ADAPTER = "adapter_config.json"


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that `path` means: itself, or of a run folder the best, else the latest.

    Raises:
        UserError: nothing like it is there; names what is near.
    """
    places = (path, *(path / "checkpoints" / name for name in LINKS))
    for folder in map(follow, places):
        if (folder / "config.json").is_file() or (folder / ADAPTER).is_file():
            return folder
    if path.is_dir():
        inside = sorted(p.parent.name for p in path.glob("*/config.json"))
        hint = f"; it has {', '.join(inside)} inside" if inside else ""
        raise UserError(f"{path} is no checkpoint folder: it holds no config.json{hint}")
    if path.exists():
        raise UserError(f"{path} is a file; a checkpoint is a folder: write its path")
    near = path.parent
    names = [p.name for p in near.iterdir() if p.exists()] if near.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = f"; did you mean {near / close[0]}?" if close else ""
    raise UserError(f"checkpoint folder {path} does not exist{hint}")


def pick_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """auto: fp32 on a CPU, where it is exact and no slower to decode, else bf16."""
    if name == "auto":
        name = "float32" if device.type == "cpu" else "bfloat16"
    return getattr(torch, name)


def open_checkpoint(
    path: Path, device: torch.device, dtype: torch.dtype
) -> tuple[CausalLM, PreTrainedTokenizerFast]:
    """Model (in evaluation mode; adapters merged into their base) and tokenizer of a checkpoint.

    A quantized one computes with its small numbers (`models.quantized.layers`).

    Raises:
        UserError: a file is missing or damaged, or a weight is not finite: such a model answers anything, and
            what is measured on it looks like a bad model's figure.
    """
    folder = find_checkpoint(path)
    tokenizer = load_tokenizer(folder)
    if (folder / ADAPTER).is_file():
        model = load_merged(folder, None).to(device, dtype)
    elif load_quantization(folder) is not None:
        model = load_quantized(folder, device, dtype)
    else:
        model = _load(folder, device, dtype)
    check_vocabulary(model, tokenizer)
    _check_finite(model, path)
    return model.eval(), tokenizer


@torch.no_grad()
def _check_finite(model: CausalLM, path: Path) -> None:
    for name, weights in model.state_dict().items():
        if not isinstance(weights, torch.Tensor) or not weights.is_floating_point():
            continue
        wide = weights if weights.element_size() > 1 else weights.float()  # fp8 has no isfinite
        if not torch.isfinite(wide).all():
            raise UserError(
                f"{path}: {name} holds NaN or infinity: the training diverged, or the file is damaged; use "
                "an earlier checkpoint, or copy the file again"
            )


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> CausalLM:
    """Weights that were trained rounded are rounded in fp32, as there, and only once."""
    if load_model_config(folder).quantization is None:
        return load_causal_lm(folder, device, dtype)
    return fix_weights(load_causal_lm(folder, device)).to(dtype)


def checkpoint_config(path: Path) -> ModelConfig:
    """Configuration of the model that `open_checkpoint` would give; no weights are read."""
    folder = find_checkpoint(path)
    return load_model_config(base_folder(folder) if (folder / ADAPTER).is_file() else folder)


def checkpoint_on_meta(path: Path, device: torch.device, dtype: torch.dtype) -> CausalLM:
    """The model that `open_checkpoint` would give, without memory: its sizes; no weights are read.

    Raises:
        UserError: config.json says what is not supported.
    """
    folder, config = find_checkpoint(path), checkpoint_config(path)
    if not (folder / ADAPTER).is_file() and load_quantization(folder) is not None:
        return quantized_on_meta(folder, config, dtype, device)
    return CausalLM(config, device="meta").to(dtype)


@contextmanager
def standard_folder(path: Path, quantized: bool = False) -> Iterator[Path]:
    """A folder that transformers reads: the checkpoint, or for the while its adapter merged, its weights
    made full.

    Args:
        quantized: give quantized folders as they are: their reader knows the layout.
    """
    folder = find_checkpoint(path)
    if _is_standard(folder, quantized):
        _refuse_learned_rope(load_model_config(folder), path)
        yield folder
        return
    with TemporaryDirectory(prefix="mengya-standard-") as name:
        model = _load_full(folder)
        _refuse_learned_rope(model.config, path)
        write_folder(model, load_tokenizer(folder), folder, torch.float32, Path(name))
        yield Path(name)


def _is_standard(folder: Path, quantized: bool) -> bool:
    if (folder / ADAPTER).is_file() or load_model_config(folder).quantization is not None:
        return False
    return quantized or load_quantization(folder) is None


def _load_full(folder: Path) -> CausalLM:
    """An ordinary model of what transformers does not read, or not all versions of it."""
    if (folder / ADAPTER).is_file():
        return load_merged(folder, None)
    if load_quantization(folder) is not None:
        return load_dequantized(folder)
    return full_weights(load_causal_lm(folder))


def _refuse_learned_rope(config: ModelConfig, path: Path) -> None:
    rope = config.rope_parameters
    if rope.learned:
        raise UserError(
            f"{path}: no class of transformers holds rope_type={rope.rope_type}; freeze its factor first: "
            f"mengya merge {path} out=FOLDER factor={rope.factor:g}"
        )
