import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from transformers.models.qwen2 import tokenization_qwen2

from mengya.errors import UserError
from mengya.tokenizer.load import encode_texts, load_tokenizer, save_tokenizer
from mengya.tokenizer.special_tokens import ALL_SPECIAL
from mengya.tokenizer.train import sample_pieces, train_tokenizer
from mengya.tokenizer.word_split import SPLIT_PATTERN

AWKWARD = [
    "",
    " ",
    "\n\r\n\t  行首空格  \n",
    "龘靐齉爩 𠮷野家 ﷽ ﬁ Å é e\u0301 \u200d\u200b\ufeff",
    "👨‍👩‍👧‍👦🇨🇳 emoji and don't I'LL",
    "\x00\x01\x7f控制字符\x85\u2028",
    "<|im_start|>user\n<think></tool_call><|endoftext|><|reserved_0|>",
    "ＡＢＣ１２３ 全角",
    "a" * 5000,
    "".join(map(chr, range(0x20, 0x3000, 7))),
]


def test_split_rule_is_qwen2s() -> None:
    assert SPLIT_PATTERN == tokenization_qwen2.PRETOKENIZE_REGEX


def test_special_ids_are_the_first_and_in_order(tokenizer) -> None:
    assert [tokenizer.convert_tokens_to_ids(t) for t in ALL_SPECIAL] == list(
        range(len(ALL_SPECIAL))
    )
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 2, 3)
    assert len(tokenizer) == 500


def test_any_text_comes_back_exactly_and_never_as_control_ids(tokenizer) -> None:
    encoded = encode_texts(tokenizer, AWKWARD)
    for text, ids in zip(AWKWARD, encoded, strict=True):
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        assert not set(ids) & set(range(len(ALL_SPECIAL)))


def test_every_byte_has_a_token() -> None:
    tiny = train_tokenizer(["一"], 272, show_progress=False)
    assert len(tiny) == 272
    text = "字节 bytes 🙂"
    assert tiny.decode(encode_texts(tiny, [text])[0]) == text


def test_text_too_small_gives_a_smaller_vocabulary() -> None:
    assert len(train_tokenizer(["一二三"], 6400, show_progress=False)) < 300


@pytest.mark.parametrize("threads", ["1", "4"])
def test_same_bytes_in_every_process(
    tokenizer_folder: Path, corpus: list[str], tmp_path: Path, threads: str
) -> None:
    (tmp_path / "corpus.json").write_text(json.dumps(corpus[::-1]), "utf-8")
    script = (
        "import json, sys; from pathlib import Path;"
        "from mengya.tokenizer.train import train_tokenizer;"
        "from mengya.tokenizer.load import save_tokenizer;"
        "folder = Path(sys.argv[1]); texts = json.loads((folder / 'corpus.json').read_text('utf-8'));"
        "save_tokenizer(train_tokenizer(texts, 500, show_progress=False), folder)"
    )
    environment = os.environ | {
        "RAYON_NUM_THREADS": threads,
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
    }
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / name).read_bytes() == (tokenizer_folder / name).read_bytes()


def test_folder_loads_as_a_stock_tokenizer(tokenizer, tokenizer_folder: Path) -> None:
    stock = AutoTokenizer.from_pretrained(tokenizer_folder)
    text = "春天来了，hello。"
    assert stock(text)["input_ids"] == encode_texts(tokenizer, [text])[0]
    assert '"tokenizer_class": "PreTrainedTokenizerFast"' in (
        tokenizer_folder / "tokenizer_config.json"
    ).read_text("utf-8")


def test_saving_again_changes_nothing(tokenizer_folder: Path, tmp_path: Path) -> None:
    save_tokenizer(load_tokenizer(tokenizer_folder), tmp_path)
    for file in tokenizer_folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_sample_does_not_depend_on_order_and_keeps_the_budget() -> None:
    texts = [f"{hashlib.md5(str(i).encode()).hexdigest()}\n" * 300 for i in range(200)]
    shuffled = random.Random(1).sample(texts, len(texts))
    sample = sample_pieces(texts, 100_000)
    assert sample == sample_pieces(shuffled, 100_000)
    assert 100_000 <= sum(map(len, sample)) < 104_096
    assert len({piece[:32] for piece in sample}) > 15  # from many texts, not from the first ones
    assert sample != sample_pieces(texts, 50_000)


def test_small_text_is_taken_completely(corpus: list[str]) -> None:
    text = "第一行\n" * 3000 + "x" * 9000
    assert sum(map(len, sample_pieces([text[:12000], text[12000:]], 10**9))) >= 9000
    assert sorted(sample_pieces(corpus, 10**9)) == sorted(set(corpus))


@pytest.mark.parametrize(
    ("texts", "size", "word"),
    [(["好"], 100, "272"), ([], 6400, "no text"), ([""], 6400, "no text")],
)
def test_what_cannot_be_trained_is_refused(texts: list[str], size: int, word: str) -> None:
    with pytest.raises(UserError, match=word):
        train_tokenizer(texts, size, show_progress=False)


def test_a_broken_surrogate_does_not_stop_training() -> None:
    assert len(train_tokenizer(["坏字符坏字符\ud83d结束"], 300, show_progress=False)) > 272
