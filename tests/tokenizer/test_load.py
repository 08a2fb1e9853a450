from pathlib import Path

import pytest

from mengya.errors import UserError
from mengya.tokenizer.load import (
    copy_tokenizer,
    document_token_id,
    load_tokenizer,
    stop_token_ids,
    tokenizer_hash,
)


def test_ids_that_separate_and_stop(tokenizer) -> None:
    assert document_token_id(tokenizer) == tokenizer.bos_token_id == 0
    assert stop_token_ids(tokenizer) == [0, 2]


def test_copy_has_the_same_hash_and_another_vocabulary_another(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    copy_tokenizer(tokenizer_folder, tmp_path)
    copy_tokenizer(tmp_path, tmp_path)  # onto itself: nothing to do
    assert tokenizer_hash(tmp_path) == tokenizer_hash(tokenizer_folder)
    text = (tmp_path / "tokenizer.json").read_text("utf-8")
    (tmp_path / "tokenizer.json").write_text(text.replace("reserved_0", "reserved_x"), "utf-8")
    assert tokenizer_hash(tmp_path) != tokenizer_hash(tokenizer_folder)


def test_folders_that_are_none_say_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mengya tokenizer"):
        load_tokenizer(tmp_path / "typo")
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="no tokenizer"):
        tokenizer_hash(tmp_path)
    with pytest.raises(UserError, match="no tokenizer files"):
        copy_tokenizer(tmp_path, tmp_path / "copy")
    (tmp_path / "tokenizer.json").write_text("{broken", "utf-8")
    with pytest.raises(UserError, match="cannot load"):
        load_tokenizer(tmp_path)
