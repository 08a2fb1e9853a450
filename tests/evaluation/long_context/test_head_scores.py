"""Bits per character of the beginnings of texts, against the measure of full texts."""

import math
import pickle
from pathlib import Path

import pytest
import torch

from mengya.errors import UserError
from mengya.evaluation.likelihood import scoring
from mengya.evaluation.likelihood.bits_per_char import bits_per_char
from mengya.evaluation.likelihood.scoring import sequence_nlls
from mengya.evaluation.long_context.head_scores import HeadScores
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.tokenizer.load import document_token_id, encode_texts, load_tokenizer


def test_a_text_that_fits_has_its_bits_per_char(checkpoint: Path, texts: list[str]) -> None:
    score = pickle.loads(pickle.dumps(HeadScores(checkpoint, 200, "cpu")))()  # noqa: S301 (our own)
    model, tokenizer = load_causal_lm(checkpoint), load_tokenizer(checkpoint)
    alone = [bits_per_char(model, tokenizer, [text]).bits_per_char for text in texts]
    assert score(texts) == pytest.approx(alone, rel=1e-5)


def test_of_a_long_text_the_first_tokens_count(checkpoint: Path) -> None:
    model, tokenizer = load_causal_lm(checkpoint), load_tokenizer(checkpoint)
    text = "小明每天早上七点起床，八点去学校。" * 40
    ids = encode_texts(tokenizer, [text])[0][:9]
    characters = len(str(tokenizer.decode(ids)).rstrip("\ufffd"))
    nll = sequence_nlls(model, [[document_token_id(tokenizer), *ids]])[0]
    expected = nll.double().sum().item() / math.log(2) / characters
    assert HeadScores(checkpoint, 9, "cpu")()([text]) == pytest.approx([expected], rel=1e-5)
    assert HeadScores(checkpoint, 10**6, "cpu")()([text])[0] > 0  # cut to the model's context


def test_neither_batches_nor_threads_change_a_score(
    checkpoint: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    score = HeadScores(checkpoint, 200, "cpu")()
    together = score([*texts, *texts[::-1]])
    assert together[: len(texts)] == together[len(texts) :][::-1]
    torch.set_num_threads(2)
    assert score([*texts, *texts[::-1]]) == together
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    monkeypatch.setattr(scoring, "BATCH_LOGITS", 1)
    assert score(texts) == pytest.approx(together[: len(texts)], rel=1e-6)
    assert score([""])[0] > 0 and score([]) == []


def test_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        HeadScores(tmp_path / "none", 8)()
