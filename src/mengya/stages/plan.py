"""`mengya plan`: estimate memory, time and cost of a run before it is started, and lint its settings.

Nothing is trained and no weight gets memory: shape, recipe and shards suffice.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mengya.config import load_config, read_recipe
from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import refuse_quantized
from mengya.models.hf.config import load_model_config
from mengya.models.hf.open_checkpoint import find_checkpoint
from mengya.planning.estimate import estimate
from mengya.planning.inputs import Hardware, Verb
from mengya.planning.lint import lint_plan
from mengya.planning.plan import Plan
from mengya.planning.render import print_plan, to_json
from mengya.runtime.checkpoint_names import follow
from mengya.stages.dpo import DpoConfig
from mengya.stages.pretrain import PretrainConfig, follow_tokenizer
from mengya.stages.run.tuning import TuneConfig
from mengya.stages.sft import SftConfig
from mengya.training.run_config import RunConfig

CONFIGS: dict[Verb, type[RunConfig]] = {
    "pretrain": PretrainConfig,
    "sft": SftConfig,
    "dpo": DpoConfig,
}


def run(
    recipe: Path | None,
    overrides: Sequence[str],
    hardware: Hardware,
    verb: Verb | None = None,
    data_tokens: float | None = None,
    as_json: bool = False,
) -> None:
    """Print the estimate of one recipe and the warnings of lint, as tables or as JSON."""
    plan = make_plan(recipe, overrides, hardware, verb, data_tokens)
    found = list(lint_plan(plan))
    if as_json:
        sys.stdout.write(json.dumps(to_json(plan, found), indent=2, ensure_ascii=False) + "\n")
    else:
        print_plan(plan, found, Console())


def make_plan(
    recipe: Path | None,
    overrides: Sequence[str] = (),
    hardware: Hardware | None = None,
    verb: Verb | None = None,
    data_tokens: float | None = None,
) -> Plan:
    """Read a recipe and estimate its run.

    Args:
        data_tokens: tokens of one epoch where the shards do not exist yet.

    Raises:
        UserError: settings, device or init_from are wrong or not known, all problems of a recipe at once.
    """
    verb, config = read_run(recipe, overrides, verb)
    model = open_model(config, recipe)
    hardware = hardware or Hardware()
    return estimate(verb, config, model, hardware, recipe=recipe, data_tokens=data_tokens)


def pick_verb(name: str | None) -> Verb | None:
    """The verb that a person typed, checked; None stays None."""
    if name is None:
        return None
    for verb in CONFIGS:
        if verb == name:
            return verb
    raise UserError(f"--verb {name} is none of {', '.join(CONFIGS)}")


def read_run(
    recipe: Path | None, overrides: Sequence[str], verb: Verb | None
) -> tuple[Verb, RunConfig]:
    """The verb of a recipe (a file, or a folder with a pretrain.yaml) and its checked settings.

    Raises:
        UserError: all problems of the settings; or the recipe could be of several verbs.
    """
    if recipe is not None and recipe.is_dir():
        recipe = recipe / "pretrain.yaml"
    verb = verb or _find_verb(recipe, overrides)
    return verb, load_config(CONFIGS[verb], recipe, overrides)


def _find_verb(recipe: Path | None, overrides: Sequence[str]) -> Verb:
    """By the file's name, else by keys that one verb alone has."""
    for verb in CONFIGS:
        if recipe is not None and recipe.stem == verb:
            return verb
    keys = set(read_recipe(recipe)) if recipe is not None else set()
    keys |= {text.partition("=")[0].partition(".")[0] for text in overrides}
    if keys & (DpoConfig.model_fields.keys() - SftConfig.model_fields.keys()):
        return "dpo"
    if keys & (PretrainConfig.model_fields.keys() - SftConfig.model_fields.keys()):
        return "pretrain"
    raise UserError(
        f"{recipe or 'the command line'} may be a recipe of several verbs; "
        "write --verb pretrain, --verb sft or --verb dpo"
    )


def open_model(config: RunConfig, recipe: Path | None) -> CausalLM:
    """The model of the run without memory, adapters in it and the rest frozen where LoRA trains.

    Raises:
        UserError: init_from does not exist, and no recipe in the same folder makes it.
    """
    model = CausalLM(find_shape(config, recipe), device="meta")
    if isinstance(config, TuneConfig) and config.lora is not None:
        from mengya.models.adapters.lora import add_lora  # peft takes two seconds to import
        from mengya.models.adapters.trainable_tokens import planned_ids

        start = follow(config.init_from)
        add_lora(model, config.lora, planned_ids(config.lora, start, model.config.vocab_size))
    return model


def find_shape(config: RunConfig, recipe: Path | None, seen: tuple[Path, ...] = ()) -> ModelConfig:
    """The recipe's own model; that of the folder in init_from; or of the recipe in the same folder whose run
    will make init_from."""
    if isinstance(config, PretrainConfig) and config.model is not None:
        exists = config.tokenizer is not None and config.tokenizer.is_dir()
        shape = follow_tokenizer(config).model if exists else config.model
        assert shape is not None
        return shape
    folder: Path = getattr(config, "init_from")  # noqa: B009 - every verb without a model has it
    start = follow(folder)
    if start.is_dir():
        checkpoint = find_checkpoint(start)
        shape = load_model_config(checkpoint)
        refuse_quantized(checkpoint)
        return shape
    others = [] if recipe is None else sorted(recipe.parent.glob("*.yaml"))
    for path in others:
        if path in seen or path == recipe:
            continue
        try:
            values = read_recipe(path)
        except UserError:
            continue  # a stranger's file
        if "data" in values and _makes(values, folder):
            _, earlier = read_run(path, (), None)
            return find_shape(earlier, path, (*seen, path))
    raise UserError(
        f"init_from={folder} does not exist yet, and no recipe next to {recipe or 'this one'} has a "
        "run_dir that makes it; train it first, or name a folder with a config.json"
    )


def _makes(values: dict[str, Any], folder: Path) -> bool:
    run_dir = values.get("run_dir")
    return isinstance(run_dir, str) and Path(run_dir) in (folder, *folder.parents)
