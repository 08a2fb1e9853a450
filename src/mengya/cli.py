"""The command line: `mengya VERB RECIPE.yaml key.sub=value ...`. Maps verbs to stages, nothing else.

A stage is imported when its verb runs, so that `mengya --help` is fast.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.padding import Padding
from rich.status import Status
from rich.text import Text
from typer.core import TyperGroup

from mengya import __version__
from mengya.config import Config, is_list, load_config
from mengya.errors import UserError, user_message
from mengya.runtime.config_keys import describe, recipe_schema
from mengya.text.visible import visible

_SECONDS_FOR_RANK_0 = 10.0
_ABOUT = "Grow a small Chinese language model from nothing."


class _InOrder(TyperGroup):
    """The verbs in the order of VERBS, those that are groups too; then the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        first = [name.split()[0] for name in VERBS]
        return sorted(
            self.commands, key=lambda name: first.index(name) if name in first else len(first)
        )


app = typer.Typer(
    cls=_InOrder,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=_ABOUT,
)


class Verb(NamedTuple):
    """A stage with a configuration: module `mengya.stages.NAME` with `run` and the class `config`.

    The name of a verb in a group is two words, and its module lies in the package of the group.

    Attributes:
        positional: the key that an argument before the recipe sets, or several where it is a list; None
            without one.
        module: of a verb that has the name of its group.
    """

    config: str
    summary: str
    positional: str | None = None
    module: str | None = None


VERBS = {
    "tokenizer": Verb("TokenizerConfig", "Train, convert and compare tokenizers.", module="train"),
    "tokenizer convert": Verb(
        "TokenizerConvertConfig", "Convert a .model or .tiktoken file to a folder.", "file"
    ),
    "tokenizer compare": Verb(
        "TokenizerCompareConfig", "Compare tokenizers on text.", "tokenizers"
    ),
    "tokenizer count": Verb("TokenizerCountConfig", "Count the tokens of files.", "tokenizer"),
    "data list": Verb("DataListConfig", "List the public data sets that are known by name."),
    "data show": Verb("DataShowConfig", "Show what is known of a public data set.", "name"),
    "data get": Verb("DataGetConfig", "Download a public data set, or a part of it.", "name"),
    "synth": Verb(
        "SynthConfig", "Make conversations from documents or seeds, through any endpoint."
    ),
    "identity": Verb("IdentityConfig", "Make conversations in which a model says who it is."),
    "prepare": Verb("PrepareConfig", "Turn documents into token shards."),
    "inspect": Verb("InspectConfig", "Look at the samples of token shards.", "shards"),
    "pretrain": Verb("PretrainConfig", "Train a model from scratch, or continue one, on text."),
    "sft": Verb("SftConfig", "Fine-tune on conversations; all weights or LoRA."),
    "dpo": Verb("DpoConfig", "Align a model with preference pairs."),
    "merge": Verb("MergeConfig", "Merge a LoRA adapter into a standard folder.", "checkpoint"),
    "quantize": Verb("QuantizeConfig", "Store a model in 2 to 8 bits a weight.", "checkpoint"),
    "extend": Verb("ExtendConfig", "Add tokens to a model and its tokenizer.", "checkpoint"),
    "export": Verb(
        "ExportConfig",
        "Write a checkpoint in another format, and prove that it is the same model.",
        "checkpoint",
    ),
    "evaluate": Verb("EvaluateConfig", "Measure a checkpoint.", "checkpoint"),
    "report": Verb(
        "ReportConfig", "Write the report card of a model's life, or of several models.", "stages"
    ),
    "judge": Verb("JudgeConfig", "Have a model judge which of two answers better.", "sides"),
    "compare": Verb(
        "CompareConfig", "Lay runs over one another and over reference curves.", "runs"
    ),
    "chat": Verb("ChatConfig", "Chat with a checkpoint in the terminal.", "checkpoint"),
    "serve": Verb(
        "ServeConfig", "Serve a checkpoint: an OpenAI-compatible API and a chat page.", "checkpoint"
    ),
    "demo": Verb("DemoConfig", "Train and compare a model of a small world, all stages."),
}

GROUPS = {
    "tokenizer": "Train, convert and compare tokenizers, and count tokens.",
    "data": "Find and download public data sets.",
}

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE.yaml] [key.sub=value ...]", help="A recipe, then overrides."),
]
ShowKeys = Annotated[
    bool, typer.Option("--keys", help="List every key with type, default and meaning.")
]
ShowSchema = Annotated[bool, typer.Option("--schema", help="Print the JSON schema, for editors.")]


def _run_verb(name: str, arguments: list[str], keys: bool, schema: bool) -> None:
    with _waiting(f"mengya {name}: loading" + ("" if name.startswith("data ") else " PyTorch")):
        stage = stage_of(name)
    config_class = config_class_of(name)
    if schema:
        typer.echo(json.dumps(recipe_schema(config_class), ensure_ascii=False, indent=2))
    elif keys:
        _print_keys(config_class)
    else:
        stage.run(read_arguments(config_class, VERBS[name].positional, arguments))


def _waiting(text: str) -> Status:
    """A line on stderr while something takes seconds, in a terminal."""
    return Console(stderr=True).status(f"{text} ...")


def stage_of(verb: str) -> ModuleType:
    """The module of a verb of VERBS, with its `run`."""
    module = VERBS[verb].module
    name = f"{verb}.{module}" if module else verb.replace(" ", ".")
    return importlib.import_module(f"mengya.stages.{name}")


def config_class_of(verb: str) -> type[Config]:
    """The configuration that `run` of a verb takes."""
    return getattr(stage_of(verb), VERBS[verb].config)


def find_verb(arguments: list[str]) -> tuple[str, list[str]]:
    """The verb of VERBS that arguments begin with, of one word or two, and the rest of them."""
    both = " ".join(arguments[:2])
    return (both, arguments[2:]) if both in VERBS else (arguments[0], arguments[1:])


def read_arguments(config_class: type[Config], positional: str | None, arguments: list[str]) -> Any:
    """The configuration from the positional arguments, the recipe and the overrides."""
    if positional is not None and is_list(config_class.model_fields[positional].annotation):
        return _read_many(config_class, positional, arguments)
    first = next((a for a in arguments if not _is_override(a)), None)
    if positional is None or first is None:
        return load_config(config_class, *_split(arguments))
    rest = list(arguments)
    rest.remove(first)
    recipe, overrides = _split(rest)
    return load_config(config_class, recipe, [f"{positional}={json.dumps(first)}", *overrides])


def _read_many(config_class: type[Config], positional: str, arguments: list[str]) -> Any:
    """The configuration where all arguments but recipes and overrides are items of one key."""
    given = [a for a in arguments if not _is_override(a)]
    recipes = [a for a in given if Path(a).suffix in (".yaml", ".yml")]
    items = [a for a in given if a not in recipes]
    recipe, overrides = _split([*recipes, *(a for a in arguments if _is_override(a))])
    first = [f"{positional}={json.dumps(items)}"] if items else []
    return load_config(config_class, recipe, [*first, *overrides])


def _split(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """The recipe and the overrides."""
    overrides = [a for a in arguments if _is_override(a)]
    paths = [a for a in arguments if not _is_override(a)]
    if len(paths) > 1:
        raise UserError(f"{paths[1]!r} is neither a recipe nor an override; write key.sub=value")
    return Path(paths[0]) if paths else None, overrides


def _is_override(argument: str) -> bool:
    if re.match(r"[^=/\\]+=", argument) is None:  # domains.C++=FILE is one, ./lr=1.yaml a path
        return False
    try:
        return not Path(argument).exists()
    except OSError:  # too long for a name of a file, such as model={...}
        return True


def _print_keys(config_class: type[Config]) -> None:
    """Wrapped to a terminal; through a pipe a line a key, for grep."""
    console = Console()
    for key, kind, default, meaning in describe(config_class):
        line = f"{key}: {kind} = {default}"
        text = " ".join(meaning.split())
        if not console.is_terminal:
            typer.echo(f"{line}  # {text}" if text else line)
            continue
        console.print(Text(line, style="cyan"))
        console.print(Padding(Text(text), (0, 0, 0, 4)))


class _Group(TyperGroup):
    """A group whose name is a verb too: that runs where the first argument names none of the others."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = VERBS[str(ctx.info_name)].module if ctx.info_name in VERBS else None
        if (
            own is not None
            and args[:1] != ["--help"]
            and (not args or args[0] not in self.commands)
        ):
            args = [own, *args]
        return super().parse_args(ctx, args)


def _add_verb(name: str, verb: Verb) -> None:
    def command(
        arguments: Arguments = None, keys: ShowKeys = False, schema: ShowSchema = False
    ) -> None:
        _run_verb(name, arguments or [], keys, schema)

    before = f"{verb.positional.upper()} " if verb.positional else ""
    command.__doc__ = (
        f"{verb.summary}\n\nusage: mengya {name} {before}\\[RECIPE.yaml] \\[key.sub=value ...]\n\n"
        f"`mengya {name} --keys` lists every key."
    )
    group, _, inner = name.rpartition(" ")
    if verb.module is not None:
        group, inner = name, verb.module
    place = _groups[group] if group else app
    place.command(inner, short_help=verb.summary, hidden=verb.module is not None)(command)


def _about_group(name: str) -> str:
    if name not in VERBS:
        return GROUPS[name]
    usage = f"usage: mengya {name} \\[RECIPE.yaml] \\[key.sub=value ...]"
    return f"{GROUPS[name]}\n\n{usage}\n\n`mengya {name} --keys` lists every key."


_groups = {name: typer.Typer(cls=_Group, no_args_is_help=True) for name in GROUPS}
for _name, _group in _groups.items():
    app.add_typer(_group, name=_name, help=_about_group(_name))
for _name, _verb in VERBS.items():
    _add_verb(_name, _verb)


@app.command("parameters", short_help="Count the parameters of recipes.")
def _parameters(
    recipes: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RECIPE...]", help="Recipes or their folders; default: all of recipes/."
        ),
    ] = None,
) -> None:
    """Print total, active and embedding parameters and KV-cache bytes of each recipe's model."""
    with _waiting("mengya parameters: loading PyTorch"):
        from mengya.stages.parameters import run

    run(recipes or [])


@app.command("plan")
def _plan(
    arguments: Arguments = None,
    device: Annotated[
        str | None, typer.Option(help="Plan for h100, rtx4090, ...; default: this machine.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="Number of such devices.")] = 1,
    peak_tflops: Annotated[
        float | None, typer.Option(min=0.001, help="Dense peak TFLOPS of an unlisted device.")
    ] = None,
    memory_gib: Annotated[
        float | None, typer.Option(min=0.1, help="Memory of one device, in GiB.")
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of one device per hour, for the cost.")
    ] = None,
    data_tokens: Annotated[
        float | None,
        typer.Option(min=1, help="Tokens of an epoch, where the shards do not exist yet."),
    ] = None,
    verb: Annotated[
        str | None, typer.Option(help="pretrain, sft or dpo, where the recipe leaves it open.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    r"""Estimate memory, time and cost of a run, and warn about bad settings.

    usage: mengya plan RECIPE.yaml \[key.sub=value ...] [--device NAME] [--devices N]
    """
    with _waiting("mengya plan: loading PyTorch"):
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
    if local_rank is not None:  # the deepspeed launcher passes it, as well as the variable
        os.environ.setdefault("LOCAL_RANK", str(local_rank))


def main() -> None:
    """The console command; what a user caused ends in one message and exit code 2."""
    try:
        app()
    except Exception as error:
        message = user_message(error)
        if message is None or os.environ.get("MENGYA_TRACEBACK"):  # for whoever looks for a bug
            raise
        rank = int(os.environ.get("RANK", "0"))
        if rank > 0:
            # Most errors occur on all ranks: once rank 0 has printed it, the launcher ends the others.
            time.sleep(_SECONDS_FOR_RANK_0)
        where = f"error on rank {rank}" if rank > 0 else "error"
        Console(stderr=True, emoji=False).print(
            f"{where}: {visible(message)}",
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(2)
