"""Both hubs at a server of our own, with their real packages; what they wait for is cut to moments."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

# modelscope_hub reads them once, when it is imported.
os.environ["MODELSCOPE_API_TIMEOUT"] = "1"
os.environ["MODELSCOPE_API_MAX_RETRIES"] = "1"
os.environ["MODELSCOPE_UPLOAD_RECOVERY_ENABLED"] = "false"
os.environ["MODELSCOPE_UPLOAD_BLOB_READ_TIMEOUT_SECONDS"] = "1"
os.environ["MODELSCOPE_UPLOAD_BLOB_MAX_ATTEMPTS"] = "1"
os.environ["MODELSCOPE_UPLOAD_FAILED_FILE_MAX_RETRY_ROUNDS"] = "1"
os.environ["MODELSCOPE_UPLOAD_COMMIT_MAX_ATTEMPTS"] = "2"

import huggingface_hub.utils._http as hf_http
import modelscope_hub
import modelscope_hub._upload as modelscope_upload
import modelscope_hub.config as modelscope_config
from huggingface_hub import constants

from mengya.export.hub import huggingface, modelscope
from mengya.export.hub.hub import Hub
from mengya.export.parity.files import file_hashes
from mengya.runtime.hub import huggingface as calls
from tests.helpers.hub_server import TOKEN, HubServer, hub_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """With both packages pointed at it, a token in the environment, and no login on disk."""
    with hub_server() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
        monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses"), False)
        monkeypatch.setattr(calls, "SILENCE", 0.3)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.url)
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
        monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope"))
        monkeypatch.setattr(modelscope_config, "_default_config", None)
        moments = SimpleNamespace(sleep=lambda _: None, time=time.time, monotonic=time.monotonic)
        monkeypatch.setattr(hf_http, "time", moments)
        monkeypatch.setattr(modelscope_upload, "time", moments)
        yield running


@pytest.fixture(params=["hf", "modelscope"])
def hub(request: pytest.FixtureRequest, server: HubServer) -> Hub:
    assert modelscope_hub.__version__
    kinds = {"hf": huggingface.HuggingFaceHub, "modelscope": modelscope.ModelScopeHub}
    return kinds[request.param]()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As `mengya export` leaves one: small files, two large ones, a proof and the marker."""
    made = tmp_path / "exported"
    (made / "onnx").mkdir(parents=True)
    (made / "config.json").write_text('{"model_type": "qwen3"}')
    (made / "分词.txt").write_text("你好")
    (made / "model.safetensors").write_bytes(os.urandom(200_000))
    (made / "onnx" / "model.onnx").write_bytes(os.urandom(100_001))
    (made / ".mengya.json").write_text("{}")
    (made / "parity.json").write_text(json.dumps({"passed": True, "files": file_hashes(made)}))
    (made / "README.md").write_text("---\nlicense: mit\n---\n# 小模型\n")
    return made
