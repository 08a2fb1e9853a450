"""`mengya prepare cluster=`: real Dask schedulers and workers; the bytes are those of this machine alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mengya.data.prepare.encoding.plan import EncodingPlan
from mengya.data.prepare.executors import cluster
from mengya.errors import UserError
from mengya.text.clean import CleanConfig
from tests.data.prepare.test_prepare import prepare, texts
from tests.helpers.json_lines import write_lines
from tests.helpers.waiting import wait_until

pytest.importorskip("distributed")

from mengya.data.prepare.executors import cluster_worker


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def dask(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`dask ARGUMENTS` in a process of its own, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


@contextmanager
def scheduler(folder: Path) -> Iterator[str]:
    """The scheduler file of a cluster without workers."""
    file = folder / "scheduler.json"
    arguments = ("--host", "127.0.0.1", "--port", str(free_port()), "--no-dashboard")
    with dask("scheduler", *arguments, "--scheduler-file", str(file)):
        wait_until(file.is_file, 30)
        yield str(file)


def worker(
    address: str, folder: Path, name: str
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A worker of one thread, with a folder of its own."""
    local = folder / name
    return dask(
        "worker", "--scheduler-file", address, "--nthreads", "1", "--no-dashboard", "--no-nanny",
        "--host", "127.0.0.1", "--local-directory", str(local), "--name", name,
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(folder.rglob("*.bin"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_shards_of_a_cluster_are_those_of_one_machine(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "ours.jsonl"
    write_lines(ours, texts(9000))
    settings = {"validation_fraction": 0.1}
    alone = prepare(tmp_path / "alone", tokenizer_folder, [str(ours)], **settings)
    killed: list[int] = []
    with (
        scheduler(tmp_path) as address,
        worker(address, tmp_path, "first") as first,
        worker(address, tmp_path, "second"),
    ):
        finished = cluster._finished

        def kill_one(*arguments):
            if not killed:
                os.killpg(first.pid, signal.SIGKILL)
                killed.append(first.pid)
            return finished(*arguments)

        monkeypatch.setattr(cluster, "_finished", kill_one)
        wait_until(lambda: workers_of(address) == 2, 60)
        there = prepare(
            tmp_path / "there",
            tokenizer_folder,
            [str(ours)],
            workers=0,
            cluster=address,
            **settings,
        )
    assert killed
    assert contents(there) == contents(alone)
    assert contents(alone)


def workers_of(address: str) -> int:
    import distributed

    with distributed.Client(scheduler_file=address, set_as_default=False) as client:
        threads: Any = client.nthreads()
        return len(threads)


def test_a_cluster_without_workers_is_refused(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "WORKER_SECONDS", 0.5)
    ours = tmp_path / "ours.jsonl"
    write_lines(ours, texts(3))
    with (
        scheduler(tmp_path) as address,
        pytest.raises(UserError, match="has no workers; start some with `dask worker tcp://127"),
    ):
        prepare(tmp_path / "out", tokenizer_folder, [str(ours)], workers=0, cluster=address)


def test_a_scheduler_that_dies_is_said_and_what_is_done_is_kept(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "ours.jsonl"
    write_lines(ours, texts(9000))
    place = ("--host", "127.0.0.1", "--port", str(free_port()), "--no-dashboard")
    file = tmp_path / "scheduler.json"
    finished = cluster._finished
    with dask("scheduler", *place, "--scheduler-file", str(file)) as process:
        wait_until(file.is_file, 30)

        def kill_it(*arguments):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)
            return finished(*arguments)

        monkeypatch.setattr(cluster, "_finished", kill_it)
        with (
            worker(str(file), tmp_path, "only"),
            pytest.raises(UserError, match="the scheduler is gone; start it"),
        ):
            prepare(tmp_path / "out", tokenizer_folder, [str(ours)], workers=0, cluster=str(file))
    assert (tmp_path / ".out.mengya-partial").is_dir()


def test_no_cluster_at_the_address(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "ours.jsonl"
    write_lines(ours, texts(3))
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    for address in (
        f"tcp://127.0.0.1:{free_port()}",
        str(tmp_path / "missing.json"),
        "nonsense://",
    ):
        with pytest.raises(UserError, match="no Dask scheduler answers there"):
            prepare(tmp_path / "out", tokenizer_folder, [str(ours)], workers=0, cluster=address)


def test_conversations_need_no_tokenizer_folder_on_the_workers(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = EncodingPlan("conversation", str(tokenizer_folder), [], CleanConfig())
    sent = cluster_worker.PlanPlugin(plan)
    seen: list[dict[str, bytes]] = []

    def encoder(plan: EncodingPlan) -> None:
        folder = Path(plan.tokenizer_path)
        assert folder != tokenizer_folder
        seen.append({p.name: p.read_bytes() for p in folder.iterdir()})

    monkeypatch.setattr(cluster_worker, "Encoder", encoder)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sent.encoder()
    assert seen == [{p.name: p.read_bytes() for p in tokenizer_folder.iterdir() if p.is_file()}]
    assert list(tmp_path.iterdir()) == []  # nothing stays on the worker


def test_workers_and_cluster_exclude_each_other(tmp_path: Path, tokenizer_folder: Path) -> None:
    with pytest.raises(ValueError, match="leave it out with cluster="):
        prepare(tmp_path / "out", tokenizer_folder, [str(tmp_path)], workers=2, cluster="tcp://a:1")
