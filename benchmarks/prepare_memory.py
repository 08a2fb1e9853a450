"""Peak memory of `mengya prepare` on a gigabyte of text: the full process tree, sampled every 50 ms.

    python benchmarks/prepare_memory.py [--gigabytes 1] [--workers 0] [--folder DIR]

Generates Chinese-looking JSON lines (random words from a fixed list, documents of 50 to 20,000 characters,
2 % of them duplicates), trains a tokenizer on a part of them, runs `mengya prepare` as a user would, and
prints a table.
RSS counts pages that processes share once for each, so the true figure is a little lower.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from mengya.tokenizer.load import save_tokenizer
from mengya.tokenizer.train import train_tokenizer

LETTERS = (
    "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会家可下而过天去能对小多然于"
    "心学么之都好看起发当没成只如事把还用第样道想作种开美总从无情己面最女但现前些所同日手又行意动方期它头经长儿回"
)


def documents(size: int, seed: int = 0) -> Iterator[str]:
    """Texts of together `size` bytes of JSON lines."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(1, 4))) for _ in range(20_000)]
    paragraphs = []
    for _ in range(3_000):
        sentences = (
            "".join(rng.choices(words, k=rng.randint(4, 15))) for _ in range(rng.randint(1, 8))
        )
        paragraphs.append("，".join(sentences) + "。\n")
    last, written = "", 0
    while written < size:
        if not last or rng.random() > 0.02:
            last = f"{rng.random()}\n" + "".join(
                rng.choices(paragraphs, k=int(rng.paretovariate(1.1)) % 200 + 1)
            )
        written += len(last.encode()) + 14
        yield last


def measure(command: list[str]) -> tuple[float, int, int]:
    """(seconds, peak RSS of the tree, most processes) of a command."""
    started, peak, most = time.perf_counter(), 0, 0
    process = psutil.Popen(command)
    while process.poll() is None:
        total = count = 0
        try:
            for one in [process, *process.children(recursive=True)]:
                total += one.memory_info().rss
                count += 1
        except psutil.NoSuchProcess:  # ended while we looked
            continue
        peak, most = max(peak, total), max(most, count)
        time.sleep(0.05)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, peak, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        size = 0
        with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
            for text in documents(int(arguments.gigabytes * 1e9)):
                size += file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        size = (folder / "text.jsonl").stat().st_size
        save_tokenizer(train_tokenizer(documents(5_000_000), vocab_size=6400), folder / "tokenizer")
        seconds, peak, most = measure(
            [
                sys.executable, "-m", "mengya", "prepare", f"out={folder}/shards",
                f"tokenizer={folder}/tokenizer",
                f"sources=[{folder}/text.jsonl]", f"workers={arguments.workers}", "validation_fraction=0.01",
            ]
        )  # fmt: skip
        manifest = json.loads((folder / "shards" / "train" / "manifest.json").read_text("utf-8"))
    table = Table("text", "documents", "tokens", "processes", "seconds", "MB/s", "peak RSS of all")
    table.add_row(
        f"{size / 1e9:.2f} GB", f"{manifest['read']:,}", f"{manifest['tokens']:,}", str(most),
        f"{seconds:.0f}", f"{size / 1e6 / seconds:.1f}", f"{peak / 2**20:,.0f} MiB",
    )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
