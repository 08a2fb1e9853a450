"""Cleaning changes characters only, filters give their reason, and hashes find what is equal."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from mengya.data.ingest import dedup
from mengya.data.ingest.clean import CleanConfig, clean_sample, clean_text, drop_reason
from mengya.data.ingest.dedup import SeenHashes, held_out, sample_hashes, text_hash
from mengya.data.ingest.schema import Conversation, Document, Preference, Sample

USER, REPLY = {"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a\r\nb\rc\u2028d\x0be\x85f", "a\nb\nc\nd\ne\nf"),
        ("\ufeff零\u200b宽\u00ad\u2060", "零宽"),
        ("控\x00制\x07字\x1b符\x7f", "控制字符"),
        ("制表\t留下\n换行也是", "制表\t留下\n换行也是"),
        ("e\u0301", "é"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("  两边  ", "两边"),
        ("ＡＢＣ，１２３", "ＡＢＣ，１２３"),
        ("长" * 100_000, "长" * 100_000),
    ],
)
def test_clean_text(dirty: str, clean: str) -> None:
    assert clean_text(dirty, CleanConfig()) == clean
    assert clean_text(clean, CleanConfig()) == clean


def test_what_is_cleaned_can_be_chosen() -> None:
    assert clean_text("ＡＢＣ，ﬁ", CleanConfig(unicode="NFKC")) == "ABC,fi"
    assert clean_text("e\u0301", CleanConfig(unicode="none")) == "e\u0301"
    assert clean_text("a\r\n\x00b", CleanConfig(control_characters=False)) == "a\r\n\x00b"
    with pytest.raises(ValidationError, match="below min_characters"):
        CleanConfig(min_characters=10, max_characters=5)


def test_every_text_of_a_sample_is_cleaned() -> None:
    dirty = [
        {"role": "user", "content": "\u200b问"},
        {"role": "assistant", "content": "答\x00", "reasoning_content": "想\r\n想"},
    ]
    clean = [USER, {**REPLY, "reasoning_content": "想\n想"}]
    config = CleanConfig()
    assert clean_sample(Conversation(dirty), config) == Conversation(clean)
    assert clean_sample(Preference(dirty[:1], dirty[1:], dirty[1:]), config) == Preference(
        clean[:1], clean[1:], clean[1:]
    )


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (Document(""), "empty"),
        (Document("四个字啊"), "too_short"),
        (Document("五个字啊！"), None),
        (Document("长" * 101), "too_long"),
        (Conversation([USER, REPLY]), None),
        (Conversation([USER, {"role": "assistant", "content": ""}]), "empty_turn"),
        (Conversation([{"role": "user", "content": ""}, REPLY]), "empty_turn"),
        (
            Conversation([USER, {"role": "assistant", "content": "", "tool_calls": [{}]}, REPLY]),
            None,
        ),
        (Conversation([USER, {"role": "assistant", "content": "长" * 101}]), "too_long"),
        (Preference([USER], [REPLY], [REPLY]), "same_answers"),
        (Preference([USER], [REPLY], [{"role": "assistant", "content": ""}]), "empty_turn"),
    ],
)
def test_reasons(sample: Sample, reason: str | None) -> None:
    assert drop_reason(sample, CleanConfig(max_characters=100)) == reason


def test_long_documents_are_kept() -> None:
    assert drop_reason(Document("长" * 3_000_000), CleanConfig()) is None


def test_hashes_ignore_white_space_and_case() -> None:
    assert text_hash("Hello 世界\n") == text_hash("hello世 界") != text_hash("hello世界!")
    assert len({text_hash(str(i)) for i in range(10_000)}) == 10_000


def test_the_split_of_a_preference_goes_by_its_prompt() -> None:
    one, two = Preference([USER], [REPLY], [USER]), Preference([USER], [USER], [REPLY])
    (whole_one, split_one), (whole_two, split_two) = sample_hashes(one), sample_hashes(two)
    assert split_one == split_two and whole_one != whole_two
    whole, split = sample_hashes(Conversation([USER, REPLY]))
    assert whole == split


def test_seen_hashes_is_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "RECENT", 50)  # many merges
    rng = np.random.default_rng(0)
    seen, reference = SeenHashes(), set()
    for _ in range(100):
        hashes = rng.integers(0, 2**64, 30, dtype=np.uint64)
        hashes[:15] = rng.integers(2**63, 2**63 + 300, 15, dtype=np.uint64)
        expected = []
        for value in hashes.tolist():
            expected.append(value not in reference)
            reference.add(value)
        assert seen.add(hashes).tolist() == expected
    assert len(seen) == len(reference)
    everything = np.array(list(reference), np.uint64)
    assert not SeenHashes(everything).add(everything[:30]).any()


def test_held_out_takes_its_fraction_and_only_grows() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    small, large = held_out(hashes, 0.01), held_out(hashes, 0.1)
    assert small.mean() == pytest.approx(0.01, rel=0.15) and large.mean() == pytest.approx(
        0.1, rel=0.05
    )
    assert (small <= large).all() and not held_out(hashes, 0).any()
