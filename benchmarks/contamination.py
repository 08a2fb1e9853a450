"""How often the contamination check is wrong, on real exams and training text, and how fast it is.

    python benchmarks/contamination.py SHARED_DATA WORK_FOLDER [--exams other] [--parts pretrain,sft]
        [--share 0.7] [--sample 50] [--seed 0]

Unpacks the exams of SHARED_DATA/eval into WORK_FOLDER, looks for their items in the training text, prints a
table by exam, the comparison with three windows of 20 characters (SHARED_DATA/README.md), and writes
WORK_FOLDER/hits.jsonl (every hit, with what stands around it) and sample.jsonl (some of them, to be read by
eye). Every string of a training record counts. docs/log/2026-12-01-contamination.md has the results.
"""

from __future__ import annotations

import argparse
import json
import random
import tarfile
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mengya.data.exams.config import ExamSource
from mengya.data.exams.items import NamedExam, read_exams
from mengya.data.ingest.reading.files import file_kind
from mengya.data.ingest.reading.read import read_records
from mengya.data.ingest.reading.records import BadLines, texts_in
from mengya.text.contamination.folding import codes_of, fold_strings
from mengya.text.contamination.index import build_index
from mengya.text.contamination.items import Item
from mengya.text.contamination.ngrams import HashSet, ngram_hashes

GROUP = 1 << 20  # characters that are looked through at once, as `mengya prepare` does
WINDOW = 20


def exam_sources(data: Path, work: Path, other: bool) -> list[ExamSource]:
    """The exams, unpacked; `other`: those that were not looked at while the rules were made."""
    for archive in sorted((data / "eval").glob("*.tar.gz")):
        folder = work / archive.name.removesuffix(".tar.gz")
        if not folder.exists():
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
    if not (work / "ceval").exists():
        zipfile.ZipFile(data / "eval/ceval.zip").extractall(work / "ceval")
    few, safety = work / "fewclue", work / "safetybench_zh_subset/opensource_data"
    others = [
        ("agieval_en", work / "agieval_en", None),
        ("fewclue_tnews", few / "tnews/test_public.json", "sentence"),
        ("fewclue_eprstmt", few / "eprstmt/test_public.json", "sentence"),
        ("fewclue_iflytek", few / "iflytek/test_public.json", "sentence"),
        ("fewclue_chid", few / "chid/test_public.json", "content"),
        ("fewclue_csl", few / "csl/test_public.json", "abst"),
        ("safetybench", safety / "test_zh_subset.json", None),
    ]
    named = (
        others
        if other
        else [
            ("ceval", work / "ceval", None),
            ("ceval_test", work / "ceval/test", None),
            ("cmmlu", work / "cmmlu", None),
            ("c3", work / "c3", None),
            ("cmrc2018_dev", work / "cmrc2018_dev", None),
            ("gaokao_bench", work / "gaokao_bench", None),
            ("xiezhi", work / "xiezhi_inter_chn", None),
            ("charm", work / "charm_zh", None),
            ("gsm8k_test", data / "eval/gsm8k_test.jsonl.gz", None),
            ("cmath_dev", data / "eval/cmath_dev.jsonl.gz", None),
            ("humaneval", data / "eval/humaneval.jsonl.gz", None),
            ("ape210k_test", data / "eval/ape210k_test.jsonl.gz", "original_text"),
            ("belle_eval_set", data / "eval/belle_eval_set.jsonl.gz", None),
            ("alignbench", data / "eval/alignbench_v1.1.jsonl.gz", None),
            ("ifeval", data / "eval/ifeval_input_data.jsonl.gz", None),
        ]
    )
    return [ExamSource(path=str(path), name=name, field=field) for name, path, field in named]


def texts(data: Path, parts: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """(file, line, all strings of a record) of folders such as pretrain and sft."""
    for part in parts:
        for file in sorted((data / part).iterdir()):
            if file_kind(file) is None:
                continue
            for record in read_records(str(file), BadLines(10**9)):
                yield f"{part}/{file.name}", record.line, "\n".join(texts_in(record.value))


def groups(data: Path, parts: Sequence[str]) -> Iterator[list[tuple[str, int, str]]]:
    group: list[tuple[str, int, str]] = []
    size = 0
    for each in texts(data, parts):
        group.append(each)
        size += len(each[2])
        if size >= GROUP:
            yield group
            group, size = [], 0
    yield group


def windows(items: Sequence[Item]) -> tuple[HashSet, dict[int, list[int]], Counter[int]]:
    """The first, middle and last 20 characters of questions, to the letter, the items of each, and how many
    different ones an item has."""
    owners: dict[int, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        hashes = ngram_hashes(codes_of(item.question), WINDOW)
        for at in {0, len(hashes) // 2, len(hashes) - 1} if len(hashes) else ():
            owners[int(hashes[at])].append(number)
    counts = Counter(number for numbers in owners.values() for number in numbers)
    return HashSet(np.array(list(owners), np.uint64)), owners, counts


def around(question: str, text: str, n: int) -> str:
    """What stands where the question does, as folded characters."""
    step = min(n, len(question))
    for at in range(len(question) - step + 1):
        place = text.find(question[at : at + step])
        if place >= 0:
            return text[max(0, place - at - 40) : place + len(question) + 160]
    return text[:300]  # found by its options


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--exams", choices=["first", "other"], default="first")
    parser.add_argument("--parts", default="pretrain,sft")
    parser.add_argument("--share", type=float, default=0.7)
    parser.add_argument("--ngram", type=int, default=13)
    parser.add_argument("--sample", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    values = parser.parse_args()
    exams = read_exams(exam_sources(values.data, values.work, values.exams == "other"))
    items = [item for exam in exams for item in exam.items]
    owner = [exam.name for exam in exams for _ in exam.items]
    started = time.process_time()
    index = build_index(items, values.ngram, values.share)
    print(f"index of {len(items):,} items: {time.process_time() - started:.1f} s")
    by_window, window_owners, window_counts = windows(items)
    hits: list[dict[str, Any]] = []
    seen_windows: set[int] = set()
    seconds = size = documents = 0
    for group in groups(values.data, values.parts.split(",")):
        bodies = [text for _, _, text in group]
        documents += len(bodies)
        size += sum(len(body.encode("utf-8", "surrogatepass")) for body in bodies)
        started = time.process_time()
        found = index.find(bodies)
        seconds += time.process_time() - started
        for text, number in found:
            file, line, body = group[text]
            question, folded = fold_strings([items[number].question, body])
            hits.append(
                {
                    "exam": owner[number],
                    "item": number,
                    "file": file,
                    "line": line,
                    "question": items[number].question,
                    "options": items[number].options,
                    "around": around(question, folded, values.ngram),
                }
            )
        _, at = by_window.find(ngram_hashes(codes_of("\0".join(bodies)), WINDOW))
        seen_windows.update(by_window.sorted[np.unique(at)].tolist())
    seen_counts = Counter(number for gram in seen_windows for number in window_owners[gram])
    every_window = {
        number for number, count in seen_counts.items() if count == window_counts[number]
    }
    print(
        f"{documents:,} documents, {size / 1e6:.0f} MB, {size / 1e6 / seconds:.0f} MB/s of one core"
    )
    table(exams, owner, hits, set(seen_counts), every_window, index.unchecked)
    write(values.work / "hits.jsonl", hits)
    chosen = random.Random(values.seed).sample(hits, min(values.sample, len(hits)))
    write(values.work / "sample.jsonl", chosen)


def table(
    exams: Sequence[NamedExam],
    owner: Sequence[str],
    hits: Sequence[dict[str, Any]],
    any_window: set[int],
    every_window: set[int],
    unchecked: frozenset[int],
) -> None:
    """By exam: items, those not looked for, those found, and those of which windows are found."""
    ours = {hit["item"] for hit in hits}
    documents = Counter(hit["exam"] for hit in hits)
    print(
        "| exam | items | unchecked | found | documents | any window | all windows | all and found |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for exam in exams:
        mine = {number for number, name in enumerate(owner) if name == exam.name}
        print(
            f"| {exam.name} | {len(mine):,} | {len(unchecked & mine):,} | {len(ours & mine):,} "
            f"| {documents[exam.name]:,} | {len(any_window & mine):,} | {len(every_window & mine):,} "
            f"| {len(ours & every_window & mine):,} |"
        )


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
