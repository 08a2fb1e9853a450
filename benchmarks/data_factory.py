"""Speed and memory of `mengya prepare` as a data factory, next to datatrove on the same files.

    python benchmarks/data_factory.py FOLDER --tokenizer TOKENIZER [--megabytes 10 40]
        [--datatrove /opt/oracles/datatrove/bin/python] [--near]

Takes the text of FOLDER/*.jsonl and *.jsonl.gz in turn into one JSONL file of each size, and runs on it, with
one worker and one thread: `mengya prepare` without filters, with filters=standard, and with near-duplicate
signatures too (--near); with --datatrove, its repetition and quality filters, tokenizer and (--near) MinHash
signatures, each on all documents, since its thresholds drop most Chinese ones. Its environment needs
`pip install 'datatrove[io,processing]' spacy jieba`.

Prints CPU seconds of all processes, MB of JSONL per CPU second less the start-up, which a file of one record
measures, and the peak memory. CPU seconds mean something on a machine that is busy with other work, though
less than on a quiet one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

DATATROVE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.utils.hashing import HashConfig

folder, out, tokenizer, language, near = sys.argv[1:]
quality = GopherQualityFilter(language=language, min_avg_word_length=0, min_stop_words=0)
tokens = DocumentTokenizer(out + "/tokens", tokenizer_name_or_path=tokenizer, shuffle_documents=False)
minhash = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8)
signatures = MinhashDedupSignature(out + "/signatures", config=minhash, language=language)
steps = [[GopherRepetitionFilter(language=language), quality], [tokens]]
for number, part in enumerate([*steps, [signatures]] if near else steps):
    pipeline = [JsonlReader(folder), *part]
    LocalPipelineExecutor(pipeline, tasks=1, workers=1, logging_dir=f"{out}/log{number}").run()
"""


class Cost(NamedTuple):
    """Of a command: CPU seconds and peak memory in bytes of all its processes."""

    seconds: float
    peak: int


def texts(folder: Path) -> Iterator[str]:
    """Of all files in turn."""
    files = sorted(chain(folder.glob("*.jsonl"), folder.glob("*.jsonl.gz")))
    for round_ in zip_longest(*map(_texts, files)):
        yield from (text for text in round_ if text)


def _texts(path: Path) -> Iterator[str]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for line in lines:
            yield json.loads(line).get("text", "")


def write_file(path: Path, source: Iterator[str], size: float) -> int:
    """Write about `size` bytes of JSON lines; say how many it became."""
    path.parent.mkdir(parents=True)
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for text in source:
            line = json.dumps({"text": text}, ensure_ascii=False) + "\n"
            file.write(line)
            written += len(line.encode())
            if written >= size:
                break
    return written


def cost(command: list[str]) -> Cost:
    """Run a command in one thread."""
    threads = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = psutil.Popen(command, env={**os.environ, **threads}, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(one.memory_info().rss for one in family))
        except psutil.NoSuchProcess:  # ended while we looked
            continue
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"failed with {process.returncode}: {' '.join(command)[:400]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak)


def commands(arguments: argparse.Namespace, out: Path) -> dict[str, list[str]]:
    """What is run on a folder of data, by its name in the table; DATA stands for the folder."""
    prepare = [sys.executable, "-m", "mengya", "prepare", f"out={out}/shards", "sources=DATA"]
    prepare += [f"tokenizer={arguments.tokenizer}", "workers=1"]
    named = {
        "mengya, no filters": prepare,
        "mengya, filters=standard": [*prepare, "filters=standard"],
    }
    if arguments.near:
        near = [*prepare, "filters=standard", "near_duplicates=drop"]
        named["mengya, filters=standard near_duplicates=drop"] = near
    if arguments.datatrove:
        tokenizer = str(arguments.tokenizer / "tokenizer.json")
        start = [str(arguments.datatrove), "-c", DATATROVE, "DATA", str(out), tokenizer]
        named["datatrove, filters and tokens"] = [*start, arguments.language, ""]
        if arguments.near:
            named["datatrove, with signatures"] = [*start, arguments.language, "near"]
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[10.0, 40.0])
    parser.add_argument("--datatrove", type=Path)
    parser.add_argument("--language", default="zh", help="of datatrove's word tokenizer")
    parser.add_argument("--near", action="store_true")
    arguments = parser.parse_args()
    arguments.tokenizer = arguments.tokenizer.absolute()
    table = Table("", "MB", "CPU s", "start-up s", "MB per CPU s", "peak MiB")
    with tempfile.TemporaryDirectory(prefix="mengya-factory-") as name:
        work = Path(name)
        write_file(work / "one" / "a.jsonl", texts(arguments.folder), 1)
        sizes = {
            megabytes: write_file(
                work / str(megabytes) / "a.jsonl", texts(arguments.folder), megabytes * 1e6
            )
            for megabytes in arguments.megabytes
        }
        for what, command in commands(arguments, work / "out").items():

            def on(data: Path, command: list[str] = command) -> Cost:
                shutil.rmtree(work / "out", ignore_errors=True)
                return cost([part.replace("DATA", str(data)) for part in command])

            start = on(work / "one")
            for megabytes, size in sizes.items():
                full = on(work / str(megabytes))
                speed = size / 1e6 / (full.seconds - start.seconds)
                numbers = (size / 1e6, full.seconds, start.seconds, speed, full.peak / 2**20)
                table.add_row(what, *(f"{number:,.1f}" for number in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()
