"""More tokens for a trained model: old texts mean what they did, new tokens start near what they replace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mengya.config import load_config
from mengya.errors import UserError
from mengya.models.causal_lm import CausalLM
from mengya.models.config.model import ModelConfig
from mengya.models.hf.checkpoint import load_causal_lm, write_folder
from mengya.stages import pretrain
from mengya.stages.extend import ExtendConfig, run
from mengya.stages.pretrain import PretrainConfig
from mengya.tokenizer.load import encode_texts, load_tokenizer
from tests.helpers.stage_fixtures import StageFixtures, sentence

NEW = ["心肌梗死", "冠状动脉"]


def extended(base: Path, out: Path, *overrides: str) -> Path:
    run(load_config(ExtendConfig, None, [f"checkpoint={base}", f"out={out}", *overrides]))
    return out


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 1, 40])  # rows that the model has beyond its tokenizer
@torch.no_grad()
def test_old_ids_are_as_they_were_and_new_rows_are_means(
    fixtures: StageFixtures, tmp_path: Path, tied: bool, spare: int
) -> None:
    tokenizer = load_tokenizer(fixtures.tokenizer)
    old = len(tokenizer)
    torch.manual_seed(0)
    shape = ModelConfig(
        vocab_size=old + spare, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    before = CausalLM(shape).eval()
    write_folder(before, tokenizer, fixtures.tokenizer, torch.float32, tmp_path / "base")
    out = extended(tmp_path / "base", tmp_path / "out", f"tokens={json.dumps(NEW)}")

    after, larger = load_causal_lm(out).eval(), load_tokenizer(out)
    assert after.config.vocab_size == max(old + 2, old + spare) and len(larger) == old + 2
    texts = [sentence(i) for i in range(20)]
    assert encode_texts(larger, texts) == encode_texts(tokenizer, texts)
    ids = torch.tensor([encode_texts(tokenizer, [texts[0]])[0]])
    torch.testing.assert_close(
        after(ids).head_output[..., :old], before(ids).head_output[..., :old]
    )
    for number, token in enumerate(NEW):
        assert encode_texts(larger, [f"是{token}。"])[0].count(old + number) == 1
        parts = encode_texts(tokenizer, [token])[0]
        for weights in ("model.embed_tokens.weight", "lm_head.weight"):
            row = after.state_dict()[weights][old + number]
            torch.testing.assert_close(row, before.state_dict()[weights][parts].mean(0))

    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    reader: Any = transformers.AutoTokenizer.from_pretrained(out)
    text = "他得了心肌梗死。"
    assert reader(text, add_special_tokens=False).input_ids == encode_texts(larger, [text])[0]
    assert reader.decode(reader(text).input_ids, skip_special_tokens=True) == text
    new_ids = torch.tensor([encode_texts(larger, [text])[0]])
    torch.testing.assert_close(
        theirs(new_ids).logits, after(new_ids).head_output, atol=1e-5, rtol=1e-5
    )


def test_special_tokens_are_no_text(fixtures: StageFixtures, tmp_path: Path) -> None:
    out = extended(fixtures.base, tmp_path / "out", 'tokens=["<|note|>"]', "special=true")
    larger = load_tokenizer(out)
    new = len(larger) - 1
    assert larger.convert_tokens_to_ids("<|note|>") == new
    assert larger.added_tokens_decoder[new].special
    assert new not in encode_texts(larger, ["一<|note|>二"])[0]
    assert larger.decode([new], skip_special_tokens=True) == ""


def test_words_are_learned_from_a_field_and_shorten_it(
    fixtures: StageFixtures, tmp_path: Path
) -> None:
    field = tmp_path / "field.txt"
    lines = [
        f"患者{i}号确诊急性心肌梗死，冠状动脉造影显示狭窄，予阿司匹林治疗。" for i in range(300)
    ]
    field.write_text("\n\n".join(lines), "utf-8")
    out = extended(
        fixtures.base, tmp_path / "out", f"sources={field}", "new_tokens=6", 'tokens=["阿司匹林"]'
    )
    before, after = load_tokenizer(fixtures.base), load_tokenizer(out)
    added = [after.convert_ids_to_tokens(i) for i in range(len(before), len(after))]
    assert added[0] == "阿司匹林" and 2 <= len(added) <= 7
    (long,), (short,) = encode_texts(before, lines[:1]), encode_texts(after, lines[:1])
    assert len(short) < 0.8 * len(long)
    assert after.decode(short) == lines[0]
    weights = load_causal_lm(out).model.embed_tokens.weight
    assert weights[len(before) :].norm(dim=1).min() > 0


def test_training_continues_with_it(fixtures: StageFixtures, tmp_path: Path) -> None:
    from mengya.stages import prepare
    from mengya.stages.prepare import PrepareConfig

    out = extended(fixtures.base, tmp_path / "out", 'tokens=["云朵很高兴"]')
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(sentence(i) for i in range(200)), "utf-8")
    prepare.run(
        load_config(PrepareConfig, None, [
            "kind=text", f"out={tmp_path / 'shards'}", f"tokenizer={out}", f"sources={texts}", "workers=1",
        ])
    )  # fmt: skip
    settings = fixtures.settings("text", tmp_path / "run", init_from=out, max_steps=1)
    settings["data"] = {"train": [str(tmp_path / "shards")], "sequence_length": 64}
    del settings["tokenizer"]
    assert pretrain.run(PretrainConfig(**settings))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ((), "nothing to add"),
        (("special=true", "sources=x"), "special=true is for tokens"),
        (('tokens=["小满","小满"]',), "must be different"),
        (('tokens=[""]',), "not empty"),
        (('tokens=["<|im_end|>"]',), "are one token already, such as '<|im_end|>'"),
    ],
)
def test_what_cannot_be_added_is_refused(
    fixtures: StageFixtures, tmp_path: Path, overrides: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(UserError) as refused:
        extended(fixtures.base, tmp_path / "out", *overrides)
    assert reason in str(refused.value) and not (tmp_path / "out").exists()
