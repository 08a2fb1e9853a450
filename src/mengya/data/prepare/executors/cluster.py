"""Chunks -> encoded chunks on the workers of a Dask cluster, in the order of the chunks.

This process reads the files, sends chunks of about a megabyte and writes the shards; the workers, on any
number of machines, parse, filter and tokenize. They need mengya in the same version and nothing else: the
plan carries the tokenizer's files. Since the order is that of the chunks, the shards are those of a run on
one machine, byte for byte, whatever workers come, go or die meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mengya.data.ingest.reading.records import Chunk
from mengya.data.prepare.encoding.plan import EncodingPlan
from mengya.data.prepare.outcome.encoded_chunk import EncodedChunk
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
    from mengya.data.prepare.executors.cluster_worker import PlanPlugin, encode

    client = _connect(distributed, address)
    pending: deque[tuple[Chunk, Future]] = deque()
    plugin = PlanPlugin(plan)
    try:
        client.register_plugin(plugin)
        room = PENDING_PER_THREAD
        for source, chunk in chunks:
            if len(pending) >= room:
                yield _finished(distributed, address, pending)
                room = _room(client) or room
            pending.append((chunk, client.submit(encode, plugin.name, source, chunk, pure=False)))
        while pending:
            yield _finished(distributed, address, pending)
    finally:
        if client.status == "running":
            with suppress(OSError):  # a scheduler that died just now has forgotten all of it
                client.cancel([future for _, future in pending])
                client.unregister_worker_plugin(plugin.name)
        client.close()


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
    from mengya.data.prepare.executors.cluster_worker import version

    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
        versions: dict[str, str] = client.run(version)
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
    """How many chunks may be pending: workers may have come or gone. 0 when the scheduler does not say."""
    try:
        return PENDING_PER_THREAD * sum(client.nthreads().values())
    except OSError:
        return 0  # the next result tells what happened


def _finished(
    distributed: Any, address: str, pending: deque[tuple[Chunk, Future]]
) -> tuple[Chunk, EncodedChunk]:
    chunk, future = pending.popleft()
    try:
        result = future.result()
    except distributed.KilledWorker as error:
        raise UserError(
            f"the chunk of {chunk.file} from line {chunk.lines[0] if chunk.lines else 1} killed every worker "
            f"that took it, probably for want of memory ({error.last_worker}); the same command resumes "
            "where this one stopped"
        ) from None
    except (CancelledError, OSError) as error:
        if future.status == "error":  # the worker's own: the task raised it
            raise
        raise UserError(
            f"cluster={address}: the scheduler is gone; start it and its workers again with `dask scheduler` "
            "and `dask worker`, then the same command resumes where this one stopped"
        ) from error
    chunk.items = []
    return chunk, result
