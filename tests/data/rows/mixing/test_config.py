"""Settings of mixtures: names, and every problem at once with what to write."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from mengya.config import load_config
from mengya.data.rows.mixing.config import MixtureConfig, Source, source_names
from mengya.errors import UserError
from mengya.stages.pretrain import PretrainConfig
from tests.helpers.doc_page import blocks


def test_names_are_those_of_folders_and_each_another() -> None:
    def names(*paths: str, **named: str) -> list[str]:
        sources = [Source.model_validate({"path": p, "name": named.get(p)}) for p in paths]
        return source_names(sources)

    assert names("runs/my/shards/chat/train", "shards/text") == ["chat", "text"]
    assert names("a/chat/train", "b/chat/train") == ["chat-0", "chat-1"]
    assert names("train", "/", "医疗/train") == ["train", "source", "医疗"]
    assert names("a/chat", "b/x", **{"b/x": "chat"}) == ["chat-0", "chat"]


PROBLEMS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "weights and temperature": (
        {"train": [{"path": "a", "weight": 1}], "temperature": 2}, ["leave out the weights"],
    ),
    "names twice": (
        {"train": [{"path": "a", "name": "x"}, {"path": "b", "name": "x"}]},
        ["two sources of train are named x"],
    ),
    "a name of a tag": (
        {"train": [{"path": "a", "name": "<b>"}]}, ["without / < > & and quotes (got '<b>')"],
    ),
    "phases, all at once": (
        {
            "train": ["web", "book", "rest"],
            "phases": [
                {"weights": {"wbe": 1}},
                {"until": 0.5, "weights": {"web": 0}, "temperature": 2},
                {"until": 0.3, "weights": {"web": 1}},
                {"until": 0.9, "weights": {"book": 1}},
            ],
        },
        [
            "phases[0] has no end; write phases[0].until=0.5",
            "phases[0].weights: 'wbe' is no source of train; did you mean web? known here: web, book, rest",
            "phases[1] has weights and temperature",
            "phases[1].weights has no share above 0",
            "phases[2].until 0.3 is not after 0.5",
            "phases[3].until 0.9: the last phase ends with the run; leave it out",
            "rest has a weight in no phase",
        ],
    ),
    "weights that nothing uses": (
        {
            "train": [{"path": "a", "weight": 1}, {"path": "b", "weight": 1}],
            "phases": [{"until": 0.5, "weights": {"a": 1}}, {"weights": {"b": 1}}],
        },
        ["the weights of train are used by no phase"],
    ),
    "no share and no step": (
        {"train": ["a"], "phases": [{"until": 1.5}, {}]}, ["neither a share of the run (0.6) nor"],
    ),
    "decay twice": (
        {"train": ["a"], "phases": [{"until": "decay"}, {"until": "decay"}, {}]},
        ["phases[1].until 'decay' is not after 'decay'"],
    ),
    "a negative weight": (
        {"train": ["a"], "phases": [{"weights": {"a": -1}}]}, ["greater than or equal to 0"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PROBLEMS)
def test_problems_are_named_with_what_to_write(case: str) -> None:
    values, wanted = PROBLEMS[case]
    with pytest.raises(UserError) as caught:
        load_config(MixtureConfig, None, values)
    for line in wanted:
        assert line in str(caught.value)


def pretrain(**more: Any) -> PretrainConfig:
    values = {
        "run_dir": "r", "tokenizer": "t", "max_steps": 9, "model": {}, "data.train": ["a", "b"], **more,
    }  # fmt: skip
    return load_config(PretrainConfig, None, values)


def test_decay_is_a_step_of_wsd_alone() -> None:
    phases = {"data.phases": [{"until": "decay"}, {"weights": {"a": 1}}]}
    with pytest.raises(UserError, match=r"cosine has no such step; write schedule\.name=wsd"):
        pretrain(**phases)
    assert pretrain(**phases, **{"schedule.name": "wsd"}).data.phases[0].until == "decay"


def test_held_out_rows_have_no_cap_and_no_order() -> None:
    held_out = {"path": "v", "order": "short_first", "max_epochs": 2}
    with pytest.raises(UserError, match="leave max_epochs and order out"):
        pretrain(**{"data.validation": [held_out]})
    pretrain(**{"data.validation": [{"path": "v", "order": "shuffled", "max_epochs": None}]})


@pytest.mark.parametrize("page", ["docs/mixtures.md", "docs/mixtures.zh.md"])
def test_the_recipes_of_the_page_are_accepted(page: str) -> None:
    recipes = [yaml.safe_load(block) for block in blocks(page, "yaml")]
    assert len(recipes) == 4
    for values in recipes:
        values.setdefault("schedule", {"name": "wsd"})
        values.setdefault("max_steps", None if "epochs" in values else 100)
        load_config(PretrainConfig, None, {"run_dir": "r", "tokenizer": "t", "model": {}, **values})


@pytest.mark.parametrize("weight", [float("inf"), 1e308, 1e-320])
def test_a_weight_that_no_share_can_be_made_of_is_refused(weight: float) -> None:
    with pytest.raises(
        UserError, match=r"weight: cannot be compared with others; write one from 1e-9 to 1e9"
    ):
        load_config(
            MixtureConfig, None, {"train": [{"path": "a", "weight": weight}, {"path": "b"}]}
        )
    with pytest.raises(UserError, match="from 1e-9 to 1e9"):
        load_config(MixtureConfig, None, {"train": ["a"], "phases": [{"weights": {"a": weight}}]})
