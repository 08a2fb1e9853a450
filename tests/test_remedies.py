"""What a message says to type is accepted when it is typed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import mengya
from mengya.cli import VERBS, config_class_of
from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.hf.open_checkpoint import find_checkpoint
from mengya.runtime.config_keys import describe

ROOT = Path(mengya.__file__).parent
PLACEHOLDERS = {"PATH": "some/path", "NUMBER": "1", "VALUE": "x"}
# Fields of requests and of files, and the word for a key in general: not typed on a command line.
NOT_TYPED = {
    "key.sub",
    "top_logprobs",
    "logprobs",
    "stream",
    "tool_choice",
    "model_type",
    "continue_final_message",
    "add_generation_prompt",
    "raw",
    "type",
}
FIELDS = {"rope_type", "sliding_window", "num_key_value_heads"}  # of a model folder's config.json


def typed(message: str) -> list[str]:
    """The overrides that a message says to write, placeholders filled in."""
    written = re.findall(r"write ((?:'?[\w.\[\]]+=\S+\s?)+)", message)
    words = [word.strip("',;") for group in written for word in group.split()]
    return [re.sub("PATH|NUMBER|VALUE", lambda m: PLACEHOLDERS[m[0]], word) for word in words]


def problems(verb: str, overrides: list[str]) -> str:
    try:
        load_config(config_class_of(verb), None, overrides)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("verb", VERBS)
def test_keys_that_are_required_can_be_typed_as_the_message_writes_them(verb: str) -> None:
    overrides = typed(problems(verb, []))
    left = problems(verb, overrides)
    assert "is required" not in left and "unknown key" not in left, left
    for override in overrides:
        assert override.partition("=")[0] not in left, left


@pytest.mark.parametrize(
    ("verb", "wrong", "remedy"),
    [
        ("pretrain", ["data.train=[{weight: 1}]"], "data.train[0].path=some/path"),
        ("prepare", ["sources={bad: 1}"], "sources[0].path=x"),
    ],
)
def test_a_key_below_a_position(verb: str, wrong: list[str], remedy: str) -> None:
    message = problems(verb, wrong)
    assert remedy in typed(message)
    assert "is required" not in problems(verb, [*wrong, *typed(message)])


def test_the_rules_of_a_section_write_full_keys() -> None:
    ratio = ["model.rope_parameters={factor: 2}"]
    message = problems("pretrain", ratio)
    assert "write model.rope_parameters.rope_type=linear" in message
    assert "rope_type" not in problems(
        "pretrain", [*ratio, *typed(message)[:3], "model.rope_parameters.rope_type=linear"]
    )


def test_every_key_in_a_message_is_a_key() -> None:
    """Of all messages in the source: `key=` is a full key of some verb, or of the section of the rule."""
    full = {row[0].replace("[0]", "") for verb in VERBS for row in describe(config_class_of(verb))}
    last = {key.rpartition(".")[2] for key in full}
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        for raised in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(raised, ast.Raise) or not isinstance(raised.exc, ast.Call):
                continue
            user_error = ast.unparse(raised.exc.func) == "UserError"
            for part in ast.walk(raised.exc):
                if not isinstance(part, ast.Constant) or not isinstance(part.value, str):
                    continue
                for key in re.findall(r"(?<![\w./`'\"-])([a-z_]+(?:\.[a-z_]+)*)=", part.value):
                    sections = any(name.startswith(f"{key}.") for name in full)
                    known = key in full or sections or (not user_error and key in last)
                    if not known and key not in NOT_TYPED | FIELDS:
                        wrong.append(f"{path}:{raised.lineno}: {key}")
    assert not wrong, "\n".join(wrong)


def test_what_is_near_is_never_the_path_itself(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("gone")
    with pytest.raises(UserError) as caught:
        find_checkpoint(tmp_path / "run")
    assert "did you mean" not in str(caught.value)
    (tmp_path / "pretrain.yaml").symlink_to("gone")
    with pytest.raises(UserError) as caught:
        load_config(config_class_of("pretrain"), tmp_path / "pretrain.yaml")
    assert "did you mean" not in str(caught.value)
