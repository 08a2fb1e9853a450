"""What `import mengya` promises: names, signatures, weight, and that they do what they say."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import mengya
from tests.helpers.stage_fixtures import StageFixtures
from tests.stages.conftest import checkpoint, corpus, fixtures, texts, tokenizer, tokenizer_folder

__all__ = ["checkpoint", "corpus", "fixtures", "texts", "tokenizer", "tokenizer_folder"]

# A change here is a change for every user: note it in CHANGELOG.md.
SAMPLING = "**sampling: 'Any'"
CHAT = (
    "(self, messages: 'Messages', *, tools: 'Tools | None' = None, "
    f"enable_thinking: 'bool | None' = None, {SAMPLING})"
)
STAGE = "(recipe: 'StrPath | None' = None, /, **keys: 'Any')"
SIGNATURES = {
    "load": "(checkpoint: 'StrPath', *, device: 'DeviceName' = 'auto', dtype: 'DtypeName' = 'auto')"
    " -> 'Model'",
    "train_tokenizer": f"{STAGE} -> 'Path'",
    "get_data": "(name: 'str', recipe: 'StrPath | None' = None, /, **keys: 'Any') -> 'Path'",
    "prepare": f"{STAGE} -> 'dict[str, Path]'",
    "pretrain": f"{STAGE} -> 'TrainingRun'",
    "sft": f"{STAGE} -> 'TrainingRun'",
    "dpo": f"{STAGE} -> 'TrainingRun'",
    "evaluate": "(checkpoint: 'StrPath', recipe: 'StrPath | None' = None, /, **keys: 'Any')"
    " -> 'dict[str, Any]'",
    "quantize": "(checkpoint: 'StrPath', recipe: 'StrPath | None' = None, /, **keys: 'Any')"
    " -> 'dict[str, Any]'",
    "export_model": "(checkpoint: 'StrPath', recipe: 'StrPath | None' = None, /, **keys: 'Any')"
    " -> 'dict[str, Any]'",
    "Model.generate": f"(self, prompt: 'str | list[str]', {SAMPLING}) -> 'str | list[str]'",
    "Model.stream": f"(self, prompt: 'str', {SAMPLING}) -> 'Iterator[str]'",
    "Model.chat": f"{CHAT} -> 'str'",
    "Model.stream_chat": f"{CHAT} -> 'Iterator[str]'",
}
GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 8}


def public(name: str) -> object:
    found: object = mengya
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_the_names_are_these_and_all_are_documented() -> None:
    classes = {"Model", "TrainingRun", "UserError"}
    functions = {name for name in SIGNATURES if "." not in name}
    assert set(mengya.__all__) == classes | functions | {"__version__"}
    assert set(mengya.__all__) <= set(dir(mengya))
    for name in (*classes, *SIGNATURES):
        assert inspect.getdoc(public(name)), name


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_these(name: str) -> None:
    function = public(name)
    assert callable(function)
    assert str(inspect.signature(function)) == SIGNATURES[name]


def test_nothing_else_is_given() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        getattr(mengya, "trian")  # noqa: B009


def test_import_is_light_and_works_without_an_install(tmp_path: Path) -> None:
    source = Path(mengya.__file__).parents[1]
    code = (
        f"import sys; sys.path[:0] = [{str(source)!r}]; import mengya; "
        "print(mengya.__version__, mengya.__file__, "
        "[m for m in ('torch', 'transformers', 'pydantic', 'numpy') if m in sys.modules])"
    )
    command = [sys.executable, "-I", "-c", code]  # -I: no PYTHONPATH, nothing of this folder
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{mengya.__version__} {mengya.__file__} []"


def test_the_version_is_written_once_and_types_are_shipped() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", mengya.__version__)
    root = Path(__file__).parents[1]
    assert mengya.__version__ not in (root / "pyproject.toml").read_text("utf-8")
    assert files("mengya").joinpath("py.typed").is_file()


def test_a_model_completes_and_chats(checkpoint: Path) -> None:
    model = mengya.load(checkpoint, device="cpu")
    assert str(checkpoint) in repr(model) and "float32, cpu" in repr(model)
    one = model.generate("小满", **GREEDY)
    assert model.generate(["小满", "阿木买了"], **GREEDY)[0] == one
    assert "".join(model.stream("小满", **GREEDY)) == one
    said = model.chat("你好", **GREEDY)
    assert said == model.chat([{"role": "user", "content": "你好"}], **GREEDY)
    assert said == "".join(model.stream_chat("你好", **GREEDY))
    assert model.generate("小满", seed=1) == model.generate("小满", seed=1)


def test_a_run_folder_and_an_adapter_load_and_keys_override_a_recipe(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    recipe = tmp_path / "sft.yaml"
    settings = fixtures.settings("conversation", tmp_path / "run", max_steps=2)
    recipe.write_text(json.dumps(settings, default=str), encoding="utf-8")  # JSON is YAML
    run = mengya.sft(recipe, lora={"rank": 2}, **{"loop.eval_every": 2, "optimizer": {"lr": 1e-3}})
    assert (run.finished, run.step, run.run_dir) == (True, 2, tmp_path / "run")
    assert {"loss", "validation/loss"} <= run.metrics.keys()
    assert (run.checkpoint / "adapter_config.json").is_file()
    saved = (run.run_dir / "config.yaml").read_text("utf-8")
    assert "rank: 2" in saved and "eval_every: 2\n" in saved and "log_every: 1\n" in saved
    model = mengya.load(run.run_dir, device="cpu")
    assert model.checkpoint == run.checkpoint
    result = mengya.evaluate(
        run.checkpoint, preferences=fixtures.shards["preference"][1], out=tmp_path / "e.json"
    )
    assert result["preference"]["pairs"] == 20 and result["text"] is None
    assert json.loads((tmp_path / "e.json").read_text("utf-8"))["preference"]["pairs"] == 20


def test_errors_are_user_errors_that_name_the_key(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(mengya.UserError, match="does not exist"):
        mengya.load(tmp_path / "nothing")
    with pytest.raises(mengya.UserError, match="device='gpu' must be one of auto, cpu, cuda"):
        mengya.load(checkpoint, device="gpu")  # pyright: ignore[reportArgumentType]
    model = mengya.load(checkpoint, device="cpu")
    with pytest.raises(mengya.UserError, match="temprature: unknown key; did you mean 'temp"):
        model.generate("小满", temprature=1)
    with pytest.raises(mengya.UserError, match=r"temperature: .*greater than or equal to 0"):
        model.stream_chat("小满", temperature=-1)  # before iteration
    with pytest.raises(mengya.UserError, match=r"`pretrain`(.|\n)*optimizer.lr: .*greater than 0"):
        mengya.pretrain(run_dir=tmp_path, optimizer={"lr": -1}, data={"train": "shards/x"})
