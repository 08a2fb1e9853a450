"""Faults planted in an export: each is found, under its own name; and nothing is where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from mengya.errors import UserError
from mengya.export.hf import HF, HfOptions, TransformersFolder
from mengya.export.parity.bounds import EXACT, INT4, BoundsOverride
from mengya.export.parity.prove import prove
from mengya.export.parity.result import Parity
from mengya.export.source import Source

LOGITS = {"logit_error_mean", "logit_error_max"}


@pytest.fixture(scope="module")
def exported(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    HF.write(source, folder, HfOptions())
    return folder


def edit_json(path: Path, change: Callable[[dict], None]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def interleave_rows(folder: Path) -> None:
    """Rows of q and k in the order of llama.cpp's Llama: pairs of neighbours."""

    def permuted(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (-1, 2, 8)).transpose(1, 2).reshape(weight.shape).contiguous()

    path = folder / "model.safetensors"
    tensors = {
        name: permuted(tensor) if name.endswith(("q_proj.weight", "k_proj.weight")) else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def other_theta(folder: Path) -> None:
    edit_json(folder / "config.json", lambda v: v["rope_parameters"].update(rope_theta=10000.0))


def drop_stop_token(folder: Path) -> None:
    edit_json(folder / "generation_config.json", lambda v: v.update(eos_token_id=0))


def add_newline(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    text = path.read_text(encoding="utf-8")
    assert "assistant\\n'" in text
    path.write_text(text.replace("assistant\\n'", "assistant\\n\\n'"), encoding="utf-8")


def drop_merge(folder: Path) -> None:
    edit_json(folder / "tokenizer.json", lambda v: v["model"]["merges"].pop())


def rename_special_token(folder: Path) -> None:
    path = folder / "tokenizer.json"
    text = path.read_text(encoding="utf-8").replace("<|im_start|>", "<|im_starts|>")
    path.write_text(text, encoding="utf-8")


def other_head_dim(folder: Path) -> None:
    edit_json(folder / "config.json", lambda v: v.update(head_dim=8))


def proof(source: Source, folder: Path) -> Parity:
    readers = (TransformersFolder(folder) for _ in range(1))
    return prove(source.model, source.tokenizer, readers, EXACT)


def missed(parity: Parity) -> set[str]:
    return {check.name for _, check in parity.missed()}


def test_a_faithful_export_passes_with_nothing_between_them(source: Source, exported: Path) -> None:
    parity = proof(source, exported)
    parity.require(Path("out"))
    (reader,) = parity.readers
    assert [check.value for check in reader.checks[:4]] == [0, 0, 0, 0]
    assert [check.of for check in reader.checks[:4]] == [200, 10, 10, 2]
    assert parity.nats_per_token == pytest.approx(reader.nats_per_token, abs=1e-5)


@pytest.mark.parametrize(
    ("plant", "names"),
    [
        (interleave_rows, LOGITS),
        (other_theta, LOGITS),
        (drop_stop_token, {"stop_tokens"}),
        (add_newline, {"prompts"}),
        (drop_merge, {"token_ids"}),
        (rename_special_token, {"prompt_ids"}),
    ],
)
def test_a_planted_fault_has_its_name(
    source: Source,
    exported: Path,
    tmp_path: Path,
    plant: Callable[[Path], None],
    names: set[str],
) -> None:
    folder = tmp_path / "faulty"
    shutil.copytree(exported, folder)
    plant(folder)
    parity = proof(source, folder)
    found = missed(parity)
    assert names <= found
    if names is LOGITS:
        assert not found & {"token_ids", "prompt_ids", "prompts", "stop_tokens"}
        with pytest.raises(UserError, match="single tokens are right"):
            parity.require(Path("out"))
    else:
        assert not found & LOGITS


def test_rounding_hides_no_fault(source: Source, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "faulty"
    shutil.copytree(exported, folder)
    other_theta(folder)
    loose = replace(INT4, logit_error_mean=9.0, logit_error_max=99.0, greedy_agreement=0.0)
    parity = prove(
        source.model, source.tokenizer, [TransformersFolder(folder)], loose, written=source.model
    )
    assert missed(parity) == {"written_error"}
    with pytest.raises(UserError, match="rope_theta"):
        parity.require(Path("out"))


def test_a_file_that_cannot_be_opened_is_a_finding(
    source: Source, exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "faulty"
    shutil.copytree(exported, folder)
    other_head_dim(folder)
    with pytest.raises(UserError, match="cannot be opened"):
        proof(source, folder).require(Path("out"))


def test_the_remedy_of_a_missed_bound_allows_it(
    source: Source, exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "faulty"
    shutil.copytree(exported, folder)
    other_theta(folder)
    parity = proof(source, folder)
    with pytest.raises(UserError) as refused:
        parity.require(Path("out"))
    typed = str(refused.value).rpartition("write ")[2].split()
    values = {
        key.removeprefix("parity.bounds."): value for key, value in (t.split("=") for t in typed)
    }
    assert values.keys() == missed(parity)
    loosened = EXACT.loosened(BoundsOverride.model_validate(values))
    again = prove(source.model, source.tokenizer, [TransformersFolder(folder)], loosened)
    again.require(Path("out"))


class Mute:
    """A program that answers nothing."""

    program = "mute"

    def token_ids(self, text: str, parse_special: bool = False) -> None: ...
    def logits(self, ids: object) -> None: ...
    def prompt(self, messages: object, tools: object, enable_thinking: object = None) -> None: ...
    def stop_token_ids(self) -> None: ...


def test_nothing_is_proven_by_no_answers(source: Source) -> None:
    parity = prove(source.model, source.tokenizer, [Mute()], EXACT)
    assert not parity.missed()
    assert len(parity.unanswered()) == 8
    with pytest.raises(UserError, match="no program that is installed answers"):
        parity.require(Path("out"))
