"""How many near-copies are found, how many pairs are found wrongly, and how fast.

    python benchmarks/near_duplicates.py planted [--folder DIR] [--documents 400] [--threshold 0.85]
    python benchmarks/near_duplicates.py corpus --folder DIR [--megabytes 60] [--pairs 20]

`planted` makes copies of generated texts, or of those of a folder, with 1 to 10 % of the characters
changed, paragraphs swapped, or boilerplate around, and compares what is found with the exact Jaccard
similarity of the sets of character n-grams; where `datasketch` can be imported, its MinHashLSH stands next
to it. `corpus` looks for near-duplicates in the files of a folder, counts them by pair of files and prints
some to be read.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.prepare_memory import documents
from mengya.data.ingest.reading.files import find_files
from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLines
from mengya.data.prepare.duplicates.near_duplicates import PLACE, KeptSamples
from mengya.text.near_duplicates.config import NearDuplicateConfig
from mengya.text.near_duplicates.method import signatures
from mengya.text.near_duplicates.ngrams import plain

BOILERPLATE = (
    "首页 > 新闻中心 > 正文\n责任编辑：小王 来源：本站原创 点击数：1024\n",
    "\n版权声明：本文为原创文章，转载请注明出处。欢迎关注我们的公众号，第一时间获取更多精彩内容。\n"
    "上一篇 下一篇",
)
Found = dict[int, set[int]]  # number of a copy -> numbers of the originals it is near to
console = Console(width=110)


def ngrams(text: str, n: int) -> set[str]:
    text = plain(text)
    return {text[at : at + n] for at in range(max(1, len(text) - n + 1))}


def jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / max(1, len(a | b))


def changed(rng: random.Random, text: str, share: float) -> str:
    """Characters replaced, inserted or deleted, each as often."""
    letters = list(text)
    for place in rng.sample(range(len(letters)), max(1, round(share * len(letters)))):
        letter = rng.choice(text)
        letters[place] = rng.choice((letter, letters[place] + letter, ""))
    return "".join(letters)


def swapped(rng: random.Random, text: str) -> str:
    """Two paragraphs, or else two sentences, in each other's place."""
    mark = "\n" if text.count("\n") > 2 else "。"
    parts = text.split(mark)
    if len(parts) > 2:
        a, b = rng.sample(range(len(parts) - 1), 2)
        parts[a], parts[b] = parts[b], parts[a]
    return mark.join(parts)


KINDS: dict[str, Callable[[random.Random, str], str]] = {
    "1 % changed": lambda rng, text: changed(rng, text, 0.01),
    "2 % changed": lambda rng, text: changed(rng, text, 0.02),
    "5 % changed": lambda rng, text: changed(rng, text, 0.05),
    "10 % changed": lambda rng, text: changed(rng, text, 0.1),
    "paragraphs swapped": swapped,
    "boilerplate around": lambda rng, text: BOILERPLATE[0] + text + BOILERPLATE[1],
}


def texts_of(folder: Path | None, per_file: int) -> Iterator[str]:
    if folder is None:
        yield from (text[:6000] for text in documents(1 << 30) if len(text) > 100)
        return
    for path in find_files(str(folder)):
        records = islice(read_records(str(path), BadLines(1 << 30)), per_file)
        yield from (str(record.value.get("text", "")) for record in records)


def ours(originals: list[str], copies: list[str], config: NearDuplicateConfig) -> Found:
    with tempfile.TemporaryDirectory() as name:
        kept = KeptSamples(Path(name) / "kept", config, 0)
        kept.add(signatures(originals, config), np.zeros(len(originals), PLACE))
        near = kept.near(signatures(copies, config), np.ones(len(copies), bool))
        kept.close()
    return {row: {one.kept for one in found if one.kept >= 0} for row, found in near.items()}


def datasketch(originals: list[str], copies: list[str], config: NearDuplicateConfig) -> Found:
    from datasketch import MinHash, MinHashLSH  # pyright: ignore[reportMissingImports]

    def signed(text: str) -> MinHash:
        made = MinHash(num_perm=config.permutations)
        made.update_batch([gram.encode() for gram in ngrams(text, config.ngram)])
        return made

    index = MinHashLSH(threshold=config.threshold, num_perm=config.permutations)
    for number, text in enumerate(originals):
        index.insert(number, signed(text))
    return {row: set(index.query(signed(text))) for row, text in enumerate(copies)}


def planted(arguments: argparse.Namespace) -> None:
    rng = random.Random(0)
    texts = [text for text in texts_of(arguments.folder, 200) if len(text) >= 20]
    if arguments.folder is None:
        texts = list(islice(texts_of(None, 0), 4 * arguments.documents))
    rng.shuffle(texts)
    texts = texts[: arguments.documents]
    kinds = [kind for kind in KINDS for _ in texts]
    copies = [change(rng, text) for change in KINDS.values() for text in texts]
    sets = [ngrams(text, arguments.ngram) for text in texts]
    of_copies = [ngrams(text, arguments.ngram) for text in copies]
    exact = np.array([jaccard(one, sets[row % len(texts)]) for row, one in enumerate(of_copies)])
    megabytes = sum(len(text.encode()) for text in texts + copies) / 1e6
    common = {"ngram": arguments.ngram}
    minhash = NearDuplicateConfig(
        threshold=arguments.threshold, permutations=arguments.permutations, **common
    )
    programs = {
        "mengya minhash": (ours, minhash),
        "mengya simhash": (ours, NearDuplicateConfig(method="simhash", **common)),
    }
    if importlib.util.find_spec("datasketch"):
        programs["datasketch"] = (datasketch, minhash)
    found: dict[str, Found] = {}
    table = Table(
        "program", "found at the threshold", "pairs found", "of these below", "lowest", "MB/s"
    )
    for name, (program, config) in programs.items():
        started = time.perf_counter()
        found[name] = program(texts, copies, config)
        seconds = time.perf_counter() - started
        hits = np.array(
            [row % len(texts) in found[name].get(row, ()) for row in range(len(copies))]
        )
        near = exact >= arguments.threshold
        similar = [
            jaccard(of_copies[row], sets[one]) for row, all_ in found[name].items() for one in all_
        ]
        below = sum(one < arguments.threshold for one in similar)
        table.add_row(
            name, f"{hits[near].sum()} of {near.sum()} ({hits[near].mean():.1%})", str(len(similar)),
            str(below), f"{min(similar, default=0):.3f}", f"{megabytes / seconds:.1f}",
        )  # fmt: skip
    console.print(f"{len(texts)} texts, {len(copies)} copies, {megabytes:.1f} MB")
    console.print(table)
    by_similarity = Table("exact Jaccard", "copies", *programs)
    edges = (0, 0.5, 0.7, 0.75, 0.8, 0.83, 0.85, 0.87, 0.9, 0.95, 1.001)
    for low, high in pairwise(edges):
        rows = np.flatnonzero((exact >= low) & (exact < high))
        shares = [
            f"{np.mean([row % len(texts) in found[name].get(row, ()) for row in rows.tolist()]):.1%}"
            for name in programs
        ] if len(rows) else ["-"] * len(programs)  # fmt: skip
        by_similarity.add_row(f"{low:.2f} to {min(high, 1):.2f}", str(len(rows)), *shares)
    console.print(by_similarity)
    by_kind = Table("kind", "median Jaccard", "at the threshold", *programs)
    for kind in KINDS:
        rows = np.array([row for row, one in enumerate(kinds) if one == kind])
        near = rows[exact[rows] >= arguments.threshold]
        shares = [
            f"{sum(row % len(texts) in found[name].get(row, ()) for row in near.tolist())}"
            for name in programs
        ]
        by_kind.add_row(kind, f"{np.median(exact[rows]):.3f}", str(len(near)), *shares)
    console.print(by_kind)


def corpus(arguments: argparse.Namespace) -> None:
    config = NearDuplicateConfig(
        threshold=arguments.threshold, permutations=arguments.permutations, ngram=arguments.ngram
    )
    files = find_files(str(arguments.folder))
    share = arguments.megabytes * 1e6 / len(files)
    texts: list[str] = []
    sources: list[str] = []
    pairs: list[tuple[float, int, int]] = []
    size, seconds = 0, [0.0, 0.0]
    with tempfile.TemporaryDirectory() as name:
        kept = KeptSamples(Path(name) / "kept", config, 0)
        for path in files:
            batch: list[str] = []
            of_file = 0
            for record in read_records(str(path), BadLines(1 << 30)):
                batch.append(str(record.value.get("text", "")))
                of_file += len(batch[-1].encode())
                if of_file > share:
                    break
            size += of_file
            for at in range(0, len(batch), 1000):
                some = batch[at : at + 1000]
                started = time.perf_counter()
                signed = signatures(some, config)
                signed_at = time.perf_counter()
                near = kept.near(signed, np.ones(len(some), bool))
                kept.add(signed, np.zeros(len(some), PLACE))
                seconds[0] += signed_at - started
                seconds[1] += time.perf_counter() - signed_at
                for row, found in near.items():
                    best = max(found, key=lambda one: one.similarity)
                    other = best.kept if best.kept >= 0 else len(texts) + ~best.kept
                    pairs.append((best.similarity, other, len(texts) + row))
                texts += some
                sources += [path.name.split(".")[0]] * len(some)
        kept.close()
    console.print(
        f"{len(texts):,} texts, {size / 1e6:.0f} MB: signatures {size / 1e6 / seconds[0]:.1f} MB/s, "
        f"index {len(texts) / seconds[1]:,.0f} texts/s ({size / 1e6 / seconds[1]:.1f} MB/s); {len(pairs):,} "
        "texts are near to an earlier one"
    )
    by_source = Counter((sources[a], sources[b]) for _, a, b in pairs)
    table = Table("earlier", "near-copy", "texts")
    for (a, b), count in by_source.most_common(20):
        table.add_row(a, b, f"{count:,}")
    console.print(table)
    rng = random.Random(1)
    below = 0
    checked = rng.sample(pairs, min(500, len(pairs)))
    exact = [jaccard(*(ngrams(texts[one], config.ngram) for one in pair[1:])) for pair in checked]
    below = sum(one < config.threshold for one in exact)
    console.print(
        f"of {len(checked)} pairs {below} are below by exact Jaccard, lowest {min(exact):.3f}"
    )
    for similarity, a, b in rng.sample(pairs, min(arguments.pairs, len(pairs))):
        console.print(f"--- {similarity:.3f} {sources[a]} / {sources[b]}", markup=False)
        for one in (a, b):
            console.print(repr(texts[one][:150]), markup=False, highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("planted", "corpus"))
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--threshold", type=float, default=0.85)
    parser.add_argument("--permutations", type=int, default=256)
    parser.add_argument("--ngram", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=60)
    parser.add_argument("--pairs", type=int, default=20)
    arguments = parser.parse_args()
    planted(arguments) if arguments.what == "planted" else corpus(arguments)


if __name__ == "__main__":
    main()
