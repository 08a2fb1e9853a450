import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mengya.errors import UserError
from mengya.evaluation.likelihood import scoring
from mengya.evaluation.likelihood.bits_per_char import bits_per_char, windows
from mengya.models.hf.checkpoint import load_causal_lm
from mengya.tokenizer.load import load_tokenizer


def by_hand(checkpoint: Path, texts: list[str], window: int) -> tuple[float, int]:
    """Bits and tokens through transformers, one window at a time."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    bits, tokens = 0.0, 0
    for text in texts:
        ids = [0, *tokenizer(text, add_special_tokens=False)["input_ids"], 0]
        start = 0
        while start < len(ids) - 1:
            piece = ids[start : start + window + 1]
            with torch.no_grad():
                logits = model(torch.tensor([piece[:-1]])).logits[0]
            logps = torch.log_softmax(logits.double(), -1)
            bits -= sum(logps[i, t].item() for i, t in enumerate(piece[1:])) / math.log(2)
            tokens += len(piece) - 1
            start += window
    return bits, tokens


@pytest.mark.parametrize("window", [None, 7])
def test_equals_a_computation_by_hand_through_transformers(
    checkpoint: Path, texts: list[str], window: int | None
) -> None:
    bits, tokens = by_hand(checkpoint, texts, window or 256)
    result = bits_per_char(load_causal_lm(checkpoint), load_tokenizer(checkpoint), texts, window)
    assert result.bits_per_char == pytest.approx(bits / sum(map(len, texts)), rel=1e-5)
    assert result.bits_per_byte == pytest.approx(bits / sum(len(t.encode()) for t in texts), 1e-5)
    assert result.nats_per_token == pytest.approx(bits * math.log(2) / tokens, rel=1e-5)
    assert (result.documents, result.tokens) == (len(texts), tokens)


def test_batches_and_order_change_nothing(
    checkpoint: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_causal_lm(checkpoint), load_tokenizer(checkpoint)
    together = bits_per_char(model, tokenizer, texts)
    monkeypatch.setattr(scoring, "BATCH_LOGITS", 1)
    alone = bits_per_char(model, tokenizer, [*texts[::-1], ""])
    assert together.bits_per_char == pytest.approx(alone.bits_per_char, rel=1e-6)


def test_a_control_token_in_the_text_costs_its_characters(checkpoint: Path) -> None:
    model, tokenizer = load_causal_lm(checkpoint), load_tokenizer(checkpoint)
    result = bits_per_char(model, tokenizer, ["<|im_end|>"])
    assert result.tokens > 5 and result.characters == 10


def test_an_untrained_uniform_model_costs_the_logarithm_of_the_vocabulary(checkpoint: Path) -> None:
    model, tokenizer = load_causal_lm(checkpoint), load_tokenizer(checkpoint)
    torch.nn.init.zeros_(model.lm_head.weight)
    assert bits_per_char(model, tokenizer, ["好" * 50]).nats_per_token == pytest.approx(
        math.log(300), rel=1e-6
    )


def test_windows_predict_each_token_once() -> None:
    for length in range(2, 30):
        ids = list(range(length))
        predicted = [token for piece in windows(ids, 7) for token in piece[1:]]
        assert predicted == ids[1:]
        assert all(2 <= len(piece) <= 8 for piece in windows(ids, 7))


def test_the_training_mode_of_the_model_is_kept(checkpoint: Path) -> None:
    model, tokenizer = load_causal_lm(checkpoint).train(), load_tokenizer(checkpoint)
    bits_per_char(model, tokenizer, ["好"])
    assert model.training


def test_nothing_to_measure_is_refused(checkpoint: Path) -> None:
    model, tokenizer = load_causal_lm(checkpoint), load_tokenizer(checkpoint)
    with pytest.raises(UserError, match="no text"):
        bits_per_char(model, tokenizer, ["", ""])
    with pytest.raises(UserError, match="window=1000"):
        bits_per_char(model, tokenizer, ["好"], window=1000)
