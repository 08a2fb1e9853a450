"""Every kind of tokenizer through the verbs: train, convert, compare, count, and a model made with it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer
from typer.testing import CliRunner

import mengya
from mengya.cli import app, config_class_of, find_verb, read_arguments
from mengya.config import load_config
from mengya.errors import UserError
from mengya.export.gguf.vocabulary import read_vocabulary
from mengya.export.llama2c.vocabulary import llama2c_vocabulary
from mengya.stages.tokenizer import compare, convert, count, train
from mengya.tokenizer.load import encode_texts, load_tokenizer, tokenizer_hash
from tests.helpers.stage_fixtures import MODEL, sentence


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    texts = ["".join(sentence(i + j) for j in range(4)) for i in range(200)]
    lines = (
        json.dumps({"text": text, "meta": {"from": "甲"}}, ensure_ascii=False) for text in texts
    )
    (folder / "text.jsonl").write_text("\n".join(lines), "utf-8")
    chats = [
        {
            "messages": [
                {"role": "user", "content": text[:20]},
                {"role": "assistant", "content": text},
            ]
        }
        for text in texts
    ]
    lines = (json.dumps(chat, ensure_ascii=False) for chat in chats)
    (folder / "chat.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module", params=["sentencepiece_bpe", "sentencepiece_unigram"])
def folder(request: pytest.FixtureRequest, data: Path) -> Path:
    out = data / request.param
    size = 420 if request.param == "sentencepiece_bpe" else 330
    mengya.train_tokenizer(
        out=out, sources=str(data / "text.jsonl"), model=request.param, vocab_size=size
    )
    return out


def test_a_trained_folder_holds_the_librarys_own_file(folder: Path, data: Path) -> None:
    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    texts = [
        json.loads(line)["text"] for line in (data / "text.jsonl").read_text("utf-8").splitlines()
    ]
    assert encode_texts(load_tokenizer(folder), texts) == library.encode(texts)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs(texts[0], add_special_tokens=False)["input_ids"] == library.encode(texts[0])
    reports = json.loads((folder / "tokenizer_report.json").read_text("utf-8"))
    assert reports[str(folder)]["exact"] == 1.0


def test_a_model_is_made_with_it(folder: Path, data: Path, tmp_path: Path) -> None:
    if folder.name != "sentencepiece_bpe":
        pytest.skip("one of both: their folders differ in ids alone")
    text = mengya.prepare(
        out=tmp_path / "text", tokenizer=folder, sources=str(data / "text.jsonl"), workers=1
    )
    chat = mengya.prepare(
        out=tmp_path / "chat", tokenizer=folder, sources=str(data / "chat.jsonl"), workers=1,
        kind="conversation",
    )  # fmt: skip
    common = {
        "micro_batch_size": 2, "max_steps": 2, "device": "cpu", "precision": "fp32", "trackers": [],
    }  # fmt: skip
    base = mengya.pretrain(
        run_dir=tmp_path / "base", tokenizer=folder, model=MODEL | {"qk_norm": False},
        data={"train": [str(text["train"])], "sequence_length": 64}, **common,
    )  # fmt: skip
    tuned = mengya.sft(
        run_dir=tmp_path / "tuned", init_from=base.run_dir,
        data={"train": [str(chat["train"])], "sequence_length": 128}, **common,
    )  # fmt: skip
    model = mengya.load(tuned.run_dir, device="cpu")
    messages = [{"role": "user", "content": "小满在第3天买了什么？"}]
    answer = model.chat(messages, temperature=0, max_new_tokens=12)
    assert answer == "".join(model.stream_chat(messages, temperature=0, max_new_tokens=12))
    assert tokenizer_hash(model.checkpoint) == tokenizer_hash(folder)


def test_formats_that_hold_byte_level_bpe_alone_refuse_it(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    for read in (read_vocabulary, llama2c_vocabulary):
        with pytest.raises(UserError, match=r"byte-level BPE.*to=hf"):
            read(tokenizer, len(tokenizer))


def test_settings_of_sentencepiece_are_not_taken_for_nothing(data: Path, tmp_path: Path) -> None:
    given = [
        f"out={tmp_path / 't'}",
        f"sources={data / 'text.jsonl'}",
        "sentencepiece.split_digits=false",
    ]
    with pytest.raises(UserError, match="is for model=sentencepiece_bpe"):
        load_config(train.TokenizerConfig, None, given)
    load_config(train.TokenizerConfig, None, [*given, "model=sentencepiece_bpe"])


def test_convert_writes_a_folder_and_says_on_what_it_was_compared(
    folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "converted"
    config = convert.TokenizerConvertConfig(
        file=folder / "tokenizer.model",
        out=out,
        texts=[str(data / "text.jsonl")],  # type: ignore[list-item]
    )
    convert.run(config)
    assert tokenizer_hash(out) == tokenizer_hash(folder)
    facts = json.loads((out / "conversion.json").read_text("utf-8"))
    assert facts["equal_ids"]["texts"] == 230 and facts["equal_ids"]["rounding"] == 0
    assert "ids equal to those of sentencepiece on 230 texts" in " ".join(
        capsys.readouterr().err.split()
    )
    with pytest.raises(UserError, match="overwrite=true"):
        convert.run(config)


def test_a_folder_of_a_bare_vocabulary_names_the_command_that_converts_it(
    folder: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    with pytest.raises(UserError, match="mengya tokenizer convert") as refused:
        load_tokenizer(bare)
    found = re.search(r"mengya (tokenizer convert \S+ out=)FOLDER", str(refused.value))
    assert found is not None
    verb, arguments = find_verb([*found[1].split()[:-1], f"out={tmp_path / 'made'}"])
    convert.run(read_arguments(config_class_of(verb), "file", arguments))
    assert load_tokenizer(tmp_path / "made").eos_token == "<|im_end|>"


def test_compare_takes_folders_and_files(
    folder: Path,
    data: Path,
    tokenizer_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    twin = tmp_path / "found.json"
    arguments = [
        str(tokenizer_folder), str(folder / "tokenizer.model"), f"texts={data / 'text.jsonl'}",
        "max_characters=4000", f"json_file={twin}",
    ]  # fmt: skip
    config = read_arguments(compare.TokenizerCompareConfig, "tokenizers", arguments)
    found = compare.run(config)
    said = json.loads(twin.read_text("utf-8"))
    assert list(said) == list(found) == arguments[:2]
    part = said[arguments[0]]["domains"]["text.jsonl"]
    assert part["characters"] == 4000 and part["characters_per_token"] == 4000 / part["tokens"]
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and any("characters per token by script" in x for x in lines)
    with pytest.raises(UserError, match=r"json_file.* exists; write overwrite=true"):
        compare.run(config)
    compare.run(config.model_copy(update={"overwrite": True}))


def test_count_by_field(folder: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [str(data / "text.jsonl"), str(data / "chat.jsonl")]
    config = count.TokenizerCountConfig(
        tokenizer=folder, sources=sources, sequence_length=64, global_batch_size=8, limit=150
    )
    total = count.run(config)
    out = capsys.readouterr().out
    assert "meta.from" in out and "messages.content" in out and "messages.role" in out
    own = count.run(config.model_copy(update={"fields": ["text"]}))
    texts = [json.loads(x)["text"] for x in (data / "text.jsonl").read_text("utf-8").splitlines()]
    expected = sum(map(len, encode_texts(load_tokenizer(folder), texts[:150])))
    assert own.tokens == expected and own.characters == sum(map(len, texts[:150]))
    assert own.documents == 150 and total.documents == 300 and own.dtype == "uint16"
    assert own.bytes == 2 * (expected + 300) and own.steps == -(-(expected + 300) // 512)
    with pytest.raises(UserError, match="leave out fields to see"):
        count.run(config.model_copy(update={"fields": ["body"]}))


def test_the_group_trains_where_no_verb_is_named() -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["tokenizer", "--help"]).output
    assert "compare" in shown and "convert" in shown and "count" in shown
    assert "vocab_size" in runner.invoke(app, ["tokenizer", "--keys"]).output
    assert "hidden_size" in runner.invoke(app, ["tokenizer", "compare", "--keys"]).output
    failed = runner.invoke(app, ["tokenizer", "vocab_size=1"])
    assert isinstance(failed.exception, UserError) and "out: is required" in str(failed.exception)
    assert find_verb(["tokenizer", "out=x"]) == ("tokenizer", ["out=x"])


def test_the_missing_package_is_named_before_the_text_is_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r"sentencepiece is not installed.*\.\[sentencepiece\]"):
        mengya.train_tokenizer(
            out=tmp_path / "t", sources=str(data / "text.jsonl"), model="sentencepiece_bpe"
        )
    assert not (tmp_path / "t").exists()
