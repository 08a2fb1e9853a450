"""What `mengya prepare` imports: torch alone takes more than a second of each start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from transformers import AutoTokenizer

from mengya.tokenizer.load import load_tokenizer
from tests.helpers.json_lines import write_lines

RUN = """
import sys
from mengya.stages.prepare import PrepareConfig, run
out, tokenizer, data = sys.argv[1:]
settings = {"out": out, "tokenizer": tokenizer, "sources": data, "filters": "standard"}
run(PrepareConfig.model_validate(settings))
print([name for name in ("torch", "matplotlib", "pyarrow", "pandas") if name in sys.modules])
"""


def test_text_is_prepared_without_torch(tmp_path: Path, tokenizer_folder: Path) -> None:
    data = write_lines(tmp_path / "a.jsonl", [{"text": "小镇的集市今天开张，老王卖出了四十斤鱼。"}])
    command = [sys.executable, "-c", RUN, str(tmp_path / "out"), str(tokenizer_folder), str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_tokenizer_folder_is_what_auto_tokenizer_finds(tokenizer_folder: Path) -> None:
    ours, auto = load_tokenizer(tokenizer_folder), AutoTokenizer.from_pretrained(tokenizer_folder)
    assert type(ours) is type(auto)
    assert ours.backend_tokenizer.to_str() == auto.backend_tokenizer.to_str()
    assert ours.special_tokens_map == auto.special_tokens_map
    assert ours.chat_template == auto.chat_template
