"""Chunks -> encoded chunks in several processes, in the order of the chunks, for any number of processes.

Memory is bounded by that number: at most 2 * workers + 1 chunks of about a megabyte are pending.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from mengya.data.ingest.reading.records import Chunk
from mengya.data.prepare.encoding.encode import Encoder
from mengya.data.prepare.encoding.plan import EncodingPlan
from mengya.data.prepare.outcome.encoded_chunk import EncodedChunk
from mengya.errors import UserError


def encode_in_order(
    chunks: Iterable[tuple[int, Chunk]],
    workers: int,
    plan: EncodingPlan,
) -> Generator[tuple[Chunk, EncodedChunk], None, None]:
    """(chunk, what became of it) for every (source, chunk), in order; a chunk's items are gone by then.

    With one worker the work is done in this process.

    Raises:
        UserError: a worker process died.
    """
    if workers <= 1:
        encoder = Encoder(plan)
        for source, chunk in chunks:
            result = encoder(source, chunk)
            chunk.items = []
            yield chunk, result
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(plan,),
    )
    pending: deque[tuple[Chunk, Future[EncodedChunk]]] = deque()
    try:
        for source, chunk in chunks:
            pending.append((chunk, pool.submit(_work, source, chunk)))
            if len(pending) > 2 * workers:
                yield _finished(pending)
        while pending:
            yield _finished(pending)
    except BrokenProcessPool:
        raise UserError(
            "a worker process of `mengya prepare` was killed, probably because memory ran out; "
            "the same command resumes where this one stopped, workers=1 needs the least memory"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _finished(pending: deque[tuple[Chunk, Future[EncodedChunk]]]) -> tuple[Chunk, EncodedChunk]:
    chunk, future = pending.popleft()
    result = future.result()
    chunk.items = []
    return chunk, result


_encoder: Encoder | None = None  # of this worker process


def _start_worker(plan: EncodingPlan) -> None:
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _encoder = Encoder(plan)


def _die_with_parent() -> None:
    """Exit when the parent was killed: workers would wait for its work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(source: int, chunk: Chunk) -> EncodedChunk:
    assert _encoder is not None
    return _encoder(source, chunk)
