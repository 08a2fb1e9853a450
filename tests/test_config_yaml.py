"""Recipes as people write them: keys given twice, anchors, positions of lists, numbers with exponents."""

from __future__ import annotations

from pathlib import Path

import pytest

from mengya.config import Config, OneOrMany, PathConfig, load_config
from mengya.errors import UserError


class Source(PathConfig):
    path: Path
    weight: float | None = None


class Inner(Config):
    lr: float = 0.1
    steps: int = 1


class DeepConfig(Config):
    train: OneOrMany[Source] = []
    first: Inner = Inner()
    second: Inner = Inner()
    name: str = ""


def read(folder: Path, text: str, *overrides: str) -> DeepConfig:
    (folder / "r.yaml").write_text(text, encoding="utf-8")
    return load_config(DeepConfig, folder / "r.yaml", overrides)


@pytest.mark.parametrize(
    "text",
    [
        "name: a\nfirst: {lr: 1}\nname: b\n",
        "first:\n  lr: 1\n  steps: 2\n  lr: 3\n",
        "first: {lr: 1, lr: 3}\n",
    ],
)
def test_a_key_given_twice_is_refused_with_its_lines(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"key '(name|lr)' is given twice, in line \d and line \d"):
        read(tmp_path, text)


@pytest.mark.parametrize("value", ['{"lr": 1, "lr": 2}', "{lr: 1, lr: 2}"])
def test_also_on_the_command_line(value: str) -> None:
    with pytest.raises(UserError, match=r"first: .* key 'lr' is given twice"):
        load_config(DeepConfig, None, [f"first={value}"])


def test_anchors_have_a_place_of_their_own(tmp_path: Path) -> None:
    text = (
        "x-short: &short {lr: 1, steps: 2}\nx-long: &long {<<: *short, steps: 9}\n"
        "first: *short\nsecond: {<<: *long, lr: 3}\n"
    )
    config = read(tmp_path, text)
    assert (config.first, config.second) == (Inner(lr=1, steps=2), Inner(lr=3, steps=9))
    (tmp_path / "top.yaml").write_text("extends: r.yaml\nx-more: 1\nname: top\n")
    assert load_config(DeepConfig, tmp_path / "top.yaml").second == config.second


def test_numbers_with_exponents_are_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, "first: {lr: 1e-3}\nsecond: {lr: 2.E+2}\n").first.lr == 1e-3
    with pytest.raises(UserError, match=r"name: .*\(got 1000\.0\)"):
        read(tmp_path, "name: 1e3\n")


def test_positions_of_lists(tmp_path: Path) -> None:
    text = "train: [a, {path: b, weight: 1}]\n"
    config = read(tmp_path, text, "train[0].weight=2", "train[1].path=c", "train[2]=d")
    assert [(str(s.path), s.weight) for s in config.train] == [("a", 2), ("c", 1), ("d", None)]
    assert read(tmp_path, text, "train.1.path=c").train[1].path == Path("c")
    alone = read(tmp_path, "train: a\n", "train[0].weight=3").train
    assert [(str(s.path), s.weight) for s in alone] == [("a", 3)]
    assert read(tmp_path, "name: x\n", "train[0].path=new").train[0].path == Path("new")
    mapping = load_config(DeepConfig, tmp_path / "r.yaml", {"train[0]": {"path": "p", "weight": 1}})
    assert mapping.train[0].weight == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train[3].path=c", r"train\[3\]\.path: position 3 of a list of 1, counted from 0"),
        ("train.path=c", r"a list is above 'path': write the position, \[0\] for the first"),
        ("train[x].path=c", r"'train\[x\]\.path' is not a key; write key\.sub=value or key\[0\]"),
        ("name.x=c", r"name\.x: 'x' is below the value 'n', which has no keys"),
    ],
)
def test_places_that_are_not_there(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(tmp_path, "train: [a]\nname: n\n", override)
