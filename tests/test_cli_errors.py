"""What a user can cause ends in one message and exit code 2, never in a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mengya import cli
from mengya.errors import user_message
from mengya.runtime.jsonl import read_steps


@pytest.fixture
def mengya(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., str]:
    """Runs a command that must be refused, and gives the message."""
    monkeypatch.chdir(tmp_path)

    def refused(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["mengya", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        error = capfd.readouterr().err
        assert ended.value.code == 2, error
        assert "Traceback" not in error and error.startswith("error: ")
        return error

    return refused


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    (folder / "ballast").write_bytes(b"x" * (os.statvfs(folder).f_bavail * 4096))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


RECIPE = "tokenizer: t\nmodel: {vocab_size: 400}\ndata: {train: shards}\nmax_steps: 1\n"


def test_recipes(mengya: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(RECIPE)
    (tmp_path / "b.yaml").write_text("extends: [a.yaml, 3]\n")
    assert "b.yaml: `extends` is the path of a recipe or a list" in mengya("pretrain", "b.yaml")
    (tmp_path / "b.yaml").write_text("extends: {a: 1}\n")
    assert "got {'a': 1}" in mengya("pretrain", "b.yaml")
    assert f"{tmp_path} is a folder; name a file in it: a.yaml, b.yaml" in mengya(
        "pretrain", tmp_path
    )
    (tmp_path / "c.yaml").write_bytes("run_dir: 运行\n".encode("gbk"))
    assert "c.yaml cannot be read as YAML" in mengya("pretrain", "c.yaml")
    (tmp_path / "d.yaml").write_text("3: x\n")
    assert "3" in mengya("pretrain", "d.yaml")


def test_an_override_may_be_longer_than_a_path(mengya: Callable[..., str]) -> None:
    said = mengya("pretrain", f"model={{hidden_size: 64, {'x' * 300}: 1}}")
    assert "model." + "x" * 300 in said


@pytest.mark.parametrize("key", ["domains.a-b", "domains.c++", "domains.新 闻"])
def test_an_override_may_have_any_name_of_a_mapping(mengya: Callable[..., str], key: str) -> None:
    assert "unknown key" in mengya("evaluate", f"{key}=a.jsonl", "nothing=1")
    assert "checkpoint folder a=b does not exist" in mengya("chat", "./a=b")


def test_folders_of_runs(mengya: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(RECIPE)
    (tmp_path / "file").write_text("x")
    assert "run_dir=file is a file" in mengya("pretrain", "a.yaml", "run_dir=file")
    mengya("pretrain", "a.yaml", "run_dir=file/run")
    mengya("pretrain", "a.yaml", "run_dir=/sys/kernel/run")
    assert "tokenizer folder 't' does not exist" in mengya("pretrain", "a.yaml", "run_dir=run")
    mengya("pretrain", "a.yaml", f"run_dir={'长' * 200}")
    mengya("merge", "nothing", "out=out")
    mengya("evaluate", "nothing", "text_shards=nothing")
    mengya("plan", "nothing.yaml")


def test_a_disk_that_is_full_at_the_start(mengya: Callable[..., str], full_disk: Path) -> None:
    Path("a.yaml").write_text(RECIPE)
    assert "No space left" in mengya("pretrain", "a.yaml", f"run_dir={full_disk}/run")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), "runs/x: Permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", b"runs/x"), "runs/x: Is a directory"),
        (torch.OutOfMemoryError("CUDA out of memory."), "micro_batch_size"),
        (OSError(errno.EBADF, "Bad file descriptor"), None),
        (ValueError("a bug"), None),
    ],
)
def test_what_the_system_refuses_is_no_bug(error: Exception, said: str | None) -> None:
    message = user_message(error)
    assert message is None if said is None else said in str(message)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"loss": 1}', r":2 has no integer `step`"),
        (b"[1]", r":2 is no JSON object"),
        (b'{"step": 2, "x": "\xb5"}', r":2 is not JSON in UTF-8"),
        (b"{", r":2 is not JSON in UTF-8"),
    ],
)
def test_lines_of_metrics_that_no_run_wrote(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(Exception, match=said):
        list(read_steps(path))
    path.write_bytes('{"step": 1, "text": "a\u2028b"}\n{"st'.encode())
    assert list(read_steps(path)) == [{"step": 1, "text": "a\u2028b"}]


@pytest.mark.parametrize("library", ["safetensors", "numpy", "Python"])
def test_a_disk_that_takes_no_more_is_no_bug(library: str, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    array = np.ones(5000, np.float32)
    path = tmp_path / "x"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(Exception) as caught:
            if library == "safetensors":
                save_file({"x": array}, path)
            elif library == "numpy":
                array.tofile(path)
            else:
                path.write_bytes(array.tobytes())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = user_message(caught.value)
    assert message is not None and ("space" in message or "choose another path" in message)
