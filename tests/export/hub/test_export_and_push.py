"""`mengya export` with a repository: what passed its proof is pushed, then or later as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mengya.cli import main
from tests.helpers.checkpoint_source import checkpoint_source
from tests.helpers.hub_server import OWNER, TOKEN, HubServer
from tests.tokenizer.conftest import corpus, tokenizer, tokenizer_folder

__all__ = ["corpus", "tokenizer", "tokenizer_folder"]


def mengya(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["mengya", "export", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_export_then_push(
    tokenizer_folder: Path,
    tmp_path: Path,
    server: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = checkpoint_source(tokenizer_folder, tmp_path / "model", qk_norm=False).folder
    out = tmp_path / "out"
    push = f"hf.repo={OWNER}/small"
    words = (str(model), "to=hf", f"out={out}", push)

    # A proof that fails: nothing is sent.
    impossible = "parity.bounds.greedy_agreement=1"
    assert (
        mengya(monkeypatch, *words, "hf.dtype=bfloat16", impossible, "parity.bounds.nats_rise=1e-9")
        == 2
    )
    assert server.requests == [] and not out.exists()

    # The hub refuses: the folder is there, and the command that the error names pushes it.
    server.trouble[("POST", "/create")] = 503
    capfd.readouterr()
    assert mengya(monkeypatch, *words) == 2
    said = capfd.readouterr()
    again = said.err.strip().rpartition("later type: mengya export ")[2].split()
    server.trouble.clear()
    assert mengya(monkeypatch, *again) == 0
    arrived = server.repositories[f"{OWNER}/small"].branches["main"]
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.name.startswith(".")}
    assert set(arrived) == names and {"model.safetensors", "README.md", "parity.json"} <= names
    assert json.loads(arrived["parity.json"])["passed"] is True
    printed = capfd.readouterr()
    everything = said.out + said.err + printed.out + printed.err
    assert TOKEN not in everything
    assert not any(TOKEN.encode() in data for data in arrived.values())

    # Any exported folder is pushed to any hub; a checkpoint that was never exported to none.
    repo = f"modelscope.repo={OWNER}/small-zh"
    assert mengya(monkeypatch, str(out), "to=modelscope", repo) == 0
    assert server.repositories[f"{OWNER}/small-zh"].branches["master"] == arrived
    capfd.readouterr()
    assert mengya(monkeypatch, str(model), "to=hf", push) == 2
    assert "has no parity.json" in capfd.readouterr().err
    assert mengya(monkeypatch, str(model), "to=hf") == 2
    assert "write out=FOLDER" in capfd.readouterr().err
