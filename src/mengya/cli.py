"""The command line: `mengya VERB RECIPE.yaml key.sub=value ...`. Wires verbs to stages, nothing else.

Stages are imported inside their verb, so that `mengya --help` answers at once.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mengya import __version__
from mengya.config import Config, describe, load_config
from mengya.errors import UserError

_SECONDS_FOR_RANK_0 = 10.0

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Grow a small Chinese language model from nothing.",
)

# verb -> (stage module, config class, positional argument that comes before the recipe, one line)
VERBS = {
    "tokenizer": ("tokenizer", "TokenizerConfig", None, "Train a byte-level BPE tokenizer."),
    "prepare": ("prepare", "PrepareConfig", None, "Turn documents into token shards."),
    "pretrain": (
        "pretrain",
        "PretrainConfig",
        None,
        "Train a model from nothing, or go on with one.",
    ),
    "sft": ("sft", "SftConfig", None, "Teach a model to converse; full or LoRA."),
    "dpo": ("dpo", "DpoConfig", None, "Align a model with preference pairs."),
    "merge": ("merge", "MergeConfig", "checkpoint", "Merge a LoRA adapter into a standard folder."),
    "extend": ("extend", "ExtendConfig", "checkpoint", "Add tokens to a model and its tokenizer."),
    "evaluate": ("evaluate", "EvaluateConfig", "checkpoint", "Measure a checkpoint."),
    "chat": ("chat", "ChatConfig", "checkpoint", "Talk with a checkpoint in the terminal."),
    "serve": (
        "serve",
        "ServeConfig",
        "checkpoint",
        "Serve a checkpoint: OpenAI's API and a chat page.",
    ),
    "demo": (
        "demo",
        "DemoConfig",
        None,
        "Grow a model of a small world on this machine, all stages.",
    ),
}

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE.yaml] [key.sub=value ...]", help="A recipe, then overrides."),
]
ShowKeys = Annotated[
    bool, typer.Option("--keys", help="List every key with type, default and meaning.")
]
ShowSchema = Annotated[bool, typer.Option("--schema", help="Print the JSON schema, for editors.")]


def _run_verb(verb: str, arguments: list[str], keys: bool, schema: bool) -> None:
    module, class_name, positional, _ = VERBS[verb]
    stage = importlib.import_module(f"mengya.stages.{module}")
    config_class: type[Config] = getattr(stage, class_name)
    if schema:
        typer.echo(json.dumps(config_class.model_json_schema(), ensure_ascii=False, indent=2))
    elif keys:
        _print_keys(config_class)
    else:
        stage.run(_read_arguments(config_class, positional, arguments))


def _read_arguments(
    config_class: type[Config], positional: str | None, arguments: list[str]
) -> Any:
    """The configuration that the positional argument, the recipe and the overrides make."""
    first = next((a for a in arguments if not _is_override(a)), None)
    if positional is None or first is None:
        return load_config(config_class, *_split(arguments))
    rest = list(arguments)
    rest.remove(first)
    recipe, overrides = _split(rest)
    return load_config(config_class, recipe, [f"{positional}={json.dumps(first)}", *overrides])


def _split(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """The recipe and the overrides."""
    overrides = [a for a in arguments if _is_override(a)]
    paths = [a for a in arguments if not _is_override(a)]
    if len(paths) > 1:
        raise UserError(f"{paths[1]!r} is neither the recipe nor an override; write key.sub=value")
    return Path(paths[0]) if paths else None, overrides


def _is_override(argument: str) -> bool:
    key, equals, _ = argument.partition("=")
    return (
        bool(equals)
        and key.replace(".", "").replace("_", "").isalnum()
        and not Path(argument).exists()
    )


def _print_keys(config_class: type[Config]) -> None:
    table = Table("key", "type", "default", "meaning", title=None, show_lines=False)
    for row in describe(config_class):
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    Console().print(table)


def _add_verb(verb: str) -> None:
    _, _, positional, summary = VERBS[verb]

    def command(
        arguments: Arguments = None, keys: ShowKeys = False, schema: ShowSchema = False
    ) -> None:
        _run_verb(verb, arguments or [], keys, schema)

    before = f"{positional.upper()} " if positional else ""
    command.__doc__ = (
        f"{summary}\n\nusage: mengya {verb} {before}[RECIPE.yaml] [key.sub=value ...]\n\n"
        f"`mengya {verb} --keys` lists every key."
    )
    app.command(verb, short_help=summary)(command)


for _verb in VERBS:
    _add_verb(_verb)


@app.command("parameters", short_help="Count the parameters of recipes.")
def _parameters(
    recipes: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RECIPE...]", help="Recipes or their folders; none: all of recipes/."
        ),
    ] = None,
) -> None:
    """Print total, active and embedding parameters and the KV cache of each recipe's model."""
    from mengya.stages.parameters import run

    run(recipes or [])


@app.command("plan", short_help="Say what a run will need: memory, hours, cost, and what is amiss.")
def _plan(
    arguments: Arguments = None,
    device: Annotated[
        str | None, typer.Option(help="Plan for h100, rtx4090, ...; left out: this machine.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="Number of such devices.")] = 1,
    peak_tflops: Annotated[
        float | None, typer.Option(min=0.001, help="Dense peak of an unlisted device.")
    ] = None,
    memory_gib: Annotated[float | None, typer.Option(min=0.1, help="Memory of one device.")] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of one device for an hour; gives the cost.")
    ] = None,
    data_tokens: Annotated[
        float | None, typer.Option(min=1, help="Tokens of an epoch while the shards are not there.")
    ] = None,
    verb: Annotated[
        str | None, typer.Option(help="pretrain, sft or dpo, where the recipe does not tell.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Parameters, FLOPs, memory by part, tokens/s, hours and cost of a recipe, and warnings.

    usage: mengya plan RECIPE.yaml [key.sub=value ...] [--device NAME] [--devices N]
    """
    from mengya.planning.inputs import Hardware
    from mengya.stages.plan import pick_verb, run

    recipe, overrides = _split(arguments or [])
    hardware = Hardware(device, devices, peak_tflops, memory_gib, price_per_hour)
    run(recipe, overrides, hardware, pick_verb(verb), data_tokens, as_json)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"mengya {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    local_rank: Annotated[
        int | None, typer.Option("--local_rank", "--local-rank", hidden=True)
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Grow a small Chinese language model from nothing."""
    if local_rank is not None:  # the deepspeed launcher says it here as well as in the environment
        os.environ.setdefault("LOCAL_RANK", str(local_rank))


def main() -> None:
    """The console command; errors that the user can mend end in one message and exit code 2."""
    try:
        app()
    except UserError as error:
        rank = int(os.environ.get("RANK", "0"))
        if rank > 0:
            # Most errors are those of all ranks: when rank 0 has said it, the launcher ends the others.
            time.sleep(_SECONDS_FOR_RANK_0)
        where = f"error on rank {rank}" if rank > 0 else "error"
        Console(stderr=True).print(f"{where}: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
