import gzip
import json
from pathlib import Path

import pytest

from mengya.config import load_config
from mengya.errors import UserError
from mengya.stages.tokenizer.train import REPORT_FILE, TokenizerConfig, run
from mengya.tokenizer.load import load_tokenizer, tokenizer_hash
from mengya.tokenizer.report import report


@pytest.fixture
def text_files(tmp_path: Path, corpus: list[str]) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    with gzip.open(folder / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in corpus[:200]
        )
        file.write("broken\n")
    with (folder / "b.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in corpus[200:])
    return folder


def configured(out: Path, sources: object, *overrides: str) -> TokenizerConfig:
    values = [f"out={out}", f"sources={json.dumps(sources)}", "vocab_size=450", *overrides]
    return load_config(TokenizerConfig, None, values)


def test_a_folder_of_files_gives_a_tokenizer_and_a_report(
    text_files: Path, tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tok"
    run(configured(out, str(text_files), f'compare=["{tokenizer_folder}"]'))
    tokenizer = load_tokenizer(out)
    assert len(tokenizer) == 450
    reports = json.loads((out / REPORT_FILE).read_text("utf-8"))
    assert reports[str(out)]["exact"] == 1.0 and reports[str(out)]["unknown"] == 0.0
    assert reports[str(tokenizer_folder)]["vocab_size"] == 500
    assert 1 <= reports[str(out)]["documents"] < 30  # a few were kept out
    notes = capsys.readouterr()
    assert "a.jsonl.gz:201" in " ".join(notes.err.split()).replace(" ", "")
    assert "kept out of training" in notes.out
    again = tmp_path / "again"
    run(
        configured(
            again, [{"path": str(text_files / "b.jsonl")}, {"path": str(text_files / "a.jsonl.gz")}]
        )
    )
    assert tokenizer_hash(again) == tokenizer_hash(out)  # order does not matter


@pytest.mark.parametrize(
    ("overrides", "word"),
    [(["max_bad_lines=0"], "max_bad_lines"), (["compare=[/no/such]"], "does not exist")],
)
def test_bad_input_is_refused(
    text_files: Path, tmp_path: Path, overrides: list[str], word: str
) -> None:
    with pytest.raises(UserError, match=word):
        run(configured(tmp_path / "tok", str(text_files), *overrides))
    assert not (tmp_path / "tok").exists()


def test_an_existing_folder_is_replaced_only_when_asked_to_and_never_with_other_files(
    text_files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tok"
    run(configured(out, str(text_files)))
    before = tokenizer_hash(out)
    with pytest.raises(UserError, match="overwrite=true"):
        run(configured(out, str(text_files), "vocab_size=400"))
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"did not write: thesis\.txt"):
        run(configured(out, str(text_files), "vocab_size=400", "overwrite=true"))
    assert tokenizer_hash(out) == before and (out / "thesis.txt").read_text() == "years of work"
    (out / "thesis.txt").rename(tmp_path / "thesis.txt")
    (out / ".mengya.json").unlink()  # as earlier versions left it
    run(configured(out, str(text_files), "vocab_size=400", "overwrite=true"))
    assert tokenizer_hash(out) != before
    with pytest.raises(
        UserError, match="is read, and inside out="
    ):  # the issue: the corpus was gone
        run(configured(text_files, str(text_files / "b.jsonl"), "overwrite=true"))
    assert (text_files / "b.jsonl").is_file() and (text_files / "a.jsonl.gz").is_file()


def test_a_wrong_field_is_named_with_its_line(text_files: Path, tmp_path: Path) -> None:
    sources = [{"path": str(text_files / "b.jsonl"), "field": "content"}]
    with pytest.raises(UserError, match=r"b\.jsonl:1: .*content"):
        run(configured(tmp_path / "tok", sources, "max_bad_lines=5"))


def test_report_by_hand(tokenizer) -> None:
    texts = ["春天来了。" * 20, "龘", ""]
    result = report(tokenizer, texts, context=10)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts[:2]]
    tokens = sum(map(len, ids))
    assert (result.documents, result.characters, result.tokens) == (2, 101, tokens)
    assert result.characters_per_token == pytest.approx(101 / tokens)
    assert result.bytes_per_token == pytest.approx(303 / tokens)
    assert result.truncated == 0.5 and result.exact == 1.0
    assert result.vocabulary_used == pytest.approx(len({i for row in ids for i in row}) / 500)
    with pytest.raises(UserError, match="no text"):
        report(tokenizer, [""])
