"""Every text of a sample is cleaned, filters give their reason, and hashes decide the validation split."""

from __future__ import annotations

import numpy as np
import pytest

from mengya.data.ingest.samples import clean_sample, drop_reason, held_out, sample_hashes
from mengya.data.ingest.schema import Conversation, Document, Preference, Sample
from mengya.text.clean import CleanConfig

USER, REPLY = {"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}


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


def test_the_split_of_chats_goes_by_their_first_question() -> None:
    one, two = Preference([USER], [REPLY], [USER]), Preference([USER], [USER], [REPLY])
    (one_hash, split_one), (two_hash, split_two) = sample_hashes(one), sample_hashes(two)
    assert split_one == split_two and one_hash != two_hash
    chat = Conversation([{"role": "system", "content": "s"}, USER, REPLY])
    other = Conversation([USER, USER], tools=[{"name": "f"}])
    assert sample_hashes(chat)[1] == sample_hashes(other)[1] == split_one
    assert sample_hashes(chat)[0] != sample_hashes(other)[0]


def test_held_out_takes_its_fraction_and_only_grows() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    small, large = held_out(hashes, 0.01), held_out(hashes, 0.1)
    assert small.mean() == pytest.approx(0.01, rel=0.15) and large.mean() == pytest.approx(
        0.1, rel=0.05
    )
    assert (small <= large).all() and not held_out(hashes, 0).any()
