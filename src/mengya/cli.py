"""The command line: `mengya VERB RECIPE.yaml key.sub=value ...`. Wires verbs to stages, nothing else.

Stages are imported inside their verb, so that `mengya --help` answers at once.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mengya import __version__
from mengya.config import Config, UserError, describe, load_config

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
    """Split arguments into the positional one, the recipe and the overrides."""
    overrides = [a for a in arguments if _is_override(a)]
    paths = [a for a in arguments if not _is_override(a)]
    recipe = None
    if positional is not None and paths:
        overrides.insert(0, f"{positional}={json.dumps(paths.pop(0))}")
    if paths:
        recipe = Path(paths.pop(0))
    if paths:
        raise UserError(f"{paths[0]!r} is neither the recipe nor an override; write key.sub=value")
    return load_config(config_class, recipe, overrides)


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


def _version(show: bool) -> None:
    if show:
        typer.echo(f"mengya {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Grow a small Chinese language model from nothing."""


def main() -> None:
    """The console command; errors that the user can mend end in one message and exit code 2."""
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
