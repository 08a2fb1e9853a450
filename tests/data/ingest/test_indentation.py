"""Code keeps its first indentation, and differs from code that is indented otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mengya.data.ingest.samples import clean_sample, drop_reason, sample_hashes
from mengya.data.ingest.schema import Conversation, Document, Preference, Sample
from mengya.text.clean import CleanConfig, clean_text
from mengya.text.duplicates import squeeze
from mengya.tokenizer.chat_template import encode_conversation, encode_prompt
from mengya.tokenizer.train import train_tokenizer

CODE = "    return x\n\ndef f():\n    pass"
TOKENIZER = train_tokenizer([CODE + "你好，世界。"] * 20, 320, show_progress=False)


@pytest.mark.parametrize(
    ("text", "indentation", "all_"),
    [
        (f"\n \n{CODE}\n", CODE, CODE.strip()),
        ("\tx", "\tx", "x"),
        (" 你好 ", "你好", "你好"),
        ("    你好", "你好", "你好"),
        (" x", "x", "x"),
        ("\u3000\u3000你好", "你好", "你好"),
        ("\r\n  x", "  x", "x"),
        ("  \n\t ", "", ""),
    ],
)
def test_clean(text: str, indentation: str, all_: str) -> None:
    assert clean_text(text, CleanConfig()) == indentation
    assert clean_text(text, CleanConfig(white_space="all")) == all_
    off = CleanConfig(white_space="none", control_characters=False, unicode="none")
    assert clean_text(text, off) == text
    assert drop_reason(clean_sample(Document("  \n  "), off), off) == "empty"


def test_squeezed_text() -> None:
    for one, other in [
        ("a\nb c", "AB\n\n c"),
        ("春天\n    来了", "春天来了 "),
        (CODE, CODE.replace("\n\n", "\n")),
    ]:
        assert squeeze(one) == squeeze(other)
    for one, other in [
        ("if a:\n    b\nc", "if a:\n    b\n    c"),
        ("    x", "x"),
        ("a\n\tb", "a\nb"),
    ]:
        assert squeeze(one) != squeeze(other)


def chat(answer: str) -> Conversation:
    return Conversation(
        [{"role": "user", "content": "问"}, {"role": "assistant", "content": answer}]
    )


@pytest.mark.parametrize("make", [Document, chat])
def test_hashes(make: Any) -> None:
    samples: list[Sample] = [make(t) for t in ("Ab\ncd", "ab cd", "ab\n  cd")]
    loose = [sample_hashes(sample)[0] for sample in samples]
    exact = [sample_hashes(sample, exact=True)[0] for sample in samples]
    assert loose[0] == loose[1] != loose[2] and len(set(exact)) == 3


def test_a_pair_that_differs_only_there_is_a_pair() -> None:
    user = [{"role": "user", "content": "问"}]
    sides = [[{"role": "assistant", "content": text}] for text in ("    x = 1", "x = 1")]
    sample = clean_sample(Preference(user, *sides), CleanConfig())
    assert drop_reason(sample, CleanConfig()) is None


@pytest.mark.parametrize("reasoning", [{}, {"reasoning_content": "想"}])
@pytest.mark.parametrize("answer", [CODE, f"\n\r\n{CODE}", "\tx", "你好"])
def test_the_template_keeps_it_and_a_prompt_stays_a_prefix(answer: str, reasoning: Any) -> None:
    messages = [
        {"role": "user", "content": "问"},
        {"role": "assistant", "content": answer, **reasoning},
    ]
    ids, mask = encode_conversation(TOKENIZER, messages)
    learned = str(TOKENIZER.decode(np.array(ids)[np.array(mask) == 1].tolist()))
    assert learned.endswith(f"{answer.lstrip(chr(10) + chr(13))}<|im_end|>")
    prompt = encode_prompt(TOKENIZER, messages[:1])
    assert ids[: len(prompt)] == prompt and mask[len(prompt)] == 1


def test_prepare_has_an_exact_mode(tmp_path: Path, tokenizer_folder: Path) -> None:
    from mengya.data.shards import TokenShards
    from mengya.stages.prepare import PrepareConfig, run
    from tests.helpers.json_lines import write_lines

    texts = ["def f():\n  pass", "def f():\n pass", "DEF f():\n pass", "def f():\n pass"]
    write_lines(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    counts = {}
    for dedup in (False, True, "exact"):
        config = {
            "out": tmp_path / str(dedup),
            "tokenizer": tokenizer_folder,
            "sources": str(tmp_path / "a.jsonl"),
            "workers": 1,
            "dedup": dedup,
        }
        run(PrepareConfig.model_validate(config))
        counts[dedup] = len(TokenShards(tmp_path / str(dedup)))
    assert counts == {False: 4, True: 2, "exact": 3}
