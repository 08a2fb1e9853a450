"""Real text and foreign tokenizers; skipped where the shared data is absent."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mengya.errors import UserError
from mengya.tokenizer.chat_template import encode_conversation, encode_prompt
from mengya.tokenizer.load import document_token_id, encode_texts, load_tokenizer, stop_token_ids

CONVERSATION = [
    {"role": "user", "content": "你好<|im_end|>"},
    {"role": "assistant", "content": "你好！"},
    {"role": "user", "content": "user 天气"},
    {"role": "assistant", "content": "晴"},
]


def chunks(file: Path, characters: int) -> Iterator[str]:
    """The text of a file, whatever its format; bytes that are not UTF-8 are left out."""
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
        while block := stream.read(characters):
            yield block.decode("utf-8", "ignore")


def files(shared_data: Path) -> list[Path]:
    return [
        f
        for part in ("pretrain", "sft", "dpo", "eval")
        for f in sorted((shared_data / part).iterdir())
    ]


def assert_round_trip(tokenizer: PreTrainedTokenizerFast, texts: list[str], file: Path) -> None:
    for text, ids in zip(texts, encode_texts(tokenizer, texts), strict=True):
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text, file


def test_round_trip_is_exact_on_the_head_of_every_file(tokenizer, shared_data: Path) -> None:
    for file in files(shared_data):
        assert_round_trip(tokenizer, [next(chunks(file, 20_000))], file)


@pytest.mark.slow
def test_round_trip_is_exact_on_every_file(tokenizer, shared_data: Path) -> None:
    for file in files(shared_data):
        for text in chunks(file, 1_000_000):
            assert_round_trip(tokenizer, [text], file)


@pytest.mark.parametrize(
    ("name", "size", "document"), [("minimind", 6400, 0), ("miaomiao", 32006, 32003)]
)
def test_a_foreign_folder_works_with_its_own_template(
    shared_data: Path, name: str, size: int, document: int
) -> None:
    tokenizer = load_tokenizer(shared_data / "tokenizers" / name)
    assert len(tokenizer) == size and document_token_id(tokenizer) == document
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in stop_token_ids(tokenizer)
    assert_round_trip(tokenizer, ["你好，world 12\n  x <|im_end|> 龘🙂"], shared_data / name)
    ids, mask = encode_conversation(tokenizer, CONVERSATION)
    assert ids.count(end) == len(CONVERSATION) + (name == "miaomiao")  # its own system turn
    labelled = tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
    assert labelled == "你好！<|im_end|>晴<|im_end|>"
    for turn in (1, 3):
        prompt = encode_prompt(tokenizer, CONVERSATION[:turn])
        assert ids[: len(prompt)] == prompt


def test_foreign_ids_are_those_of_transformers(shared_data: Path) -> None:
    folder = shared_data / "tokenizers" / "minimind"
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(CONVERSATION[2:])
    assert encode_conversation(load_tokenizer(folder), CONVERSATION[2:])[0] == theirs["input_ids"]


@pytest.mark.parametrize("name", ["qwen", "chinese_llama"])
def test_a_vocabulary_without_tokenizer_json_says_what_is_missing(
    shared_data: Path, name: str
) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_tokenizer(shared_data / "tokenizers" / name)
