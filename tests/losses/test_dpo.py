"""DPO against the paper's starting point and TRL's own loss; padding and silent pairs count for nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from mengya.batch import IGNORE_INDEX
from mengya.losses.dpo import DPO, completion_logps
from mengya.models.causal_lm import CausalLM
from tests.helpers.preference_pairs import VOCAB, Pair, pack_pairs, random_pairs, tiny_model


def reference_of(model: CausalLM):
    return lambda batch: model(**batch.model_inputs())


def test_starts_at_ln_2_with_the_reference_as_policy() -> None:
    model = tiny_model(0)
    pairs = random_pairs(1, 4)
    batch = pack_pairs([pairs[:2], pairs[2:]], 64)
    loss = DPO(reference_of(copy.deepcopy(model)), beta=0.1)
    assert loss.items(batch) == 4
    result = loss(model, batch)
    assert result.loss.item() / 4 == pytest.approx(math.log(2), abs=1e-6)
    assert result.metrics["margin"].item() == pytest.approx(0, abs=1e-5)
    result.loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_packing_does_not_change_log_probabilities() -> None:
    model = tiny_model(0)
    pairs = random_pairs(2, 5)
    together = completion_logps(
        model(**(b := pack_pairs([pairs], 96)).model_inputs()).head_output, b
    )
    for p, pair in enumerate(pairs):
        alone = pack_pairs([[pair]], 24)
        logps = completion_logps(model(**alone.model_inputs()).head_output, alone)
        torch.testing.assert_close(together[0, 2 * p : 2 * p + 2], logps[0, :2])


def test_equals_trl_on_the_same_batch(tmp_path: Path) -> None:
    policy, reference = tiny_model(0), tiny_model(1)
    pairs = random_pairs(3, 4)
    batch = pack_pairs([pairs[:3], pairs[3:]], 80)
    result = DPO(reference_of(reference), beta=0.3)(policy, batch)
    theirs = trl_loss(policy, reference, pairs, beta=0.3, folder=tmp_path)
    assert result.loss.item() / 4 == pytest.approx(theirs, rel=1e-5)


def trl_loss(
    policy: CausalLM, reference: CausalLM, pairs: Sequence[Pair], beta: float, folder: Path
) -> float:
    """TRL's sigmoid DPO loss with the same weights in transformers' Qwen3."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    config = policy.config
    stock_config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        rms_norm_eps=config.rms_norm_eps, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
    )  # fmt: skip

    def stock(model: CausalLM) -> Qwen3ForCausalLM:
        twin = Qwen3ForCausalLM(stock_config)
        twin.load_state_dict(model.state_dict())
        return twin

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    trainer = DPOTrainer(
        model=stock(policy),
        ref_model=stock(reference),
        args=DPOConfig(
            output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", beta=beta
        ),
        train_dataset=Dataset.from_list([{"prompt": "w2", "chosen": "w3", "rejected": "w4"}]),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="w0", eos_token="w1"
        ),
    )
    rows = [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        for prompt, chosen, rejected in pairs
    ]
    assert trainer.model is not None
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    assert isinstance(loss, torch.Tensor)
    return loss.item()


def test_label_smoothing_is_a_share_of_flipped_pairs() -> None:
    policy, reference = tiny_model(0), reference_of(tiny_model(1))
    pairs = random_pairs(5, 3)
    flipped = [(prompt, rejected, chosen) for prompt, chosen, rejected in pairs]
    straight, reverse = pack_pairs([pairs], 80), pack_pairs([flipped], 80)
    plain = DPO(reference, beta=0.3)
    expected = 0.8 * plain(policy, straight).loss + 0.2 * plain(policy, reverse).loss
    smoothed = DPO(reference, beta=0.3, label_smoothing=0.2)(policy, straight).loss
    torch.testing.assert_close(smoothed, expected)


def test_sft_weight_adds_the_chosen_completions_mean_nll() -> None:
    policy, reference = tiny_model(0), reference_of(tiny_model(1))
    pairs = random_pairs(6, 3)
    batch = pack_pairs([pairs], 80)
    logps = completion_logps(policy(**batch.model_inputs()).head_output, batch)[0]
    nll = sum(-logps[2 * p] / len(chosen) for p, (_, chosen, _) in enumerate(pairs))
    plain = DPO(reference)(policy, batch).loss
    torch.testing.assert_close(
        DPO(reference, sft_weight=0.5)(policy, batch).loss, plain + 0.5 * nll
    )


def test_a_row_of_padding_and_a_silent_side_count_for_nothing() -> None:
    model = tiny_model(0)
    pairs = random_pairs(4, 2)
    batch = pack_pairs([pairs], 64)
    loss = DPO(reference_of(tiny_model(1)), beta=0.1)
    full = loss(model, batch).loss
    batch.labels[0][batch.document_ids[0] == 3] = IGNORE_INDEX  # the rejected side of pair 1
    assert loss.items(batch) == 1
    half = loss(model, batch)
    assert 0 < half.loss.item() < full.item()
    batch.labels[:] = IGNORE_INDEX
    assert loss.items(batch) == 0
    nothing = loss(model, batch)
    assert nothing.loss.item() == 0.0
    nothing.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
