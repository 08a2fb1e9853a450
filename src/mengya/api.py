"""The functions of `import mengya`: load a checkpoint and use it, or run a stage from Python.

The stages take what their commands take: a recipe, then keys as keyword arguments that override it.
Nested keys are mappings, or dotted names in `**{...}`:

    mengya.pretrain("recipes/mini/pretrain.yaml", run_dir="runs/a", optimizer={"lr": 2e-3})
    mengya.pretrain("recipes/mini/pretrain.yaml", **{"optimizer.lr": 2e-3})

`mengya VERB --keys` lists the keys of a stage. What a stage needs is imported when it is called.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, overload

from mengya.config import load_config
from mengya.errors import UserError, shown
from mengya.runtime.device import DeviceName, init_device

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mengya.generation.sampling import SamplingParams
    from mengya.generation.text_completion import Start
    from mengya.models.causal_lm import CausalLM
    from mengya.models.hf.open_checkpoint import DtypeName
    from mengya.training.run_config import RunConfig

StrPath = str | os.PathLike[str]
Messages = str | Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]


class Model:
    """A model and its tokenizer, ready to complete text and to chat; `mengya.load` makes one.

    Sampling settings are keyword arguments of every method: max_new_tokens, temperature, top_k, top_p,
    min_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias, seed. Their defaults and
    meaning are those of `mengya chat --keys`.

    Attributes:
        network: the torch module, in evaluation mode.
        tokenizer: the tokenizer of the checkpoint.
        checkpoint: the folder that was loaded.
    """

    def __init__(
        self, network: CausalLM, tokenizer: PreTrainedTokenizerFast, checkpoint: Path
    ) -> None:
        self.network, self.tokenizer, self.checkpoint = network, tokenizer, checkpoint

    def __repr__(self) -> str:
        from mengya.generation.batch.memory import weight_bytes
        from mengya.models.quantized.layers import number_names, parameter_count

        weight, count = self.network.lm_head.weight, parameter_count(self.network)
        numbers = str(weight.dtype).removeprefix("torch.")
        if quantized := number_names(self.network):
            size = weight_bytes(self.network, packed=False)
            numbers = f"{quantized} and {numbers} in {size / 1e6:.2f} MB"
        return (
            f"Model({str(self.checkpoint)!r}, {count / 1e6:.2f}M parameters, {numbers}, "
            f"{weight.device})"
        )

    @overload
    def generate(self, prompt: str, **sampling: Any) -> str: ...
    @overload
    def generate(self, prompt: list[str], **sampling: Any) -> list[str]: ...
    def generate(self, prompt: str | list[str], **sampling: Any) -> str | list[str]:
        """Continue plain text, as a base model was trained to.

        A token may begin inside the prompt and end after it: the completion begins where the prompt ends.

        Args:
            prompt: a text, or several, which are decoded as one batch.

        Returns:
            The completion without the prompt; a list of them for several prompts.

        Raises:
            UserError: a sampling setting is not valid, or a prompt leaves no room in the context.
        """
        from mengya.generation.text_completion import continue_texts

        texts = [prompt] if isinstance(prompt, str) else prompt
        completions = continue_texts(self.network, self.tokenizer, texts, _sampling(sampling))
        return completions[0] if isinstance(prompt, str) else completions

    def stream(self, prompt: str, **sampling: Any) -> Iterator[str]:
        """As `generate` of one text, in pieces as they are decoded (complete characters, never empty).

        Raises:
            UserError: as `generate`; settings are checked at once, the length when iteration begins.
        """
        from mengya.generation.text_completion import document_starts, heal

        params = _sampling(sampling)
        (ids,) = document_starts(self.tokenizer, [prompt])
        return self._stream(heal(self.network, self.tokenizer, ids, params), params)

    def chat(
        self,
        messages: Messages,
        *,
        tools: Tools | None = None,
        enable_thinking: bool | None = None,
        **sampling: Any,
    ) -> str:
        """The assistant's reply to a conversation.

        Args:
            messages: mappings with `role` (system, user, assistant, tool) and `content`, the last one
                the user's; a str is a single message of the user.
            tools: functions that the model may call, as JSON schemas in OpenAI's form.
            enable_thinking: False asks for a reply without reasoning, where the chat template supports it.

        Raises:
            UserError: the messages do not fit the chat template or the context, or a sampling setting
                is not valid.
        """
        return "".join(
            self.stream_chat(messages, tools=tools, enable_thinking=enable_thinking, **sampling)
        )

    def stream_chat(
        self,
        messages: Messages,
        *,
        tools: Tools | None = None,
        enable_thinking: bool | None = None,
        **sampling: Any,
    ) -> Iterator[str]:
        """As `chat`, in pieces as they are decoded (complete characters, never empty).

        Raises:
            UserError: as `chat`; the length is checked when iteration begins, all else at once.
        """
        from mengya.generation.text_completion import Start
        from mengya.tokenizer.chat_template import encode_prompt

        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        prompt = encode_prompt(
            self.tokenizer,
            [dict(message) for message in messages],
            None if tools is None else [dict(tool) for tool in tools],
            enable_thinking,
        )
        return self._stream(Start(prompt), _sampling(sampling))

    def _stream(self, start: Start, params: SamplingParams) -> Iterator[str]:
        from mengya.generation.engine import stream
        from mengya.generation.text_completion import completion_pieces
        from mengya.tokenizer.load import stop_token_ids

        stop = stop_token_ids(self.tokenizer)
        ids = stream(self.network, start.ids, params, stop)
        return completion_pieces(self.tokenizer, start, ids)


@dataclass(frozen=True)
class TrainingRun:
    """What `pretrain`, `sft` and `dpo` give back.

    Attributes:
        run_dir: config.yaml, metrics.jsonl, report.html and checkpoints/ of the run.
        checkpoint: the folder to use: the best checkpoint by validation loss, else the latest.
        finished: False when a signal (Ctrl-C) stopped the run; `resume=True` continues it.
        step: optimizer steps done.
        metrics: the latest value of every metric of metrics.jsonl, such as `loss` (nats per token) and
            `validation/bits_per_char`.
    """

    run_dir: Path
    checkpoint: Path
    finished: bool
    step: int
    metrics: dict[str, float]


def load(checkpoint: StrPath, *, device: DeviceName = "auto", dtype: DtypeName = "auto") -> Model:
    """Load a checkpoint to generate with it.

    Args:
        checkpoint: a model folder; an adapter folder, which is merged into its base; or a run folder, of
            which the best checkpoint is taken, else the latest.
        device: auto: CUDA where there is a GPU, else the CPU.
        dtype: of the weights; auto: float32 on a CPU, bfloat16 elsewhere.

    Raises:
        UserError: there is no such checkpoint, device or dtype.
    """
    from mengya.models.hf.open_checkpoint import (
        DtypeName,
        find_checkpoint,
        open_checkpoint,
        pick_dtype,
    )

    for key, value, known in (("device", device, DeviceName), ("dtype", dtype, DtypeName)):
        if value not in get_args(known):
            names = ", ".join(get_args(known))
            raise UserError(f"{key}={shown(value)} must be one of {names}")
    folder = find_checkpoint(Path(checkpoint))
    place = init_device(device)
    network, tokenizer = open_checkpoint(folder, place, pick_dtype(dtype, place))
    return Model(network, tokenizer, folder)


def train_tokenizer(recipe: StrPath | None = None, /, **keys: Any) -> Path:
    """Train a tokenizer; as `mengya tokenizer`.

    Args:
        recipe: a YAML file.
        keys: out=FOLDER and sources=FILES at least, here or in the recipe.

    Returns:
        The tokenizer folder, which transformers' AutoTokenizer reads as well.

    Raises:
        UserError: a key is not valid, or a source cannot be read.
    """
    from mengya.stages.tokenizer.train import TokenizerConfig, run

    config = load_config(TokenizerConfig, _path(recipe), keys)
    run(config)
    return config.out


def prepare(recipe: StrPath | None = None, /, **keys: Any) -> dict[str, Path]:
    """Turn documents into token shards; as `mengya prepare`. Does nothing when they are up to date.

    Args:
        recipe: a YAML file.
        keys: out=FOLDER, tokenizer=FOLDER and sources=FILES at least, here or in the recipe.

    Returns:
        Shard folder by split: `train`, and `validation` with validation_fraction above 0.

    Raises:
        UserError: a key is not valid, a source cannot be read, or `out` holds something else.
    """
    from mengya.stages.prepare import PrepareConfig, run

    config = load_config(PrepareConfig, _path(recipe), keys)
    run(config)
    if config.validation_fraction == 0:
        return {"train": config.out}
    return {split: config.out / split for split in ("train", "validation")}


def get_data(name: str, recipe: StrPath | None = None, /, **keys: Any) -> Path:
    """Download a public data set, or a part of it; as `mengya data get`.

    Args:
        name: of `mengya data list`, or OWNER/NAME of a hub.
        recipe: a YAML file.
        keys: out=FOLDER at least, here or in the recipe; rows=, bytes= or tokens= take a part only.

    Returns:
        The folder, which `prepare` reads; `prepare(sources="hub:NAME")` needs no folder.

    Raises:
        UserError: a key is not valid, there is no such data set, or it cannot be had.
    """
    from mengya.stages.data.get import DataGetConfig, run

    return run(load_config(DataGetConfig, _path(recipe), {"name": name, **keys})).folder


def pretrain(recipe: StrPath | None = None, /, **keys: Any) -> TrainingRun:
    """Train on text, from random weights or from a checkpoint; as `mengya pretrain`.

    Args:
        recipe: a YAML file.
        keys: run_dir=FOLDER, tokenizer=FOLDER, model={...}, data={"train": SHARDS} and max_steps or
            epochs at least, here or in the recipe.

    Raises:
        UserError: a key is not valid, shards and model do not fit, or training cannot continue.
    """
    from mengya.stages.pretrain import PretrainConfig, run

    config = load_config(PretrainConfig, _path(recipe), keys)
    return _finished_run(config, run(config))


def sft(recipe: StrPath | None = None, /, **keys: Any) -> TrainingRun:
    """Train on conversations, all weights or LoRA; as `mengya sft`.

    Args:
        recipe: a YAML file.
        keys: run_dir=FOLDER, init_from=CHECKPOINT, data={"train": SHARDS} and max_steps or epochs at
            least, here or in the recipe.

    Raises:
        UserError: as `pretrain`.
    """
    from mengya.stages.sft import SftConfig, run

    config = load_config(SftConfig, _path(recipe), keys)
    return _finished_run(config, run(config))


def dpo(recipe: StrPath | None = None, /, **keys: Any) -> TrainingRun:
    """Train on preference pairs against a frozen reference; as `mengya dpo`.

    Args:
        recipe: a YAML file.
        keys: as those of `sft`.

    Raises:
        UserError: as `pretrain`.
    """
    from mengya.stages.dpo import DpoConfig, run

    config = load_config(DpoConfig, _path(recipe), keys)
    return _finished_run(config, run(config))


def evaluate(checkpoint: StrPath, recipe: StrPath | None = None, /, **keys: Any) -> dict[str, Any]:
    """Measure a checkpoint; as `mengya evaluate`, but nothing is printed.

    Args:
        checkpoint: a model, adapter or run folder, as for `load`.
        recipe: a YAML file.
        keys: what to measure: texts=FILES, text_shards=SHARDS, exams=NAMES_OR_PATHS, preferences=SHARDS,
            passkey={}; out=FILE also writes the results as JSON.

    Returns:
        The results as nested dictionaries, such as result["text"]["bits_per_char"]; None or empty for
        what was not measured.

    Raises:
        UserError: a key is not valid, there is nothing to measure, or files cannot be read.
    """
    from mengya.stages.evaluate import EvaluateConfig, measure, open_file

    config = load_config(EvaluateConfig, _path(recipe), {"checkpoint": Path(checkpoint), **keys})
    if config.out is None:
        return asdict(measure(config))
    with open_file(config) as file:
        return asdict(measure(config, file=file))


def quantize(checkpoint: StrPath, recipe: StrPath | None = None, /, **keys: Any) -> dict[str, Any]:
    """Store a model in 2 to 8 bits a weight, and prove it; as `mengya quantize`.

    Args:
        checkpoint: a model or run folder, as for `load`; an adapter is merged first.
        recipe: a YAML file.
        keys: out=FOLDER and calibration={"texts": FILE} at least, here or in the recipe.

    Returns:
        Settings, calibration and the error of every layer, as in quantization.json of the folder.

    Raises:
        UserError: a key is not valid, the model cannot be stored so, or what was written misses a bound of
            the proof.
    """
    from mengya.stages.quantize import QuantizeConfig, run

    config = load_config(QuantizeConfig, _path(recipe), {"checkpoint": Path(checkpoint), **keys})
    return run(config).values()


def export_model(
    checkpoint: StrPath, recipe: StrPath | None = None, /, **keys: Any
) -> dict[str, Any]:
    """Write a checkpoint in the format of other programs, and prove it; as `mengya export`.

    Args:
        checkpoint: a model, adapter or run folder, as for `load`.
        recipe: a YAML file.
        keys: to=FORMAT and out=FOLDER at least, here or in the recipe; of a folder that was exported before,
            hf={"repo": NAME} or modelscope={"repo": NAME} pushes it as it is.

    Returns:
        The proof: parity.json of the folder.

    Raises:
        UserError: a key is not valid, the format cannot hold the model, or what was written is not the same
            model; then nothing is left.
    """
    from mengya.stages.export import ExportConfig, run

    config = load_config(ExportConfig, _path(recipe), {"checkpoint": Path(checkpoint), **keys})
    run(config)
    proof = (config.out or config.checkpoint) / "parity.json"
    return json.loads(proof.read_text(encoding="utf-8"))


def _finished_run(config: RunConfig, finished: bool) -> TrainingRun:
    from mengya.models.hf.open_checkpoint import find_checkpoint
    from mengya.runtime.jsonl import read_metrics

    metrics: dict[str, float] = {}
    for line in read_metrics(config.run_dir / "metrics.jsonl"):
        metrics |= line
    step = int(metrics.pop("step", 0))
    return TrainingRun(config.run_dir, find_checkpoint(config.run_dir), finished, step, metrics)


def _sampling(settings: Mapping[str, Any]) -> SamplingParams:
    from mengya.generation.sampling import SamplingParams

    return load_config(SamplingParams, None, settings)


def _path(recipe: StrPath | None) -> Path | None:
    return None if recipe is None else Path(recipe)
