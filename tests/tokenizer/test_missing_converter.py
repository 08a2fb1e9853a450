"""A vocabulary without a tokenizer.json whose converter is not installed: the message names the right one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from mengya.errors import UserError
from mengya.tokenizer.load import load_tokenizer

# The first piece of a SentencePiece model: field 1, of it field 1 the text "<unk>", field 3 its type.
SENTENCEPIECE = b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02"
TIKTOKEN = b"IQ== 0\nIg== 1\n"


@pytest.mark.parametrize(
    ("name", "content", "package"),
    [
        ("tokenizer.model", SENTENCEPIECE, "sentencepiece"),
        ("spiece.model", SENTENCEPIECE, "sentencepiece"),
        ("tokenizer.model", TIKTOKEN, "tiktoken"),
    ],
)
def test_the_missing_package_is_named_with_its_extra(
    name: str, content: bytes, package: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        load_tokenizer(tmp_path)
    said = str(refused.value)
    assert f"the package {package}" in said and f"pip install -e '.[{package}]'" in said
    extras = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    assert f'\n{package} = ["{package}>=' in extras


def test_a_tokenizer_json_beside_it_needs_none(tokenizer_folder: Path, tmp_path: Path) -> None:
    for file in tokenizer_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer.model").write_bytes(SENTENCEPIECE)
    assert len(load_tokenizer(tmp_path)) == len(load_tokenizer(tokenizer_folder))
