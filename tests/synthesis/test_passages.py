"""Documents of several formats cut into passages, with the lines where they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from mengya.data.ingest.reading.records import BadLines
from mengya.data.ingest.texts import TextSource
from mengya.errors import UserError
from mengya.synthesis.passages import Passage, PassageConfig, cut, read_passages
from tests.helpers.json_lines import write_lines

SENTENCE = "春天来了，小镇上的花都开了，孩子们在河边放风筝。"


def read(path: Path, **settings: int) -> list[Passage]:
    config = PassageConfig.model_validate({"min_characters": 10, **settings})
    return list(read_passages([TextSource(path=str(path))], config, BadLines(1)))


def test_passages_end_with_paragraphs_and_know_their_lines(tmp_path: Path) -> None:
    paragraphs = [SENTENCE * 3, "", SENTENCE * 2, "短。", SENTENCE * 4]
    (tmp_path / "a.txt").write_text("\n\n" + "\n".join(paragraphs), encoding="utf-8")
    found = read(tmp_path, max_characters=130)
    assert [p.line for p in found] == [3, 7]
    assert found[0].text == "\n".join(paragraphs[:4]) and found[1].text == paragraphs[4]
    lines = (tmp_path / "a.txt").read_text("utf-8").split("\n")
    for passage in found:
        assert lines[passage.line - 1] == passage.text.split("\n")[0]


def test_a_long_paragraph_is_cut_between_sentences_and_a_long_sentence_anywhere() -> None:
    config = PassageConfig(min_characters=1, max_characters=100)
    found = list(cut(Passage(SENTENCE * 10 + "长" * 250, "a.md", 1), config))
    assert all(len(p.text) <= 100 for p in found)
    assert "".join(p.text for p in found) == SENTENCE * 10 + "长" * 250
    assert found[0].text == SENTENCE * 4


def test_records_keep_their_line_and_bad_ones_are_counted(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl", [{"text": SENTENCE}, b"{bad", {"text": f"\n\n{SENTENCE}"}]
    )
    assert [(p.line, p.text) for p in read(path)] == [(1, SENTENCE), (3, SENTENCE)]
    write_lines(path, [b"{bad", b"worse", {"text": SENTENCE}])
    with pytest.raises(UserError):
        read(path)


def test_short_passages_and_those_beyond_the_limit_are_left_out(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "a.jsonl", [{"text": t} for t in ("短", SENTENCE, f"二{SENTENCE}", SENTENCE)]
    )
    assert len(read(tmp_path)) == 3
    assert [p.line for p in read(tmp_path, limit=2)] == [2, 3]
