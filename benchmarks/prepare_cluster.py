"""What spreads `mengya prepare` over machines best: processes of this one, Dask, or Ray.

The same chunks of the same files are encoded by two workers of each engine, in order; and the reading alone,
which the process that sends the chunks does, bounds how many workers it can feed.

    python benchmarks/prepare_cluster.py --tokenizer runs/tokenizer --sources 'data/*.jsonl' --engine dask

One engine a run, since Ray wants an environment of its own (pip install ray). Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mengya.data.ingest.reading.files import find_files
from mengya.data.ingest.reading.read import read_chunks
from mengya.data.ingest.reading.records import Chunk
from mengya.data.prepare.encoding.encode import Encoder
from mengya.data.prepare.encoding.plan import EncodingPlan, SourceForm, plan_encoding
from mengya.data.prepare.executors.cluster import encode_on_cluster
from mengya.data.prepare.executors.workers import encode_in_order
from mengya.data.prepare.outcome.encoded_chunk import EncodedChunk
from mengya.text.clean import CleanConfig

Chunks = Iterable[tuple[int, Chunk]]
WORKERS = 2


def on_ray(chunks: Chunks, plan: EncodingPlan) -> Iterator[tuple[Chunk, EncodedChunk]]:
    """With an actor a worker, which hold their encoder; round robin, three chunks pending for each."""
    import ray  # pyright: ignore[reportMissingImports]

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    actors = [ray.remote(Encoder).remote(plan) for _ in range(WORKERS)]
    pending: deque[tuple[Chunk, Any]] = deque()
    for number, (source, chunk) in enumerate(chunks):
        if len(pending) >= 3 * WORKERS:
            done, reference = pending.popleft()
            yield done, ray.get(reference)
        pending.append((chunk, actors[number % WORKERS].__call__.remote(source, chunk)))
    for done, reference in pending:
        yield done, ray.get(reference)
    ray.shutdown()


def on_dask(chunks: Chunks, plan: EncodingPlan) -> Iterator[tuple[Chunk, EncodedChunk]]:
    """On a cluster of this machine: a process and a thread a worker."""
    import distributed

    cluster = distributed.LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1"
    )
    with cluster:
        yield from encode_on_cluster(chunks, cluster.scheduler_address, plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--sources", required=True)
    parser.add_argument("--engine", choices=("local", "dask", "ray", "read"), required=True)
    parser.add_argument("--megabytes", type=int, default=60)
    options = parser.parse_args()
    plan = plan_encoding("text", options.tokenizer, [SourceForm()], CleanConfig())
    sizes: list[int] = []

    def chunks() -> Iterator[tuple[int, Chunk]]:
        for path in find_files(options.sources):
            for chunk in read_chunks(Path(path)):
                sizes.append(chunk.size)
                yield 0, chunk
                if sum(sizes) > options.megabytes << 20:
                    return

    began, first, tokens = time.perf_counter(), 0.0, 0
    if options.engine == "read":
        for _ in chunks():
            first = first or time.perf_counter()
    else:
        engines = {
            "local": lambda: encode_in_order(chunks(), WORKERS, plan),
            "dask": lambda: on_dask(chunks(), plan),
            "ray": lambda: on_ray(chunks(), plan),
        }
        for _, encoded in engines[options.engine]():
            first = first or time.perf_counter()
            tokens += len(encoded.tokens)
    ended = time.perf_counter()
    result = {
        "engine": options.engine,
        "megabytes": round(sum(sizes) / 1e6, 1),
        "tokens": tokens,
        "seconds_to_first_chunk": round(first - began, 2),
        "megabytes_a_second_after_it": round((sum(sizes) - sizes[0]) / 1e6 / (ended - first), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
