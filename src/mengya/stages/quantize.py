"""`mengya quantize CHECKPOINT out=FOLDER`: a smaller model folder that stock tools load.

Layers that are done are kept in .OUT.mengya-partial: the same command resumes after an interruption.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mengya.export.card.config import CardConfig
from mengya.export.card.render import FILE as CARD
from mengya.export.card.render import read_about
from mengya.export.own_reader import quantized_readers
from mengya.export.parity.bounds import quantized_bounds, trained_bounds
from mengya.export.source import Source
from mengya.kernels.quantized.weight import Scheme
from mengya.models.causal_lm import CausalLM
from mengya.models.hf.checkpoint import (
    check_finite,
    check_vocabulary,
    load_causal_lm,
    weights_sha256,
)
from mengya.models.hf.config import load_model_config
from mengya.models.hf.open_checkpoint import find_checkpoint, open_checkpoint
from mengya.models.quantized.layouts import find_layout
from mengya.models.quantized.load import load_dequantized
from mengya.models.quantized.write import write_quantized_folder
from mengya.quantization.calibration import CalibrationRows, default_length, read_calibration
from mengya.quantization.checks import check, save_dtype
from mengya.quantization.config import WIDTHS, Bits, QuantizationConfig
from mengya.quantization.driver import MatrixRecord, QuantizationPlan, quantize_layers
from mengya.quantization.grid import GridRule
from mengya.quantization.groups import Group, model_groups
from mengya.quantization.layer_store import LayerStore
from mengya.quantization.observe import choose_widths, mean_width, observe
from mengya.quantization.record import QuantizationRecord, print_record
from mengya.quantization.trained import TrainedRecord, trained_quantization, write_trained
from mengya.runtime.device import init_device
from mengya.runtime.made_from import write_source
from mengya.runtime.output_folder import MARKER, FolderKind, OutputFolder, new_folder, open_folder
from mengya.stages.written.proof import ParityConfig, prove_written
from mengya.stages.written.quantized_card import write_quantized_card
from mengya.tokenizer.load import load_tokenizer, tokenizer_hash
from mengya.version import __version__

FOLDER = FolderKind("quantize", ())
_LAYERS = ".layers"  # in the partial folder; hidden, so the proof is not about it
Show = Callable[[str], object]


class QuantizeConfig(QuantizationConfig):
    parity: ParityConfig = ParityConfig()
    """The proof: what was written, read back by another program, answers as the checkpoint does."""
    card: CardConfig = CardConfig()
    """The model card, README.md of the folder."""


def run(config: QuantizeConfig) -> QuantizationRecord | TrainedRecord:
    """Quantize, prove and publish; what quantization.json holds.

    Raises:
        UserError: a setting, the checkpoint or the calibration cannot be used, or the proof misses a bound.
    """
    console = Console(stderr=True)
    read_about(config.card.about)  # now, not when the work is done
    found = find_checkpoint(config.checkpoint)
    if trained_quantization(found) is not None:
        return _pack(config, found, console)
    checkpoint = check(config)
    with open_folder(config.out, FOLDER, sources=[checkpoint, *_read_paths(config)]) as folder:
        folder.check_replaceable(config.overwrite)
        record = _quantize(config, checkpoint, folder, console)
        _prove(config, checkpoint, folder.partial, record)
        folder.publish()
    print_record(record, console)
    size, before = _weight_bytes(config.out), _weight_bytes(checkpoint)
    console.print(
        f"{config.out}: {size / 1e6:,.1f} MB of weights ({before / 1e6:,.1f} MB before), "
        f"{record.mean_bits:.3g} bits in the quantized layers",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    _say_next(config, console)
    return record


def _say_next(config: QuantizeConfig, console: Console) -> None:
    out = shlex.quote(str(config.out))
    console.print(
        f"try it: mengya chat {out}\nwhat it costs: mengya evaluate {out} texts=FILE\n"
        f"transformers, vLLM: {config.out / CARD}",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


def _pack(config: QuantizeConfig, source: Path, console: Console) -> TrainedRecord:
    """The small folder of a checkpoint that was trained with rounded weights."""
    with new_folder(
        config.out, FOLDER, overwrite=config.overwrite, sources=[source, *_read_paths(config)]
    ) as directory:
        record = write_trained(config, source, directory)
        write_source(source, directory)
        model, tokenizer = open_checkpoint(source, torch.device("cpu"), torch.float32)
        original = _source(config, model, tokenizer, source)
        parity = prove_written(
            config.parity,
            original,
            quantized_readers(directory, record.layout, None),
            trained_bounds(record.save_dtype, record.scheme.number == "ternary"),
            directory,
            config.out,
            {"format": record.layout, "options": {"scheme": asdict(record.scheme)}},
            load_dequantized(directory),
        )
        write_quantized_card(
            config.card, original, parity, directory,
            layout=record.layout, scheme=record.scheme, how=_trained_in(record.scheme),
        )  # fmt: skip
    size, before = _weight_bytes(config.out), _weight_bytes(source)
    console.print(
        f"{config.out}: {size / 1e6:,.1f} MB of weights as they were trained ({before / 1e6:,.1f} MB before)",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    _say_next(config, console)
    return record


def _read_paths(config: QuantizeConfig) -> list[str | Path]:
    calibration = config.calibration
    paths: list[str | Path] = [*calibration.shards]
    for source in (*calibration.texts, *calibration.conversations):
        paths += [source.path] if isinstance(source.path, str) else source.path
    return [*paths, *(text.path for text in config.parity.texts), *config.parity.text_shards]


def _quantize(
    config: QuantizeConfig, source: Path, folder: OutputFolder, console: Console
) -> QuantizationRecord:
    device = init_device(config.device, config.threads)
    tokenizer = load_tokenizer(source)
    rows = _calibration(config, source, tokenizer, console)
    model = load_causal_lm(source).eval()
    check_vocabulary(model, tokenizer)
    check_finite(model, source)
    dtype = save_dtype(config, source)
    layout = find_layout(config.layout_name)
    scale_dtype = layout.scale_dtype(dtype)
    sha256 = weights_sha256(source)
    store = LayerStore(
        folder.partial / _LAYERS, _digest(config, source, rows, sha256, scale_dtype, device)
    )
    _open(folder, store, console)
    widths = _widths(config, model, rows, scale_dtype, device, store, console)

    def rule_of(group: Group) -> GridRule:
        return config.rule(scale_dtype, widths.get(group.name))

    plan = QuantizationPlan(config.make_method(), rule_of, device)
    weights, records = {}, list[MatrixRecord]()
    total = sum(1 for group in model_groups(model) for _ in group.matrices())
    with _progress("quantize", total, console) as show:
        for layer in quantize_layers(model, plan, rows, store, lambda each: show(_shown(each))):
            weights |= layer.weights
            records += layer.records
    write_quantized_folder(
        model.config, _full_tensors(model, weights), weights, layout, source, folder.partial, dtype=dtype
    )  # fmt: skip
    record = QuantizationRecord(config, sha256, None if rows is None else rows.facts, records)
    record.write(folder.partial)
    write_source(source, folder.partial)
    return record


def _prove(
    config: QuantizeConfig, checkpoint: Path, directory: Path, record: QuantizationRecord
) -> None:
    """Compare what was written with the checkpoint, and write the model card; the layers are kept when a
    bound is missed."""
    model, tokenizer = open_checkpoint(checkpoint, torch.device("cpu"), torch.float32)
    what = {"format": config.layout_name, "options": {"scheme": asdict(config.scheme())}}
    source = _source(config, model, tokenizer, checkpoint)
    parity = prove_written(
        config.parity,
        source,
        quantized_readers(directory, config.layout_name, _unread(config, model)),
        quantized_bounds(record.mean_bits, config.scheme().activations != "full"),
        directory,
        config.out,
        what,
        load_dequantized(directory),
    )
    shutil.rmtree(directory / _LAYERS)
    write_quantized_card(
        config.card, source, parity, directory,
        layout=config.layout_name, scheme=config.scheme(),
        how=f"{record.mean_bits:.3g} bits, {config.method_name}",
    )  # fmt: skip


def _source(
    config: QuantizeConfig, model: CausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> Source:
    card = config.card
    return Source(
        model, tokenizer, folder, name=card.name, license=card.license, languages=tuple(card.languages)
    )  # fmt: skip


def _trained_in(scheme: Scheme) -> str:
    return f"trained in {'ternary' if scheme.number == 'ternary' else f'{scheme.bits} bits'}"


def _unread(config: QuantizeConfig, model: CausalLM) -> str | None:
    """What transformers cannot read of the folder (docs/quantization.md, limits of the readers)."""
    scheme, mixture = config.scheme(), bool(model.config.num_experts)
    if mixture and config.layout_name != "compressed-tensors":
        return f"experts in the layout {config.layout_name}"
    if mixture and (scheme.activations == "int8" or not scheme.symmetric):
        return "experts in W8A8 or with zero points"
    if config.mean_bits is not None and (not scheme.symmetric or config.layout_name == "gptq"):
        return "layers that differ, with zero points or in GPTQ's layout"
    return None


def _calibration(
    config: QuantizeConfig, source: Path, tokenizer: PreTrainedTokenizerFast, console: Console
) -> CalibrationRows | None:
    if not config.calibration.is_given:
        return None
    shape = load_model_config(source)
    length = config.calibration.sequence_length or default_length(
        shape.context_length, shape.training_sequence_length
    )
    rows = read_calibration(config.calibration, source, tokenizer, length)
    wanted = rows.facts["tokens_wanted"]
    if rows.tokens < wanted:
        console.print(
            f"the calibration has {rows.tokens:,} tokens, {wanted:,} were asked for: give more text, or set "
            "calibration.num_sequences lower",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    return rows


def _digest(
    config: QuantizeConfig,
    source: Path,
    rows: CalibrationRows | None,
    sha256: str,
    scale_dtype: torch.dtype,
    device: torch.device,
) -> str:
    """Of all that decides the bytes of a layer."""
    left_out = {
        "out",
        "overwrite",
        "threads",
        "checkpoint",
        "calibration",
        "layout",
        "save_dtype",
        "parity",
        "card",
    }
    values = {
        "version": __version__,
        "torch": torch.__version__,
        "device": device.type,
        "settings": config.model_dump(mode="json", exclude=left_out),
        "calibration": None if rows is None else rows.digest(),
        "weights": sha256,
        "tokenizer": tokenizer_hash(source),
        "scales": str(scale_dtype),
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _open(folder: OutputFolder, store: LayerStore, console: Console) -> None:
    """Resume what an earlier run finished of the same work, else start with an empty folder."""
    if store.belongs():
        _clear(folder.partial)
        if done := store.finished():
            console.print(
                f"resuming after {done} layers that {folder.partial} holds already",
                highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip
        return
    if folder.partial.exists():
        console.print(
            f"{folder.partial} is of a run with other settings or inputs: starting again",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    folder.start()
    store.open()


def _clear(partial: Path) -> None:
    """Remove what a killed run wrote after its layers: it may be half a file, or of another layout."""
    for path in partial.iterdir():
        if path.name in (_LAYERS, MARKER):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _widths(
    config: QuantizeConfig,
    model: CausalLM,
    rows: CalibrationRows | None,
    scale_dtype: torch.dtype,
    device: torch.device,
    store: LayerStore,
    console: Console,
) -> Mapping[str, Bits]:
    """Bits of each group where they differ from those of the configuration."""
    if config.mean_bits is None or rows is None:
        return {}
    if (known := store.widths()) is not None:
        return known
    total = sum(1 for _ in model_groups(model))
    rule = config.rule(scale_dtype)
    bits: Bits = next(width for width in WIDTHS if width == rule.scheme.bits)
    with _progress("observe", total, console) as show:
        observed = observe(model, rows, rule, device, show)
    widths = choose_widths(observed, bits, config.mean_bits)
    store.save_widths(widths)
    wider = sum(width > bits for width in widths.values())
    console.print(
        f"observed: {wider} of {len(widths)} groups of layers get more than {bits} bits, "
        f"{mean_width(widths, observed):.3f} on average",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    return widths


@contextmanager
def _progress(what: str, total: int, console: Console) -> Iterator[Show]:
    """A bar on stderr, in a terminal; yields what moves it by one."""
    columns = (TextColumn(what), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    disable = not sys.stderr.isatty()
    with Progress(*columns, console=console, transient=True, disable=disable) as bar:
        task = bar.add_task("", total=total)

        def show(text: str) -> None:
            bar.update(task, advance=1, description=text)

        yield show


def _shown(record: MatrixRecord) -> str:
    return (
        f"{record.name.removeprefix('model.layers.')} {record.bits} bits, error {record.error:.4f}"
    )


def _full_tensors(model: CausalLM, weights: Mapping[str, object]) -> dict[str, Tensor]:
    """What is not quantized, as in the state dict."""
    quantized = {f"{name}.weight" for name in weights}
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name not in quantized and ".mlp.experts." not in name
    }


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
