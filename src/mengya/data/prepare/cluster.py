"""Chunks -> encoded chunks on the workers of a Dask cluster, in the order of the chunks.

This process reads the files, sends chunks of about a megabyte and writes the shards; the workers, on any
number of machines, parse, filter and tokenize. They need mengya in the same version and nothing else: the
plan carries the tokenizer's files. Since the order is that of the chunks, the shards are those of a run on
one machine, byte for byte, whatever workers come, go or die meanwhile.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mengya.data.ingest.reading.records import Chunk
from mengya.data.prepare.encode import EncodedChunk, Encoder, EncodingPlan
from mengya.errors import UserError
from mengya.runtime.optional import require
from mengya.version import __version__

if TYPE_CHECKING:
    from distributed import Future

CONNECT_SECONDS = 30
WORKER_SECONDS = 60  # until the first one: they start at the same time as this process under Slurm
PENDING_PER_THREAD = 3  # chunks: one in work, the others on their way


def encode_on_cluster(
    chunks: Iterable[tuple[int, Chunk]], address: str, plan: EncodingPlan
) -> Generator[tuple[Chunk, EncodedChunk], None, None]:
    """(chunk, what became of it) for every (source, chunk), in order; a chunk's items are gone by then.

    Args:
        address: of the scheduler, as tcp://10.0.0.1:8786, or the path of its scheduler file.

    Raises:
        UserError: no cluster answers, it has no workers or another version of mengya, or a chunk killed
            every worker that took it.
    """
    distributed = require("distributed", "cluster")
    client = _connect(distributed, address)
    pending: deque[tuple[Chunk, Future]] = deque()
    try:
        shipped = client.scatter(ShippedPlan.of(plan), broadcast=True)
        for source, chunk in chunks:
            if len(pending) >= _room(client):
                yield _finished(distributed, pending)
            pending.append((chunk, client.submit(_work, shipped, source, chunk, pure=False)))
        while pending:
            yield _finished(distributed, pending)
    finally:
        for _, future in pending:
            future.cancel()
        client.close()


@dataclass(frozen=True)
class ShippedPlan:
    """A plan with the files of its tokenizer, for machines that do not have its folder.

    Attributes:
        digest: of all the rest: a worker makes one encoder for each plan.
    """

    plan: EncodingPlan
    tokenizer: dict[str, bytes]
    digest: str

    @staticmethod
    def of(plan: EncodingPlan) -> ShippedPlan:
        """Text needs no files: the plan has its tokenizer as JSON."""
        folder = Path(plan.tokenizer_path)
        files = sorted(folder.iterdir()) if plan.kind != "text" else []
        read = {path.name: path.read_bytes() for path in files if path.is_file()}
        digest = hashlib.sha256(pickle.dumps((plan, read))).hexdigest()
        return ShippedPlan(plan, read, digest)

    def unpacked(self) -> EncodingPlan:
        """The plan with a folder of this machine."""
        if not self.tokenizer:
            return self.plan
        folder = Path(tempfile.mkdtemp(prefix="mengya-tokenizer-"))
        for name, content in self.tokenizer.items():
            (folder / name).write_bytes(content)
        return replace(self.plan, tokenizer_path=str(folder))


def _connect(distributed: Any, address: str) -> Any:
    where = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        client = distributed.Client(**where, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UserError(
            f"cluster={address}: no Dask scheduler answers there ({type(error).__name__}); start one with "
            "`dask scheduler` and give the address that it prints, or leave cluster out"
        ) from None
    try:
        _check_workers(client, address)
    except UserError:
        client.close()
        raise
    return client


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
        versions: dict[str, str] = client.run(_version)
    except TimeoutError:
        raise UserError(
            f"cluster={address} has no workers; start some with `dask worker {client.scheduler.address}`"
        ) from None
    except (ImportError, AttributeError) as error:  # of a worker that cannot unpack the function
        raise UserError(
            f"cluster={address}: a worker cannot import mengya {__version__} ({error}); install it on "
            "every machine, in the environment that runs `dask worker`"
        ) from None
    others = {worker: version for worker, version in versions.items() if version != __version__}
    if others:
        worker, version = next(iter(others.items()))
        raise UserError(
            f"cluster={address}: {len(others)} of {len(versions)} workers have another mengya than "
            f"{__version__}: {worker} has {version}; install the same on every machine"
        )


def _room(client: Any) -> int:
    """How many chunks may be pending: workers may have come or gone."""
    return PENDING_PER_THREAD * max(1, sum(client.nthreads().values()))


def _finished(distributed: Any, pending: deque[tuple[Chunk, Future]]) -> tuple[Chunk, EncodedChunk]:
    chunk, future = pending.popleft()
    try:
        result = future.result()
    except distributed.KilledWorker as error:
        raise UserError(
            f"the chunk of {chunk.file} from line {chunk.lines[0] if chunk.lines else 1} killed every worker "
            f"that took it, probably for want of memory ({error.last_worker}); the same command resumes "
            "where this one stopped"
        ) from None
    chunk.items = []
    return chunk, result


class _Encoders(threading.local):
    """Of each thread of a worker, the encoder of the last run that it worked for."""

    digest = ""
    encoder: Encoder | None = None


_encoders = _Encoders()


def _work(shipped: ShippedPlan, source: int, chunk: Chunk) -> EncodedChunk:
    if _encoders.encoder is None or _encoders.digest != shipped.digest:
        _encoders.encoder, _encoders.digest = Encoder(shipped.unpacked()), shipped.digest
    return _encoders.encoder(source, chunk)


def _version() -> str:
    return __version__
