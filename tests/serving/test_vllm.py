"""Where vLLM is installed: its real server, started by `mengya serve engine=vllm`, equals our engine.

Run by hand in vLLM's own environment: pytest -m slow tests/serving/test_vllm.py
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest
import torch

from mengya.generation.engine import generate
from mengya.generation.sampling import SamplingParams
from mengya.models.adapters.lora import LoraConfig, add_lora, load_merged, save_adapter
from mengya.models.hf.checkpoint import load_causal_lm, write_folder
from mengya.tokenizer.load import save_tokenizer
from tests.helpers.live_server import tiny_model
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow
PROMPTS = [[5, 9, 41, 7], [100, 3, 77, 250, 18, 6]]
# Heads of 64: vLLM's CPU build has no kernel for the narrow ones of the other tests.
WIDE = {
    "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 256,
}  # fmt: skip


def test_vllm_says_what_our_engine_says(tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    folder, adapter = tmp_path / "base", tmp_path / "poet"
    save_tokenizer(tokenizer, folder)
    write_folder(tiny_model(**WIDE), tokenizer, folder, torch.float32, folder)
    adapted = add_lora(load_causal_lm(folder), LoraConfig(rank=4))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.2)
    save_adapter(adapted, adapter, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable, "-m", "mengya", "serve", str(folder), "engine=vllm", "dtype=float32",
            f"port={port}", f"adapters.poet={adapter}",
        ],
        env={**os.environ, "MENGYA_API_KEY": "k", "VLLM_CPU_KVCACHE_SPACE": "1"},
        start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: server.poll() is not None or answers(url), 240)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
        assert [model.id for model in client.models.list()] == ["base", "poet"]
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()
        greedy = SamplingParams(max_new_tokens=12, temperature=0)
        said = {}
        for name, model in {"base": tiny_model(**WIDE), "poet": load_merged(adapter)}.items():
            ours = generate(model.eval(), PROMPTS, greedy, [])
            for prompt, tokens in zip(PROMPTS, ours, strict=True):
                answer = client.completions.create(
                    model=name, prompt=prompt, max_tokens=12, temperature=0,
                    extra_body={"ignore_eos": True, "return_token_ids": True},
                )  # fmt: skip
                assert answer.choices[0].model_dump()["token_ids"] == tokens, name
            said[name] = ours
        assert said["base"] != said["poet"]
    finally:
        os.killpg(server.pid, signal.SIGINT)  # what Ctrl-C sends: to vLLM and to us
        try:
            status = server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            raise
    assert status == 0


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False
